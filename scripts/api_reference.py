#!/usr/bin/env python3
"""Writes docs/api.md from the server's own OpenAPI document; `--check` says whether it is stale."""

from __future__ import annotations

import json
import sys
from typing import Any, Final, cast

from backplane_server.openapi import openapi_document
from source_files import ROOT

PAGE: Final = ROOT / "docs" / "api.md"
_COMMAND: Final = ".venv/bin/python scripts/api_reference.py"
_HEAD: Final = f"""# API reference

Written by `{_COMMAND}` from the document that a server gives at
`/api-doc/openapi.json`; a test holds both equal. [server.md](server.md) tells what the routes and
parameters mean, [tgi-compatibility.md](tgi-compatibility.md) where they differ from TGI's.

Every field may be null where its type says so; a field that is not listed is accepted, and named in
the answer's header `x-ignored-parameters`.
"""
_MEDIA: Final = {
    "application/json": "JSON",
    "text/event-stream": "a stream of events, each",
    "text/plain": "text",
    "text/html": "a page",
}
_BOUNDS: Final = (
    ("minimum", "exclusiveMinimum", "≥", ">"),
    ("maximum", "exclusiveMaximum", "≤", "<"),
)
_LENGTHS: Final = (("minLength", "maxLength", "characters"), ("minItems", "maxItems", "items"))

Schema = dict[str, Any]


def reference(document: Schema) -> str:
    """The page for an OpenAPI 3.0 document."""
    parts = [_HEAD, "## Routes\n", *_routes(document["paths"]), "## Types\n"]
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(_type(name, schema))
    return "\n".join(parts)


def _routes(paths: dict[str, dict[str, Schema]]) -> list[str]:
    parts: list[str] = []
    for path, operations in paths.items():
        for method, operation in operations.items():
            parts.append(_route(method, path, operation))
    return parts


def _route(method: str, path: str, operation: Schema) -> str:
    lines = [f"### `{method.upper()} {path}`", "", f"{operation['summary']}.", ""]
    for parameter in operation.get("parameters", []):
        kind = type_of(parameter["schema"])
        lines += [f"`{parameter['name']}` in the {parameter['in']}: {kind}.", ""]
    if body := operation.get("requestBody"):
        lines += [f"Body: {_contents(body['content'])}.", ""]
    lines += ["| Status | Meaning | Body |", "|---|---|---|"]
    for status, response in operation["responses"].items():
        content = _contents(response.get("content", {})) or "empty"
        lines.append(f"| {status} | {_cell(response['description'])} | {content} |")
    return "\n".join([*lines, ""])


def _contents(content: dict[str, Schema]) -> str:
    said = [f"{_MEDIA.get(kind, kind)} {type_of(one['schema'])}" for kind, one in content.items()]
    return "; or ".join(text.removesuffix(" string") for text in said)


def _type(name: str, schema: Schema) -> str:
    lines = [f"### {name}", ""]
    if description := schema.get("description"):
        lines += [" ".join(description.split()), ""]
    properties: dict[str, Schema] = schema.get("properties", {})
    if not properties:
        return "\n".join([*lines, f"{type_of(schema)}.", ""])
    required = set(schema.get("required", []))
    lines += ["| Field | Type | Default |", "|---|---|---|"]
    for field, kind in properties.items():
        default = "required" if field in required else _default(kind)
        lines.append(f"| `{field}` | {_cell(type_of(kind))} | {default} |")
    return "\n".join([*lines, ""])


def _default(schema: Schema) -> str:
    if "default" not in schema:
        return "left out"
    return f"`{json.dumps(schema['default'], ensure_ascii=False)}`"


def type_of(schema: Schema) -> str:
    """A schema in words, with its bounds; named types lead to their section."""
    if reference_to := schema.get("$ref"):
        name = cast("str", reference_to).rpartition("/")[2]
        return _nullable(f"[{name}](#{name.lower()})", schema)
    if "enum" in schema:
        values = [value for value in schema["enum"] if value is not None]
        return _nullable(" or ".join(f"`{json.dumps(value)}`" for value in values), schema)
    for joint in ("anyOf", "oneOf"):
        if options := schema.get(joint):
            return _nullable(" or ".join(dict.fromkeys(map(type_of, options))), schema)
    return _nullable(_plain(schema), schema)


def _plain(schema: Schema) -> str:
    kind = schema.get("type", "anything")
    if kind == "array":
        return f"array of {type_of(schema.get('items', {}))}{_bounds(schema)}"
    inner = schema.get("additionalProperties")
    if kind == "object" and isinstance(inner, dict):
        return f"object of {type_of(cast('Schema', inner))}"
    return f"{kind}{_bounds(schema)}"


def _bounds(schema: Schema) -> str:
    said: list[str] = []
    for edge, exclusive, closed, opened in _BOUNDS:
        if edge in schema:
            said.append(f"{opened if schema.get(exclusive) else closed} {schema[edge]}")
    for least, most, what in _LENGTHS:
        if least in schema:
            said.append(f"at least {schema[least]} {what}")
        if most in schema:
            said.append(f"at most {schema[most]} {what}")
    return f" ({', '.join(said)})" if said else ""


def _nullable(text: str, schema: Schema) -> str:
    return f"{text} or null" if schema.get("nullable") and text else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the page, or with --check only compare it."""
    page = reference(json.loads(openapi_document()))
    if "--check" not in arguments:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page:
        return 0
    print(f"docs/api.md is not what the server's OpenAPI document says: run {_COMMAND}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
