"""`tgi_strict` on OpenAI's routes: what TGI does there that OpenAI does not, and nothing more."""

import pytest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
TALK = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def strict(stack_module):
    with stack_module.Stack(tgi_strict=True) as running:
        yield running


def chat(stack, **fields):
    response = stack.post(CHAT, {"messages": TALK, "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def text(stack, **fields):
    response = stack.post(TEXT, {"prompt": "hello", "temperature": 0, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def chunks(stack, path, **fields):
    body = {"messages": TALK} if path == CHAT else {"prompt": "hello"}
    _, events = stack.events(path, {**body, "temperature": 0, "stream": True, **fields})
    assert events[-1] == "[DONE]"
    return events[:-1]


def reasons(events):
    return [event["choices"][0]["finish_reason"] for event in events]


ENDS = [({}, "end"), ({"stop": "l"}, "stop string"), ({"max_tokens": 2}, "length")]


@pytest.mark.parametrize(("fields", "end"), ENDS)
def test_finish_reasons_of_whole_answers(strict, stack, fields, end):
    tgi = {"end": "stop", "stop string": "stop_sequence", "length": "length"}[end]
    ours = {"end": "stop", "stop string": "stop", "length": "length"}[end]
    for ask in (chat, text):
        assert ask(strict, **fields)["choices"][0]["finish_reason"] == tgi
        assert ask(stack, **fields)["choices"][0]["finish_reason"] == ours


@pytest.mark.parametrize(("fields", "end"), ENDS)
def test_finish_reasons_of_streams(strict, stack, fields, end):
    in_chat = {"end": "stop", "stop string": "stop_sequence", "length": "length"}[end]
    in_text = {"end": "eos_token", "stop string": "stop_sequence", "length": "length"}[end]
    ours = {"end": "stop", "stop string": "stop", "length": "length"}[end]
    for path, tgi in ((CHAT, in_chat), (TEXT, in_text)):
        assert reasons(chunks(strict, path, **fields))[-1] == tgi
        assert reasons(chunks(stack, path, **fields))[-1] == ours


def test_stop_strings_stay(strict, stack):
    assert chat(strict, stop="l")["choices"][0]["message"]["content"] == "hel"
    assert text(strict, stop=["l"])["choices"][0]["text"] == "hel"
    parts = chunks(strict, CHAT, stop="l")
    assert "".join(part["choices"][0]["delta"]["content"] for part in parts) == "hel"
    assert chat(stack, stop="l")["choices"][0]["message"]["content"] == "he"


def test_length_goes_before_an_end_on_the_last_token(strict, stack):
    for ask in (chat, text):
        assert ask(strict, max_tokens=6)["choices"][0]["finish_reason"] == "length"
        assert ask(stack, max_tokens=6)["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_ids_are_empty(strict, stack, path):
    body = {"messages": TALK} if path == CHAT else {"prompt": "hello"}
    assert strict.post(path, body).json()["id"] == ""
    assert {part["id"] for part in chunks(strict, path)} == {""}
    assert all(part["id"] for part in chunks(stack, path))


def test_the_role_stands_in_every_delta(strict, stack):
    options = {"include_usage": True}
    *parts, usage = chunks(strict, CHAT, stream_options=options, logprobs=True)
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert deltas == [{"role": "assistant", "content": letter} for letter in [*"hello", ""]]
    assert usage["choices"] == []
    ours = [part["choices"][0]["delta"] for part in chunks(stack, CHAT)]
    assert ["role" in delta for delta in ours] == [True, *[False] * 6]
    assert ours[-1] == {}


def test_what_is_not_of_the_list_stays_ours(strict):
    assert chat(strict, top_p=1.0, stop=None, n=2)["choices"][1]["index"] == 1
    answer = text(strict, logprobs=1, echo=True, max_tokens=0)
    assert answer["choices"][0]["logprobs"]["tokens"] == ["<|bos|>", *"hello"]
    response = strict.post(CHAT, {"messages": TALK, "tools": "x"})
    assert response.status_code == 422
