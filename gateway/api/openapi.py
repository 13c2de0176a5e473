"""Makes the OpenAPI 3.1 document and an HTML page of the server API from the operations and their types."""

import re
from functools import cache
from html import escape
from typing import Any, Final

import msgspec

from gateway.api.operations import OPERATIONS, Failure, Operation
from gateway.protocol.handshake import NAME_BYTES
from shared.errors import ERRORS
from shared.protocol.client import ObjectId

DOCUMENT_PATH: Final = "/v1/openapi.json"
_SCHEMA: Final = "#/components/schemas/{name}"
_KEY_BYTES: Final = 128
_ARROW: Final = re.compile(r"^→ [^.,]*[.,]?")

_NAME: Final = {"type": "string", "minLength": 1, "maxLength": NAME_BYTES}
_NOUNS: Final = {
    "room": {**_NAME, "description": "The room's name, percent-encoded"},
    "peer": {**_NAME, "description": "The peer's name, percent-encoded"},
    "id": {**msgspec.json.schema(ObjectId), "description": "As the peer itself calls it"},
}
_IDEMPOTENCY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Identity of this call in this room: sent again with the same key, it is not done twice but "
    "answered as before.",
    "schema": {"type": "string", "pattern": f"^[!-~]{{1,{_KEY_BYTES}}}$"},
}


@cache
def document(version: str) -> dict[str, Any]:
    """Returns the whole document; `version` is this package's."""
    answers = {operation.answer for operation in OPERATIONS} | {Failure}
    asked = {operation.action for operation in OPERATIONS if operation.action}
    types = sorted(answers | asked, key=lambda kind: kind.__name__)
    _, schemas = msgspec.json.schema_components(types, ref_template=_SCHEMA)
    paths: dict[str, Any] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    for kind in asked:
        del schemas[kind.__name__]  # a request carries only a part of it: see `_body`
    return {
        "openapi": "3.1.0",
        "info": {"title": "Plenary server API", "version": version, "license": {"name": "MIT", "identifier": "MIT"}},
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "PLENARY_API_KEY"}},
            "schemas": schemas,
            "responses": {str(code): _failure(kind.meaning) for code, kind in ERRORS.items()},
        },
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _NOUNS[name]} for name in operation.parameters
    ]
    parameters += [{"name": name, "in": "query", "schema": schema} for name, schema in operation.query.items()]
    if operation.changes:
        parameters.append(_IDEMPOTENCY)
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [_tag(operation)],
        "parameters": parameters,
        "responses": _responses(operation),
    }
    if description := _description(operation):
        described["description"] = description
    if operation.action and operation.body:
        described["requestBody"] = _body(operation, schemas[operation.action.__name__])
    return described


def _tag(operation: Operation) -> str:
    """Returns the last noun of the operation's path: `rooms`, `peers`, `transports`, …"""
    plurals = [part for part in operation.path.split("/")[2:] if part.endswith("s") and part != "messages"]
    return plurals[-1]


def _description(operation: Operation) -> str:
    """Returns the action's docstring without `→ …`: the answer is described elsewhere."""
    text = (operation.action and operation.action.__doc__) or ""
    return "\n".join(line.strip() for line in _ARROW.sub("", text).strip().splitlines())


def _body(operation: Operation, action: dict[str, Any]) -> dict[str, Any]:
    """Returns the action's schema without the fields that the path already has."""
    required = [name for name, is_required in operation.body.items() if is_required]
    schema = {
        "type": "object",
        "properties": {name: action["properties"][name] for name in operation.body},
        "required": required,
        "additionalProperties": False,
    }
    return {"required": bool(required), "content": {"application/json": {"schema": schema}}}


def _responses(operation: Operation) -> dict[str, Any]:
    schema = {"$ref": _SCHEMA.format(name=operation.answer.__name__)}
    ok = {"description": "Done", "content": {"application/json": {"schema": schema}}}
    return {"200": ok} | {str(code): {"$ref": f"#/components/responses/{code}"} for code in ERRORS}


def _failure(meaning: str) -> dict[str, Any]:
    schema = {"$ref": _SCHEMA.format(name=Failure.__name__)}
    return {"description": meaning, "content": {"application/json": {"schema": schema}}}


# --- the HTML page -----------------------------------------------------------------------------------------------

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Plenary server API</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100%; margin: 1rem 0 }}
td, th {{ text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid #8884 }}
code {{ font: .9em ui-monospace, monospace }} :root {{ color-scheme: light dark }}
</style>
<h1>Plenary server API</h1>
<p>JSON in, JSON out; every request carries <code>Authorization: Bearer KEY</code>. Names in paths are
percent-encoded. The complete description is <a href="/v1/openapi.json">openapi.json</a> (OpenAPI 3.1).</p>
<table><tr><th>request</th><th>JSON</th><th>answer</th><th></th></tr>
{operations}</table>
<h2>Errors</h2>
<p><code>{{"code": …, "reason": "…"}}</code> with the code as HTTP status.</p>
<table><tr><th>code</th><th>meaning</th><th>temporary</th><th>what to do</th></tr>
{errors}</table>
"""


@cache
def page() -> str:
    """Returns the page as HTML that loads nothing else."""
    return _PAGE.format(
        operations="\n".join(map(_row, OPERATIONS)),
        errors="\n".join(
            f"<tr><td>{code}</td><td>{escape(kind.meaning)}</td><td>{'yes' if kind.temporary else 'no'}</td>"
            f"<td>{escape(kind.advice)}</td></tr>"
            for code, kind in sorted(ERRORS.items())
        ),
    )


def _row(operation: Operation) -> str:
    query = "&".join(operation.query)
    request = f"{operation.method} {operation.path}" + (f"?{query}" if query else "")
    fields = ", ".join(name if is_required else f"{name}?" for name, is_required in operation.body.items())
    cells = (f"<code>{escape(request)}</code>", f"<code>{fields}</code>" if fields else "")
    answer = "" if operation.answer.__name__ == "Done" else operation.answer.__name__
    return f"<tr><td>{'</td><td>'.join((*cells, answer, escape(operation.summary)))}</td></tr>"
