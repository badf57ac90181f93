"""What is refused, with which status and in whose shape, on every generating route."""

import json
import re

import pytest
from backplane_server.web.errors import map_error
from backplane_server.web.request_ids import current_request_id

NATIVE = ["/generate", "/generate_stream", "/"]
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ROUTES = [*NATIVE, CHAT, TEXT]
BODIES = {
    **{path: {"inputs": "hello"} for path in NATIVE},
    CHAT: {"messages": [{"role": "user", "content": "hello"}]},
    TEXT: {"prompt": "hello"},
}
# Has what every route wants: shape is read along with syntax, and a missing field told first.
ANY_BODY = b'{"inputs": "%s", "prompt": "%s", "messages": [{"role": "user", "content": "%s"}]}'


def problem(response):
    """Status, sentence, parameter and type, in whichever shape the route has."""
    body = response.json()
    if isinstance(body["error"], dict):
        assert set(body["error"]) >= {"message", "type", "param", "code"}
        return body["error"]["message"], body["error"]["type"]
    assert set(body) >= {"error", "error_type"}
    return body["error"], body["error_type"]


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"nonsense", 400),
        (b'{"x": NaN}', 400),
        (ANY_BODY % ((b"\\ud800",) * 3), 400),
        (ANY_BODY % ((b"\xff",) * 3), 400),
        (ANY_BODY % ((b"a",) * 3) + b" trailing", 400),
        (b"[" * 100_000, 400),
        (b'{"x":' * 50_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"inputs": 5, "messages": 5, "prompt": 5}', 422),
    ],
)
def test_malformed_bodies(stack, path, data, status):
    response = stack.post_raw(path, data)
    assert response.status_code == status
    sentence, kind = problem(response)
    assert sentence
    assert kind in {"validation", "invalid_request_error"}


@pytest.mark.parametrize("path", ROUTES)
def test_shape_errors_name_the_field(stack, path):
    body = {**BODIES[path], "stream": "yes"} if path != "/generate" else {"inputs": 1}
    if path == "/generate_stream":
        body = {"inputs": "x", "parameters": {"top_k": "many"}}
    response = stack.post(path, body)
    assert response.status_code == 422
    sentence, _ = problem(response)
    assert any(name in sentence for name in ("`stream`", "`inputs`", "`parameters.top_k`"))


@pytest.mark.parametrize("path", ROUTES)
def test_media_type_and_size(stack, path):
    response = stack.post_raw(path, b"{}", content_type="text/plain")
    assert (response.status_code, "application/json" in problem(response)[0]) == (415, True)
    assert stack.post_raw(path, b"{}", content_encoding="gzip").status_code == 415
    response = stack.post_raw(path, b" " * 2_000_001)
    assert (response.status_code, "2000000" in problem(response)[0]) == (413, True)
    kinds = ("application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON")
    data = json.dumps(BODIES[path]).encode()
    assert {stack.post_raw(path, data, content_type=kind).status_code for kind in kinds} == {200}


TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"tools": "f"}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [TOOL], "tool_choice": []}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"functions": [{}]}, "functions[0].name"),
        ({"tools": [TOOL], "functions": [{"name": "f"}]}, "functions"),
        ({"response_format": 5}, "response_format"),
        ({"response_format": {}}, "response_format.type"),
        ({"response_format": {"type": "structural_tag"}}, "response_format.type"),
        ({"response_format": {"type": "json"}}, "response_format.value"),
        ({"response_format": {"type": "json", "value": "{"}}, "response_format.value"),
        ({"response_format": {"type": "regex", "value": 5}}, "response_format.value"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "value": {"name": "x"}}},
            "response_format.value.schema",
        ),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        (
            {"structured_outputs": {"regex": "a", "json_object": True}},
            "structured_outputs.regex",
        ),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_json": 5}, "guided_json"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"messages": []}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"bos_token": "x"}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a b": 1}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": "x" * 70_000}}, "chat_template_kwargs"),
        ({"chat_template_kwargs": {"a": 10**40}}, "chat_template_kwargs"),
        ({"documents": ["text"]}, "documents[0]"),
        ({"continue_final_message": True}, "continue_final_message"),
        ({"grammar": {"type": "regex", "value": "a"}}, "grammar"),
        ({"include_reasoning": False}, "include_reasoning"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens"),
        ({"truncate_prompt_tokens": 100_000}, "truncate_prompt_tokens"),
        ({"typical_p": 0}, "typical_p"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ({"best_of": 3}, "best_of"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"logit_bias": [1.0]}, "logit_bias"),
        ({"logit_bias": {"100000": 1}}, "logit_bias"),
        ({"stop_token_ids": [100000]}, "stop_token_ids"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 4096}, "max_tokens"),
        ({"max_completion_tokens": 4096, "max_tokens": 1}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
        ),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_chat_parameters(stack, fields, name, stream):
    response = stack.post(CHAT, {**BODIES[CHAT], **fields, "stream": stream})
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    assert error["param"] == name
    assert f"`{name}`" in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 3}, "best_of"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"tools": [TOOL]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "jsonl"}}, "response_format.type"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"a": 1}}, "chat_template_kwargs"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ["a"] * 5}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": [100000]}, "prompt"),
        ({"prompt": "x" * 5000}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
    ],
)
def test_completions_parameters(stack, fields, name):
    response = stack.post(TEXT, {**BODIES[TEXT], **fields})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["param"] == name


