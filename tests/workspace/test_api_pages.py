"""What the server can do stands in the pages about it: routes, errors, parameters, metrics."""

import json
import re
import sys
from pathlib import Path
from typing import get_args

import pytest
from backplane_core.control import ServerLaunch
from backplane_core.errors import BackplaneError, ProtocolError, SetupError
from backplane_server.app import create_app
from backplane_server.dialects.chat_types import ChatRequest
from backplane_server.dialects.completions_types import CompletionRequest
from backplane_server.dialects.native_types import GenerateParameters, Info
from backplane_server.errors import ClientDisconnectedError
from backplane_server.metrics.metrics import FailureLabel
from backplane_server.openapi import openapi_document
from backplane_server.services.services import Services
from backplane_server.web.errors import _ROWS

ROOT = Path(__file__).resolve().parents[2]
SERVER_PAGE = (ROOT / "docs" / "server.md").read_text()
COMPATIBILITY = (ROOT / "docs" / "tgi-compatibility.md").read_text()
# Beside the API: what describes it.
PAGES = {"/docs", "/docs/{name:str}", "/api-doc/openapi.json"}
METHODS = {"GET", "POST", "PUT", "DELETE", "PATCH"}
# TGI's series (section 5.1 of what this project holds itself to).
METRICS = (
    *("tgi_request_count", "tgi_request_success", "tgi_request_failure", "tgi_request_duration"),
    *("tgi_request_validation_duration", "tgi_request_queue_duration"),
    *("tgi_request_inference_duration", "tgi_request_mean_time_per_token_duration"),
    *("tgi_request_generated_tokens", "tgi_request_input_length", "tgi_request_max_new_tokens"),
    *("tgi_request_skipped_tokens", "tgi_queue_size", "tgi_batch_current_size"),
    *("tgi_batch_current_max_tokens", "tgi_batch_next_size", "tgi_batch_concat"),
    *("tgi_batch_inference_count", "tgi_batch_inference_success", "tgi_batch_inference_failure"),
    *("tgi_batch_inference_duration", "tgi_batch_forward_duration", "tgi_batch_decode_duration"),
    *("tgi_batch_filter_duration", "tgi_batch_concat_duration", "tgi_batch_max_total_tokens"),
)


# Errors of set-up and of the wire stop a process; nobody hears of a client that left.
UNTOLD = (SetupError, ProtocolError, ClientDisconnectedError)


def classes_below(error: type[BackplaneError]) -> set[type[BackplaneError]]:
    below = error.__subclasses__()
    return {*below, *(one for each in below for one in classes_below(each))}


TOLD = {error for error in classes_below(BackplaneError) if not issubclass(error, UNTOLD)}


@pytest.fixture(scope="module")
def api_reference():
    sys.path.insert(0, str(ROOT / "scripts"))
    import api_reference as module  # noqa: PLC0415 -- run by path, not installed

    yield module
    sys.path.remove(str(ROOT / "scripts"))


def routes():
    app = create_app(Services(ServerLaunch(server_id="s", control_path="", model_id="m")))
    for route in app.routes:
        if route.path not in PAGES:
            for method in METHODS & set(route.methods):
                yield f"{method} {re.sub(r':[a-z]+}', '}', route.path)}"


def names_in(page: str) -> set[str]:
    """Every word that stands in backticks, paths and lists taken apart."""
    spans = re.findall(r"`([^`\n]+)`", page)
    return {word for span in spans for word in re.split(r"[^\w.-]+", span)}


def test_the_reference_is_what_the_document_says(api_reference):
    assert api_reference.main(["--check"]) == 0, "run scripts/api_reference.py"


def test_a_stale_reference_is_caught(api_reference, monkeypatch, tmp_path, capsys):
    page = tmp_path / "api.md"
    monkeypatch.setattr(api_reference, "PAGE", page)
    assert api_reference.main(["--check"]) == 1
    assert api_reference.main([]) == 0
    assert api_reference.main(["--check"]) == 0
    page.write_text(page.read_text().replace("Status", "State", 1))
    assert api_reference.main(["--check"]) == 1
    assert "api.md" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"$ref": "#/components/schemas/Token"}, "[Token](#token)"),
        ({"type": "integer", "minimum": 0, "nullable": True}, "integer (≥ 0) or null"),
        ({"type": "number", "minimum": 0, "exclusiveMinimum": True}, "number (> 0)"),
        ({"enum": ["a", "b"]}, '`"a"` or `"b"`'),
        (
            {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            "string or array of string",
        ),
        ({"type": "array", "items": {}, "maxItems": 3}, "array of anything (at most 3 items)"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "object of number"),
    ],
)
def test_a_schema_in_words(api_reference, schema, text):
    assert api_reference.type_of(schema) == text


def test_every_reference_leads_to_a_type(api_reference):
    page = api_reference.reference(json.loads(openapi_document()))
    headings = {heading.lower() for heading in re.findall(r"^### (\w+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#(\w+)\)", page)) <= headings


@pytest.mark.parametrize("route", sorted(routes()))
def test_every_route_stands_in_both_pages(route):
    assert f"### `{route}`" in (ROOT / "docs" / "api.md").read_text()
    assert f"`{route}`" in SERVER_PAGE


@pytest.mark.parametrize("row", _ROWS.values(), ids=lambda row: f"{row.status} {row.native_type}")
def test_every_error_stands_in_the_servers_page(row):
    if row.status == 499:
        return
    table = SERVER_PAGE.partition("## Errors")[2].partition("\n## ")[0]
    assert str(row.status) in table
    assert {row.native_type, row.openai_type} <= names_in(table)


@pytest.mark.parametrize("error", sorted(TOLD, key=lambda error: error.__name__))
def test_every_code_that_a_client_can_get_stands_there_too(error):
    table = SERVER_PAGE.partition("## Errors")[2].partition("\n## ")[0]
    assert error.code in names_in(table)


def test_every_reason_of_a_failure_stands_there_too():
    assert set(get_args(FailureLabel)) <= names_in(COMPATIBILITY) | names_in(SERVER_PAGE)


@pytest.mark.parametrize("struct", [GenerateParameters, ChatRequest, CompletionRequest, Info])
def test_every_parameter_stands_in_the_compatibility_page(struct):
    assert set(struct.__struct_fields__) - names_in(COMPATIBILITY) == set()


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_tgi_stands_in_the_compatibility_page(name):
    assert name in names_in(COMPATIBILITY)
