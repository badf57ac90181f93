"""`/v1/models` and each of them, and what answers call themselves."""

import time

import openai
import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
BODIES = {
    CHAT: {"messages": [{"role": "user", "content": "abc"}], "temperature": 0},
    TEXT: {"prompt": "abc", "temperature": 0},
}


@pytest.fixture(scope="module")
def many(stack_module, tmp_path_factory):
    """A model under a name with slashes, and an adapter that moves letters by one."""
    path = tmp_path_factory.mktemp("adapters") / "next"
    path.write_text("1")
    with stack_module.Stack(
        served_model_name="team/a/model", adapters={"next/letter": path}, strict_model_name=True
    ) as running:
        yield running


def test_the_list(many):
    answer = many.get("/v1/models").json()
    assert answer["object"] == "list"
    base, adapter = answer["data"]
    assert abs(time.time() - base["created"]) < 600
    assert base == {
        "id": "team/a/model",
        "object": "model",
        "created": base["created"],
        "owned_by": "echo:test",
    }
    assert adapter == {
        **base,
        "id": "next/letter",
        "root": "echo:test",
        "parent": "team/a/model",
    }


@pytest.mark.parametrize(
    ("path", "model_id"),
    [
        ("team/a/model", "team/a/model"),
        ("team%2Fa%2Fmodel", "team/a/model"),
        ("next/letter", "next/letter"),
        ("echo:test", "team/a/model"),
    ],
)
def test_one_of_them(many, path, model_id):
    response = many.get(f"/v1/models/{path}")
    assert response.status_code == 200
    assert response.json() in many.get("/v1/models").json()["data"]
    assert response.json()["id"] == model_id


@pytest.mark.parametrize("path", ["gpt-4", "team/a", "team/a/model/x", "%00", "x" * 3000])
def test_one_that_is_not_there(many, path):
    response = many.get(f"/v1/models/{path}")
    assert response.status_code == 404
    error = response.json()["error"]
    assert (error["code"], error["param"], error["type"]) == (
        "model_not_found",
        "model",
        "invalid_request_error",
    )
    assert len(error["message"]) < 500


@pytest.mark.parametrize("path", BODIES)
def test_answers_tell_who_answered(many, path):
    def ask(model):
        response = many.post(path, {**BODIES[path], "model": model})
        choice = response.json()["choices"][0]
        text = choice["text"] if path == TEXT else choice["message"]["content"]
        return response.json()["model"], text

    for name in ("team/a/model", "echo:test", "tgi", None):
        assert ask(name) == ("team/a/model", "abc")
    assert ask("next/letter") == ("next/letter", "bcd")
    _, events = many.events(path, {**BODIES[path], "model": "next/letter", "stream": True})
    assert {event["model"] for event in events[:-1]} == {"next/letter"}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("stream", [False, True])
def test_strictly_another_name_is_not_found(many, path, stream):
    response = many.post(path, {**BODIES[path], "model": "gpt-4", "stream": stream})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"


def test_with_openais_client(many):
    with openai.OpenAI(base_url=many.url + "/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list()] == ["team/a/model", "next/letter"]
        assert client.models.retrieve("next/letter").id == "next/letter"
        with pytest.raises(openai.NotFoundError, match="gpt-4"):
            client.models.retrieve("gpt-4")


def test_before_a_worker_is_there_the_list_has_no_date(stack_module):
    with stack_module.Stack(worker=False) as stack:
        [model] = stack.get("/v1/models").json()["data"]
        assert (model["id"], model["created"]) == ("echo:test", 0)
