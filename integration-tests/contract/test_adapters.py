"""Adapters by name on every route: chosen, listed, and never confused with the bare model."""

from collections.abc import Iterator

import pytest
from contract.conftest import ECHO, kept
from contract.wire import CHAT, COMPLETIONS, answered, get, post, user
from deployment import Deployment

GREEDY = {"temperature": 0}


@pytest.fixture(scope="module")
def adapted(tmp_path_factory) -> Iterator[Deployment]:
    """Echo's adapters move every character by as many places as their file says."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, places in (("plus-one", 1), ("plus-two", 2)):
        (folder / f"{name}.gguf").write_text(str(places))
    names = ",".join(f"{name}={folder / name}.gguf" for name in ("plus-one", "plus-two"))
    with kept(*ECHO, "--lora-adapters", names) as deployment:
        yield deployment


@pytest.mark.parametrize(
    ("name", "text"), [("plus-one", "bcd"), ("plus-two", "cde"), ("tgi", "abc"), (None, "abc")]
)
@pytest.mark.parametrize("route", [CHAT, COMPLETIONS])
def test_the_models_name_selects_an_adapter(adapted, route, name, text):
    body = {**GREEDY, "messages": user("abc"), "prompt": "abc", "model": name, "max_tokens": 3}
    answer = answered(adapted, route, body)
    (choice,) = answer["choices"]
    assert (choice["message"]["content"] if route == CHAT else choice["text"]) == text
    assert answer["model"] == (name if name in {"plus-one", "plus-two"} else "echo:contract")


def test_the_native_parameter_selects_one_too(adapted):
    body = {"inputs": "abc", "parameters": {"adapter_id": "plus-one", "max_new_tokens": 3}}
    assert answered(adapted, "/generate", body) == {"generated_text": "bcd"}
    assert post(adapted, "/generate_stream", body).text.count('"text":"b"') == 1


@pytest.mark.parametrize("route", ["/generate", "/generate_stream"])
def test_a_native_name_that_is_nobodys_is_refused(adapted, route):
    body = {"inputs": "abc", "parameters": {"adapter_id": "plus-three"}}
    response = post(adapted, route, body)
    assert response.status_code == 422
    assert response.json()["error_type"] == "adapter_error"
    assert "plus-three" in response.json()["error"]
    assert "plus-one" in response.json()["error"], "the remedy names what there is"


def test_the_list_has_the_adapters(adapted):
    listed = get(adapted, "/v1/models").json()["data"]
    assert [model["id"] for model in listed] == ["echo:contract", "plus-one", "plus-two"]
    assert [model.get("parent") for model in listed] == [None, "echo:contract", "echo:contract"]
    assert get(adapted, "/v1/models/plus-two").json() == listed[2]


def test_answers_of_adapters_never_mix(adapted):
    """The same prompt by turns: no prefix of one is reused for the other."""
    for _ in range(3):
        for name, text in (("plus-one", "bcd"), ("plus-two", "cde"), ("tgi", "abc")):
            body = {**GREEDY, "prompt": "abc", "model": name, "max_tokens": 3}
            assert answered(adapted, COMPLETIONS, body)["choices"][0]["text"] == text
