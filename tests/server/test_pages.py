"""The pages for browsers and the description of the API."""

import json
import re
import subprocess
import sys
from typing import get_args

import msgspec
from backplane_core.control import ServerLaunch
from backplane_server.app import create_app
from backplane_server.openapi import ROUTES, to_openapi_30
from backplane_server.pages.home import HOME_PAGE
from backplane_server.services.services import Services

BROWSER = {"accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


def test_a_browser_gets_the_page_and_others_health(stack):
    page = stack.get("/", headers=BROWSER)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.content == HOME_PAGE
    assert b"echo" not in HOME_PAGE, "facts are fetched, with the key where one is wanted"
    other = stack.get("/", headers={"accept": "*/*"})
    assert (other.status_code, other.content) == (200, b"")


def test_the_page_loads_nothing_from_elsewhere(stack):
    page = stack.get("/", headers=BROWSER).text
    assert "//" not in re.sub(r"(?s)<script>.*</script>", "", page).replace("<!doctype", "")
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//)""", page)
    assert "innerHTML" not in page


def test_a_browser_gets_the_page_without_a_key_and_nothing_else(stack_module):
    with stack_module.Stack(worker=False, api_keys=("k",)) as stack:
        assert stack.get("/", headers=BROWSER).content == HOME_PAGE
        assert stack.get("/").status_code == 401
        for path in ("/docs/", "/info", "/metrics", "/health"):
            assert stack.get(path, headers=BROWSER).status_code == 401, path
        assert stack.post("/", {"inputs": "x"}, headers=BROWSER).status_code == 401
        key = {"authorization": "Bearer k"}
        assert stack.get("/", headers=key).status_code == 503


def test_what_is_hidden_stays_so_whatever_else_is_said_of_it():
    assert b"[hidden] { display: none !important; }" in HOME_PAGE
    assert b'<p id="key-field" hidden>' in HOME_PAGE


def test_swagger_ui_works_offline(stack):
    redirect = stack.get("/docs")
    assert (redirect.status_code, redirect.headers["location"]) == (307, "docs/")
    page = stack.get("/docs/")
    assert "SwaggerUIBundle" in page.text
    names = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert names == ["swagger-ui.css", "swagger-ui-bundle.js"]
    for name in names:
        asset = stack.get(f"/docs/{name}")
        assert asset.status_code == 200
        assert len(asset.content) > 100_000
    for name in ("index.html", "..%2f..%2fREADME", "swagger-ui.css.map", "%00"):
        assert stack.get(f"/docs/{name}").status_code == 404


def test_the_document_describes_every_route():
    settings = ServerLaunch(server_id="s", control_path="", model_id="m")
    app = create_app(Services(settings))
    served = {
        (method.lower(), re.sub(r":\w+}", "}", route.path))
        for route in app.routes
        for method in route.methods
        if method != "OPTIONS"
    }
    assert {(route.method, route.path) for route in ROUTES} == served


def test_the_document_is_openapi_30(stack):
    document = stack.get("/api-doc/openapi.json").json()
    assert document["openapi"] == "3.0.3"
    text = json.dumps(document)
    for reference in set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', text)):
        assert reference in document["components"]["schemas"]
    assert '"type": "null"' not in text
    assert '"const"' not in text
    parameters = document["components"]["schemas"]["GenerateParameters"]["properties"]
    assert parameters["top_p"]["nullable"] is True
    answer = document["paths"]["/v1/chat/completions"]["post"]["responses"]
    assert set(answer["200"]["content"]) == {"application/json", "text/event-stream"}
    assert {"422", "429", "503"} <= set(answer)


def test_the_printed_document_can_be_read_by_people(stack):
    printed = subprocess.run(
        [sys.executable, "-m", "backplane_server.openapi"], capture_output=True, check=True
    ).stdout
    assert json.loads(printed) == stack.get("/api-doc/openapi.json").json()
    assert printed.startswith(b'{\n  "openapi": "3.0.3",\n')
    assert printed.endswith(b"\n}\n")


def test_what_openapi_30_says_otherwise():
    schema = {
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1.5,
        "properties": {
            "kind": {"const": "a"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "link": {"anyOf": [{"$ref": "#/x"}, {"type": "null"}]},
            "several": {"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "null"}]},
            "nothing": {"type": "null"},
        },
    }
    assert to_openapi_30(schema) == {
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1.5,
        "exclusiveMaximum": True,
        "properties": {
            "kind": {"enum": ["a"]},
            "maybe": {"type": "string", "default": None, "nullable": True},
            "link": {"anyOf": [{"$ref": "#/x"}], "nullable": True},
            "several": {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": True},
            "nothing": {"nullable": True, "enum": [None]},
        },
    }


def test_every_field_of_every_body_is_described(stack):
    """From the structs that decode bodies, through whatever they hold, to the document."""
    schemas = stack.get("/api-doc/openapi.json").json()["components"]["schemas"]
    seen = set()
    waiting = [route.body for route in ROUTES if route.body is not None]
    while waiting:
        struct = waiting.pop()
        if struct in seen:
            continue
        seen.add(struct)
        assert set(schemas[struct.__name__]["properties"]) >= set(struct.__struct_encode_fields__)
        for field in msgspec.structs.fields(struct):
            waiting += structs_in(field.type)
    assert len(seen) > 10


def structs_in(annotation):
    """Structs anywhere inside an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return [annotation]
    return [found for inner in get_args(annotation) for found in structs_in(inner)]
