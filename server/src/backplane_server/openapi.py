"""The API as an OpenAPI 3.0 document, made from the structs that read and write its JSON.

A test holds the list of routes against the application's.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, cast

import msgspec
from backplane_core.version import __version__

from backplane_server.controllers.health import NotReady, Unhealthy
from backplane_server.controllers.model_facts import ModelEntry, ModelsInfo
from backplane_server.dialects.chat_types import ChatChunk, ChatCompletion, ChatRequest
from backplane_server.dialects.completions_types import Completion, CompletionRequest
from backplane_server.dialects.native_types import (
    ChatTokenizeResponse,
    CompatGenerateRequest,
    DetokenizeRequest,
    DetokenizeResponse,
    GenerateRequest,
    GenerateResponse,
    Info,
    SimpleToken,
    StreamResponse,
)
from backplane_server.pages.docs import ASSETS, SPEC_PATH
from backplane_server.web.errors import NativeErrorBody, OpenAIErrorBody, dialect_of

_REF: Final = "#/components/schemas/{name}"


@dataclass(frozen=True)
class Route:
    """A route as the document tells it.

    Attributes:
        body: of a request; what has one counts, and may fail, as a generation.
        answer: of a 200; None has an empty body.
        event: what the events of its stream hold.
        media_type: of the answer.
        failures: its own statuses beside those of its kind, with the type of their body.
        is_open: whether it never wants a key.
        names: which values its path's parameter has, as JSON Schema.
    """

    method: str
    path: str
    summary: str
    body: Any = None
    answer: Any = None
    event: Any = None
    media_type: str = "application/json"
    failures: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_open: bool = False
    names: Mapping[str, Any] = field(default_factory=dict[str, Any])


ROUTES: Final = (
    Route("post", "/generate", "Generate text", GenerateRequest, GenerateResponse),
    Route("post", "/generate_stream", "Stream tokens", GenerateRequest, event=StreamResponse),
    Route(
        "post",
        "/",
        "Generate text; `stream` decides how",
        CompatGenerateRequest,
        list[GenerateResponse],
        StreamResponse,
    ),
    Route("post", "/tokenize", "Tokens of a text", GenerateRequest, list[SimpleToken]),
    Route("post", "/detokenize", "Text of tokens", DetokenizeRequest, DetokenizeResponse),
    Route(
        "post", "/chat_tokenize", "Prompt and tokens of a chat", ChatRequest, ChatTokenizeResponse
    ),
    Route(
        "post",
        "/v1/chat/completions",
        "Next turn of a chat",
        ChatRequest,
        ChatCompletion,
        ChatChunk,
    ),
    Route("post", "/v1/completions", "Continue text", CompletionRequest, Completion, Completion),
    Route("get", "/v1/models", "The served model and its adapters", answer=ModelsInfo),
    Route(
        "get",
        "/v1/models/{model}",
        "One of them",
        answer=ModelEntry,
        failures={"404": OpenAIErrorBody},
    ),
    Route("get", "/info", "Model and limits", answer=Info, failures={"503": NativeErrorBody}),
    Route("get", "/health", "Whether requests can be answered", failures={"503": Unhealthy}),
    Route("get", "/ping", "The same, by SageMaker's name", failures={"503": Unhealthy}),
    Route("get", "/health/live", "Whether the process lives", is_open=True),
    Route(
        "get",
        "/health/ready",
        "Whether requests can be answered",
        failures={"503": NotReady},
        is_open=True,
    ),
    Route("get", "/metrics", "Prometheus metrics", answer=str, media_type="text/plain"),
    Route("get", "/", "A page for browsers, else as /health", failures={"503": Unhealthy}),
    Route(
        "get", "/docs", "This description, to read and to try", answer=str, media_type="text/html"
    ),
    Route(
        "get",
        "/docs/{name}",
        "A file of that page",
        answer=str,
        media_type="*/*",
        failures={"404": NativeErrorBody},
        names={"enum": list(ASSETS)},
    ),
    Route("get", SPEC_PATH, "This description", answer=dict[str, Any]),
)
# What every route can answer beside 200: status, meaning.
_ERRORS: Final = {
    "400": "There is not one well-formed `Host`",
    "401": "There is no key, or a wrong one",
    "403": "`Host` is not a name of this server",
}
# What a route with a body can answer besides.
_BODY_ERRORS: Final = {
    "400": "The body is not JSON, or there is not one well-formed `Host`",
    "408": "The body stopped arriving",
    "413": "The body is too large",
    "415": "The body is not declared to be JSON",
    "422": "A parameter is wrong or not available; the sentence names it",
    "424": "The engine failed the request",
    "429": "No room now; `Retry-After` says when to try again",
    "500": "A fault of the server, or the worker stopped short of an end",
    "503": "No worker is ready; `progress` says how far loading is",
    "504": "The request was not finished within --request-timeout",
}
_OWN_MEANINGS: Final = {"404": "There is no such name", "503": _BODY_ERRORS["503"]}
_STREAM: Final = (
    "OK. Each event of a stream has this as its `data`; what goes wrong after the first is an "
    "event of the shape of the other statuses, and ends it"
)
_REQUEST_ID: Final = "RequestId"


@lru_cache(maxsize=1)
def openapi_document() -> bytes:
    """The document as JSON."""
    types = [
        one
        for route in ROUTES
        for one in (route.body, route.answer, route.event, *route.failures.values())
        if one is not None
    ]
    types += [NativeErrorBody, OpenAIErrorBody]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    by_type = {str(one): schema for one, schema in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = _operation(route, by_type)
    document: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {
            "title": "Backplane",
            "version": __version__,
            "license": {"name": "Apache-2.0"},
            "description": "One LLM server, any accelerator.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": {
                _REQUEST_ID: {
                    "description": "The client's own `x-request-id`, or a new one; the log has it",
                    "schema": {"type": "string"},
                }
            },
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }
    return msgspec.json.encode(to_openapi_30(document))


def _operation(route: Route, by_type: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.answer is not None:
        content[route.media_type] = {"schema": by_type[str(route.answer)]}
    if route.event is not None:
        content["text/event-stream"] = {"schema": by_type[str(route.event)]}
    responses: dict[str, Any] = {"200": {"description": "OK"}}
    if content:
        responses["200"]["content"] = content
    if route.event is not None:
        responses["200"]["description"] = _STREAM
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": f"{route.method}{route.path.replace('/', '_')}".replace(".", "_"),
        "responses": responses,
    }
    if names := re.findall(r"\{(\w+)\}", route.path):
        operation["parameters"] = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": {"type": "string", **route.names},
            }
            for name in names
        ]
    if route.is_open:
        operation["security"] = []
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[str(route.body)]}},
        }
    for status, (meaning, shape) in _failures(route).items():
        schema = {"application/json": {"schema": by_type[str(shape)]}}
        responses[status] = {"description": meaning, "content": schema}
    for response in responses.values():
        response["headers"] = {"x-request-id": {"$ref": f"#/components/headers/{_REQUEST_ID}"}}
    return operation


def _failures(route: Route) -> dict[str, tuple[str, Any]]:
    """Statuses beside 200, with their meaning and the type of their body."""
    shape = OpenAIErrorBody if dialect_of(route.path) == "openai" else NativeErrorBody
    shared = _ERRORS | (_BODY_ERRORS if route.body is not None else {})
    found = {} if route.is_open else {each: (shared[each], shape) for each in shared}
    found |= {each: (_OWN_MEANINGS[each], own) for each, own in route.failures.items()}
    return dict(sorted(found.items()))


def to_openapi_30(node: Any) -> Any:
    """Rewrite JSON Schema 2020-12 as OpenAPI 3.0 has it, which is what Swagger UI 4 reads.

    Concerns null as a type, numbers as exclusive limits, and `const`.
    """
    if isinstance(node, list):
        return [to_openapi_30(item) for item in cast("list[Any]", node)]
    if not isinstance(node, dict):
        return node
    result = {key: to_openapi_30(value) for key, value in cast("dict[str, Any]", node).items()}
    _rewrite_null(result)
    for limit in ("Minimum", "Maximum"):
        edge = result.get(f"exclusive{limit}")
        if isinstance(edge, int | float) and not isinstance(edge, bool):
            result[f"exclusive{limit}"] = True
            result[limit.lower()] = edge
    if "const" in result:
        result["enum"] = [result.pop("const")]
    return result


def _rewrite_null(schema: dict[str, Any]) -> None:
    null = {"nullable": True, "enum": [None]}
    if schema.get("type") == "null":
        del schema["type"]
        schema.update(null)
    options: list[Any] = schema.get("anyOf") or []
    if null not in options:
        return
    rest = [option for option in options if option != null]
    del schema["anyOf"]
    # A reference stands alone in 3.0, so being nullable wraps it.
    schema.update({"anyOf": rest} if len(rest) > 1 or "$ref" in rest[0] else rest[0])
    schema["nullable"] = True


if __name__ == "__main__":  # `backplane print-schema`
    sys.stdout.buffer.write(msgspec.json.format(openapi_document(), indent=2) + b"\n")
