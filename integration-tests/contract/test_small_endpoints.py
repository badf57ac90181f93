"""Routes that generate nothing (section 1.7): facts, tokens, health, the API's description."""

import httpx
import pytest
from contract.conftest import ECHO
from contract.wire import CHAT, answered, get, is_compact, post, user
from deployment import deployed

INFO = [
    "model_id",
    "model_sha",
    "model_pipeline_tag",
    "max_concurrent_requests",
    "max_best_of",
    "max_stop_sequences",
    "max_input_tokens",
    "max_total_tokens",
    "validation_workers",
    "max_client_batch_size",
    "router",
    "version",
    "sha",
    "docker_label",
]


def test_info_has_tgis_keys_first_and_in_order(echo):
    response = get(echo, "/info")
    assert is_compact(response.content)
    facts = response.json()
    assert list(facts)[: len(INFO)] == INFO
    assert facts["model_id"] == "echo:contract"
    assert facts["router"] == "text-generation-router"
    assert (facts["max_concurrent_requests"], facts["max_best_of"]) == (128, 2)
    assert (facts["max_stop_sequences"], facts["max_client_batch_size"]) == (4, 4)
    assert (facts["max_input_tokens"], facts["max_total_tokens"]) == (4095, 4096)
    assert facts["model_pipeline_tag"] == "text-generation"


def test_the_demo_models_info_tells_what_serves_it(demo):
    facts = get(demo, "/info").json()
    assert (facts["model_id"], facts["backend"]) == ("backplane-demo", "llamacpp")


def test_models_lists_one_and_retrieves_it(echo):
    listed = get(echo, "/v1/models").json()
    (entry,) = listed["data"]
    assert list(listed) == ["object", "data"]
    assert list(entry) == ["id", "object", "created", "owned_by"]
    assert (entry["id"], entry["object"], entry["owned_by"]) == (
        "echo:contract",
        "model",
        "echo:contract",
    )
    assert get(echo, "/v1/models/echo:contract").json() == entry
    missing = get(echo, "/v1/models/nobody")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


def test_tokenize_counts_bytes_and_adds_special_tokens(echo):
    tokens = answered(echo, "/tokenize", {"inputs": "hé<|eos|>"})
    assert list(tokens[0]) == ["id", "text", "start", "stop"]
    assert [(token["id"], token["start"], token["stop"]) for token in tokens] == [
        (256, 0, 0),
        (104, 0, 1),
        (195, 1, 2),
        (169, 2, 3),
        (257, 3, 10),
    ]


def test_tokenize_and_detokenize_are_each_others_inverse(demo):
    text = "What is Backplane? Grüße, 12 + 3."
    tokens = answered(demo, "/tokenize", {"inputs": text})
    spelled = b"".join(text.encode()[token["start"] : token["stop"]] for token in tokens)
    assert spelled.decode() == text
    ids = [token["id"] for token in tokens]
    assert answered(demo, "/detokenize", {"tokens": ids})["prompt"].strip() == text


def test_tokenize_takes_what_generate_takes(echo):
    body = {"inputs": "hello", "parameters": {"max_new_tokens": 3, "details": True}}
    assert len(answered(echo, "/tokenize", body)) == 6


def test_chat_tokenize_renders_and_adds_nothing(echo):
    answer = answered(echo, "/chat_tokenize", {"messages": user("hi")})
    assert list(answer) == ["tokenize_response", "templated_text"]
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert answer["templated_text"] == rendered
    tokens = answer["tokenize_response"]
    assert list(tokens[0]) == ["id", "text", "start", "stop"]
    assert tokens[0]["id"] == 258, "the template's own first token, and none before it"
    assert tokens[-1]["stop"] == len(rendered)


def test_chat_tokenize_counts_what_a_chat_has(demo):
    body = {"messages": user("What is Backplane?")}
    num_tokens = len(answered(demo, "/chat_tokenize", body)["tokenize_response"])
    usage = answered(demo, CHAT, {**body, "max_tokens": 1})["usage"]
    assert usage["prompt_tokens"] == num_tokens


def test_the_images_label_is_told():
    with deployed(
        *ECHO, "--docker-label", "sha-1234567", "--served-model-name", "mine"
    ) as labelled:
        facts = get(labelled, "/info").json()
        assert facts["docker_label"] == "sha-1234567"
        answer = answered(labelled, CHAT, {"messages": user("hi"), "temperature": 0})
        assert answer["system_fingerprint"] == f"{facts['version']}-sha-1234567"
        assert answer["model"] == "mine"
        (model,) = get(labelled, "/v1/models").json()["data"]
        assert model["id"] == "mine"


def test_of_what_generates_nothing_only_chats_count_and_only_as_requests(echo):
    names = ("tgi_request_count", "tgi_request_success")
    before = [echo.metric(name) for name in names]
    answered(echo, "/chat_tokenize", {"messages": user("hi")})
    answered(echo, "/tokenize", {"inputs": "hi"})
    answered(echo, "/detokenize", {"tokens": [104]})
    assert [echo.metric(name) for name in names] == [before[0] + 1, before[1]]


@pytest.mark.parametrize("path", ["/health", "/ping", "/", "/health/live", "/health/ready"])
def test_health_is_an_empty_200(echo, path):
    response = get(echo, path)
    assert (response.status_code, response.content) == (200, b"")


def test_health_by_head(echo):
    assert httpx.head(echo.url + "/health").status_code == 200


def test_a_browser_gets_a_page_at_the_root(echo):
    response = get(echo, "/", accept="text/html,application/xhtml+xml")
    assert response.headers["content-type"].startswith("text/html")
    assert b"<html" in response.content


def test_metrics_are_prometheus_text(echo):
    response = get(echo, "/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert "charset=utf-8" in response.headers["content-type"]


def test_the_documents_are_where_tgi_has_them(echo):
    moved = httpx.get(echo.url + "/docs", follow_redirects=False)
    assert moved.status_code in {303, 307}
    assert get(echo, "/docs/").headers["content-type"].startswith("text/html")
    document = get(echo, "/api-doc/openapi.json").json()
    assert {"/generate", "/generate_stream", CHAT, "/tokenize", "/info"} <= set(document["paths"])
    assert get(echo, "/openapi.json").status_code == 404


def test_unknown_fields_are_ignored_everywhere(echo):
    for path, body in {
        "/generate": {"inputs": "hi", "parameters": {"foo": 1}, "bar": 2},
        "/tokenize": {"inputs": "hi", "bar": 2},
        CHAT: {"messages": user("hi"), "foo": {"a": [1]}},
    }.items():
        assert post(echo, path, body).status_code == 200
