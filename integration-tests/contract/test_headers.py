"""TGI's response headers, for each kind of route (sections 1.1 and 1.3)."""

import re

import httpx
import pytest
from contract.wire import CHAT, COMPLETIONS, get, post, user

PROMPT = "héllo"  # five characters, six bytes
GENERATE = {"inputs": PROMPT, "parameters": {"max_new_tokens": 4}}
OPENAI = {"model": "tgi", "max_tokens": 4, "temperature": 0}
WHOLE = {
    "/generate": GENERATE,
    "/": GENERATE,
    CHAT: {**OPENAI, "messages": user(PROMPT)},
    COMPLETIONS: {**OPENAI, "prompt": PROMPT},
}
STREAMS = {
    "/generate_stream": GENERATE,
    "/": {**GENERATE, "stream": True},
    CHAT: {**WHOLE[CHAT], "stream": True},
    COMPLETIONS: {**WHOLE[COMPLETIONS], "stream": True},
}
MILLISECONDS = ("total", "validation", "queue", "inference")
AT_THE_END = {
    "x-compute-time",
    "x-time-per-token",
    "x-prompt-tokens",
    "x-generated-tokens",
    *(f"x-{name}-time" for name in MILLISECONDS),
}


@pytest.mark.parametrize("route", WHOLE)
def test_a_whole_answer_tells_its_cost(echo, route):
    headers = post(echo, route, WHOLE[route]).headers
    assert headers["content-type"] == "application/json"
    assert headers["x-compute-type"]
    assert re.fullmatch(r"\d+\.\d+", headers["x-compute-time"]), "seconds"
    for name in MILLISECONDS:
        assert headers[f"x-{name}-time"].isdecimal()
    assert headers["x-time-per-token"].isdecimal()
    assert int(headers["x-generated-tokens"]) == 4
    seconds = float(headers["x-compute-time"])
    assert int(headers["x-total-time"]) == pytest.approx(seconds * 1000, abs=1.0)
    if route != CHAT:
        assert headers["x-compute-characters"] == "5"
        assert headers["x-prompt-tokens"] == "7"


def test_a_chats_characters_are_those_of_the_rendered_prompt(echo):
    rendered = f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n"
    assert post(echo, CHAT, WHOLE[CHAT]).headers["x-compute-characters"] == str(len(rendered))


def test_several_prompts_are_summed(echo):
    body = {**OPENAI, "prompt": ["one", "three"]}
    headers = post(echo, COMPLETIONS, body).headers
    assert headers["x-compute-characters"] == "8"
    assert headers["x-prompt-tokens"] == "10"
    assert headers["x-generated-tokens"] == "8"


@pytest.mark.parametrize("route", STREAMS)
def test_a_stream_tells_what_is_known_before_it(echo, route):
    headers = post(echo, route, STREAMS[route]).headers
    assert headers["content-type"].split(";")[0] == "text/event-stream"
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"
    assert headers["x-compute-type"]
    assert headers["x-compute-characters"].isdecimal()
    assert not AT_THE_END & set(headers)


@pytest.mark.parametrize("path", ["/info", "/v1/models", "/health", "/metrics"])
def test_what_generates_nothing_has_none_of_them(echo, path):
    headers = get(echo, path).headers
    assert not {name for name in headers if name.startswith(("x-compute", "x-time", "x-total"))}


def test_a_refusal_has_none_of_them(echo):
    headers = post(echo, "/generate", {"inputs": ""}).headers
    assert not AT_THE_END & set(headers)
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize("route", WHOLE)
def test_every_answer_has_a_request_id(echo, route):
    ids = {post(echo, route, WHOLE[route]).headers["x-request-id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(ids)


def test_an_ignored_parameter_is_listed(echo):
    body = {**WHOLE["/generate"], "foo": 1, "bar": 2}
    listed = post(echo, "/generate", body).headers["x-ignored-parameters"]
    assert {name.strip() for name in listed.split(",")} == {"foo", "bar"}


def test_a_browser_may_send_its_key(cors):
    """TGI lets `content-type` alone through the preflight, so a page cannot send its key."""
    response = httpx.options(
        cors.url + CHAT,
        headers={
            "origin": "https://page.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    assert response.status_code in {200, 204}
    headers = response.headers
    assert headers["access-control-allow-origin"] == "https://page.example"
    assert "authorization" in headers["access-control-allow-headers"].lower()
    assert "POST" in headers["access-control-allow-methods"]
    assert "access-control-allow-credentials" not in headers
    other = httpx.get(cors.url + "/health", headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in other.headers
