"""Our own OpenAPI document, driven: no 5xx, no status, type, event or body it does not tell of."""

from collections import Counter

import msgspec
import pytest
import schemathesis
from backplane_server.openapi import ROUTES
from backplane_server.web.errors import NativeErrorBody, OpenAIErrorBody, dialect_of
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
NUM_EXAMPLES = 30
MODEL = "/v1/models/{model}"
# Any name may be asked for of a model.
WITH_INPUT = [each for each in ROUTES if each.body is not None or "enum" in each.names]
DRIVE = settings(
    max_examples=NUM_EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def label(route):
    return f"{route.method} {route.path}"


@pytest.fixture(scope="module")
def operations(stack):
    """The document's operations by method and path."""
    document = stack.get("/api-doc/openapi.json").json()
    for methods in document["paths"].values():
        for operation in methods.values():
            # How 3.0 tells of events is a custom, which schemathesis does not know.
            operation["responses"]["200"].get("content", {}).pop("text/event-stream", None)
    schema = schemathesis.openapi.from_dict(document)
    found = [result.ok() for result in schema.get_all_operations()]
    return {(operation.method, operation.path): operation for operation in found}


def check_events(stack_module, route, content):
    """Each event is what the document says, or an error of the route's shape."""
    error = OpenAIErrorBody if dialect_of(route.path) == "openai" else NativeErrorBody
    events = stack_module.parse_events(content)
    assert events
    for event in events:
        if event == "[DONE]":
            assert dialect_of(route.path) == "openai"
        else:
            msgspec.convert(event, error if "error" in event else route.event)


def drive(stack, stack_module, operation, route, mode):
    """Send examples of one kind and check the answers; how often there was which status."""
    seen = Counter()

    @DRIVE
    @given(operation.as_strategy(generation_mode=mode))
    def each(case):
        response = case.call(base_url=stack.url)
        seen[response.status_code] += 1
        assert "x-request-id" in response.headers
        if response.headers.get("content-type") == ["text/event-stream"]:
            check_events(stack_module, route, response.content)
        else:
            case.validate_response(response, checks=CHECKS)

    each()
    return seen


def test_every_route_is_driven(operations):
    assert set(operations) == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=label)
def test_what_the_document_allows(stack, stack_module, operations, route):
    operation = operations[route.method, route.path]
    seen = drive(stack, stack_module, operation, route, GenerationMode.POSITIVE)
    if route.path == MODEL:
        assert seen.keys() == {404}, "nobody serves those names"
        return
    assert seen[200]
    assert seen.keys() <= {200, 422}, "what is outside the limits, at most"


@pytest.mark.parametrize("route", WITH_INPUT, ids=label)
def test_what_the_document_forbids(stack, stack_module, operations, route):
    operation = operations[route.method, route.path]
    seen = drive(stack, stack_module, operation, route, GenerationMode.NEGATIVE)
    assert seen.total() > NUM_EXAMPLES // 2
    if route.body is None:
        assert seen.keys() == {404}
    else:
        assert seen[422]
        assert seen.keys() <= {200, 400, 415, 422}


@pytest.mark.parametrize("path", ["/generate_stream", "/v1/chat/completions", "/v1/completions"])
def test_a_stream_s_events_are_checked(stack, stack_module, path):
    """What is checked above where a stream happens to be asked for; here it is, and bites."""
    [route] = [route for route in ROUTES if route.path == path]
    body = {
        "inputs": "hello",
        "prompt": "hello",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
    }
    content = stack.post(path, body).content
    check_events(stack_module, route, content)
    with pytest.raises(msgspec.ValidationError):
        check_events(stack_module, route, content.replace(b'"index":', b'"place":'))


def test_nothing_of_it_upset_the_server(stack):
    assert stack.get("/health").status_code == 200
    assert "Traceback" not in stack.log()
