"""What a request's `model` and `adapter_id` select, and what they never do in silence."""

import asyncio
import logging
from types import SimpleNamespace

import pytest
from backplane_core.errors import AdapterError, UnavailableError
from backplane_server.errors import ModelNotFoundError, NotReadyError
from backplane_server.services.readiness import Readiness
from backplane_server.services.served_model import ServedModel
from backplane_server.services.worker_pool import WorkerPool
from backplane_server.text.detokenizer import TokenTable


@pytest.fixture
def model(info):
    def make(*, adapters=("poet", "lawyer"), strict_name=False, detail=None, **capabilities):
        known = info(**capabilities)
        known.model.detail.update(detail or {})
        return ServedModel(
            name="served",
            info=known,
            table=TokenTable(known.vocabulary),
            tokenizer=SimpleNamespace(),
            prompter=SimpleNamespace(),
            adapters=frozenset(adapters),
            strict_name=strict_name,
        )

    return make


@pytest.mark.parametrize("strict_name", [True, False])
def test_names_that_are_known(model, strict_name):
    made = model(strict_name=strict_name)
    for name in (None, "", "tgi", "dummy", "served", "m"):
        assert made.resolve(name) is None
    assert made.resolve("poet") == "poet"


def test_a_name_that_is_nobodys_is_an_alias_and_logged_once(model, caplog):
    made = model()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert made.resolve("gpt-4") is None
    assert caplog.text.count("'gpt-4'") == 1


def test_what_is_kept_of_names_is_bounded(model):
    made = model()
    for number in range(200):
        assert made.resolve(f"{number}{'m' * 100_000}") is None
    assert sum(map(len, made._aliases_seen)) <= 100 * 200


def test_strictly_it_is_not_found_and_the_known_ones_are_named(model):
    with pytest.raises(ModelNotFoundError) as caught:
        model(strict_name=True).resolve("gpt-4")
    assert caught.value.parameter == "model"
    assert "'gpt-4'" in caught.value.message
    assert "served, lawyer, poet" in caught.value.message


def test_an_adapter_that_nobody_has_is_never_the_bare_model(model):
    made = model()
    made.check_adapter(None)
    made.check_adapter("poet")
    for name in ("Poet", "m", ""):
        with pytest.raises(AdapterError, match="lawyer, poet"):
            made.check_adapter(name)
    with pytest.raises(AdapterError, match="known are: none"):
        model(adapters=()).check_adapter("poet")


def test_what_the_model_does_is_told_by_its_files_or_by_what_it_takes(model):
    assert model().pipeline_tag == "text-generation"
    assert model(modalities=("text", "image")).pipeline_tag == "image-text-to-text"
    assert model(detail={"pipeline_tag": "summarization"}).pipeline_tag == "summarization"


def test_a_request_goes_to_a_worker_that_has_its_adapter():
    pool = WorkerPool("s", Readiness(), SimpleNamespace())
    with pytest.raises(NotReadyError):
        pool.choose([], "poet")
    links = [
        SimpleNamespace(adapters=frozenset(names), outstanding_tokens=count, closed=asyncio.Event())
        for names, count in ((("poet",), 9), ((), 0))
    ]
    pool._connections = dict(enumerate(links))
    assert pool.choose([]) is links[1]
    assert pool.choose([], "poet") is links[0]
    links[0].closed.set()
    with pytest.raises(UnavailableError, match="adapter poet"):
        pool.choose([], "poet")


def test_adapters_answer_by_either_name_in_every_dialect(stack_module, tmp_path):
    """The echo's adapter moves every letter on by what its file says."""
    for name, places in (("one", 1), ("two", 2)):
        (tmp_path / name).write_text(str(places))
    adapters = {name: tmp_path / name for name in ("one", "two")}
    messages = [{"role": "user", "content": "abc"}]
    with stack_module.Stack(adapters=adapters) as stack:
        for adapter, text in ((None, "abc"), ("one", "bcd"), ("two", "cde")):
            body = {"inputs": "abc", "parameters": {"adapter_id": adapter}}
            assert stack.post("/generate", body).json()["generated_text"] == text
            _, events = stack.events("/generate_stream", body)
            assert events[-1]["generated_text"] == text
            asked = {"model": adapter or "tgi", "temperature": 0}
            answer = stack.post("/v1/completions", {"prompt": "abc", **asked}).json()
            assert answer["choices"][0]["text"] == text
            answer = stack.post("/v1/chat/completions", {"messages": messages, **asked}).json()
            assert answer["choices"][0]["message"]["content"] == text
        response = stack.post("/generate", {"inputs": "x", "parameters": {"adapter_id": "three"}})
        assert response.status_code == 422
        assert "known are: one, two" in response.json()["error"]