def test_neutral_values_of_missing_parameters_are_taken(stack):
    neutral = {
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "modalities": ["text"],
        "parallel_tool_calls": False,
        "tool_prompt": None,
        "reasoning_effort": "none",
        "prediction": None,
        "web_search_options": {},
        "stop": None,
        "stream": None,
        "stream_options": {"include_usage": None},
        "logit_bias": {},
        "logprobs": False,
    }
    for path in (CHAT, TEXT):
        assert stack.post(path, {**BODIES[path], **neutral}).status_code == 200
    for path, value in ((CHAT, False), (TEXT, True)):
        body = {**BODIES[path], "add_special_tokens": value}
        assert stack.post(path, body).status_code == 200
    assert stack.post(TEXT, {**BODIES[TEXT], "best_of": 2, "n": 2}).status_code == 200
    [answer] = stack.post("/", {"inputs": "x", "stream": None}).json()
    assert answer["generated_text"].startswith("x")
    parameters = {"best_of": 1, "watermark": False, "grammar": None, "stop": None}
    assert stack.post("/generate", {"inputs": "x", "parameters": parameters}).status_code == 200


def test_empty_inputs(stack):
    response = stack.post("/generate", {"inputs": ""})
    assert response.json() == {
        "error": "Input validation error: `inputs` cannot be empty",
        "error_type": "validation",
    }


def test_too_long_inputs(stack):
    response = stack.post("/generate", {"inputs": "x" * 4095})
    assert response.status_code == 422
    assert "4096" in response.json()["error"]


def test_parameters_nobody_knows_are_taken_named_and_logged_once(stack):
    body = {"inputs": "x", "foo": 1, "parameters": {"bar": 2, "we\nird": 3, "max_new_tokens": 1}}
    for _ in range(2):
        response = stack.post("/generate", body)
        assert response.status_code == 200
        ignored = response.headers["x-ignored-parameters"]
        assert ignored == "foo, parameters.bar, parameters.we%0Aird"
    assert stack.log().count("parameters.bar") == 1
    response = stack.post(CHAT, {**BODIES[CHAT], "stream": True, "stream_options": {"zzz": 1}})
    assert response.headers["x-ignored-parameters"] == "stream_options.zzz"
    assert "x-ignored-parameters" not in stack.post(CHAT, BODIES[CHAT]).headers


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_nothing_is_stored_which_is_told(stack, path):
    response = stack.post(path, {**BODIES[path], "store": True})
    assert response.status_code == 200
    assert response.headers["x-ignored-parameters"] == "store"


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_what_is_an_accounts_affair_is_taken_and_changes_nothing(stack, path):
    fields = {
        "user": "me",
        "metadata": {"a": "b"},
        "service_tier": "auto",
        "safety_identifier": "x",
        "prompt_cache_key": "y",
        "store": False,
    }
    response = stack.post(path, {**BODIES[path], **fields})
    assert response.status_code == 200
    ignored = response.headers.get("x-ignored-parameters", "")
    assert not set(ignored.split(", ")) & (fields.keys() - {"store"})


def test_a_format_goes_with_tools_that_cannot_be_called(stack):
    body = {**BODIES[CHAT], "tools": [TOOL], "response_format": {"type": "json_object"}}
    response = stack.post(CHAT, {**body, "tool_choice": "none", "temperature": 0})
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"].startswith("{")
    response = stack.post(CHAT, {**body, "tool_choice": "auto"})
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "tool"


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_any_model_name_is_answered_by_the_one_there_is_and_logged_once(stack, path):
    name = f"gpt-9{path}"
    for _ in range(2):
        response = stack.post(path, {**BODIES[path], "model": name})
        assert response.status_code == 200
        assert response.json()["model"] == "echo:test"
    assert stack.log().count(name) == 1


def test_unknown_route_and_method(stack):
    assert stack.get("/nope").json()["error_type"] == "not_found"
    assert stack.get("/v1/nope").json()["error"]["code"] == "not_found"
    for path in ("/generate", CHAT):
        response = stack.get(path)
        assert (response.status_code, response.headers["allow"]) == (405, "OPTIONS, POST")
    response = stack.post("/info", {})
    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert "it has GET, HEAD, OPTIONS" in problem(response)[0]


def test_routes_of_other_servers_are_told_as_not_here(stack):
    for path in ("/v1/responses", "/v1/responses/resp_1", "/v1/embeddings", "/invocations"):
        sentence, _ = problem(stack.post(path, {}))
        assert sentence.startswith("this version does not have /"), sentence
    assert "/v2 (KServe's)" in problem(stack.get("/v2/health/ready"))[0]
    assert "there is no such route" in problem(stack.get("/v1/embeddings2"))[0]


def test_a_fault_is_in_the_log_under_the_request_s_own_id(caplog):
    token = current_request_id.set("the-request")
    try:
        told = map_error(RuntimeError("secret"))
    finally:
        current_request_id.reset(token)
    assert told.message == "internal error; the server's log has it under the-request"
    assert [record.getMessage() for record in caplog.records] == [
        "error of request the-request: secret"
    ]
    assert re.search(r"under [0-9a-f]{8}$", map_error(RuntimeError("secret")).message)


def test_an_odd_host_header_fails_no_probe(stack):
    for host, status in (("a:notaport", 200), ("[", 200), ("x" * 300, 200), ("a/?x=", 400)):
        assert stack.get("/health/live", headers={"host": host}).status_code == status
    assert stack.post("/generate", {"inputs": "x"}, headers={"host": "a:b"}).status_code == 400


def test_headers_are_bounded(stack):
    with stack.connect() as raw:
        raw.sendall(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\na: " + b"b" * 400_000)
        assert raw.recv(100).startswith(b"HTTP/1.1 400")


def test_a_sentence_about_json_keeps_its_name(stack):
    message = stack.post_raw("/generate", b"{bad").json()["error"]
    assert message.startswith("the body is not valid JSON: JSON is malformed")
