"""Puts the descriptions of all wires together into one document. Knows no server."""

import functools
from importlib.metadata import version

import orjson

from gateway.openapi import of_anthropic, of_native, of_oip, of_openai, of_operator
from gateway.openapi.shapes import HEADERS, Operations, Schema, error_responses

_PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/openapi.json", "/v2/health/live", "/v2/health/ready"})
_NO_KEY: list[dict[str, list[str]]] = [{}]


def operations() -> Operations:
    """Return everything that is served, by path and method."""
    return {
        **of_openai.OPERATIONS,
        **of_anthropic.OPERATIONS,
        **of_oip.OPERATIONS,
        **of_native.OPERATIONS,
        **of_operator.OPERATIONS,
    }


@functools.cache
def document() -> bytes:
    """Return the whole document; it is made once."""
    paths = {path: _with_names(path, methods) for path, methods in operations().items()}
    for path in _PUBLIC:
        paths[path] = {method: {**described, "security": _NO_KEY} for method, described in paths[path].items()}
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "warmgate",
                "version": version("warmgate"),
                "description": "A gateway in front of AI models, under the wires that their clients know.",
            },
            "paths": paths,
            "components": {
                "responses": _errors(),
                "parameters": HEADERS,
                "schemas": {
                    "ModelName": {
                        "type": "string",
                        "minLength": 1,
                        "description": "A model or a route; `GET /v1/models` lists them.",
                    }
                },
                "securitySchemes": {
                    "bearer": {"type": "http", "scheme": "bearer"},
                    "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                },
            },
            "security": [{"bearer": []}, {"key": []}, {}],
        }
    )


def _errors() -> dict[str, Schema]:
    described: dict[str, Schema] = {}
    for wire in (of_openai, of_anthropic, of_oip, of_native):
        described |= error_responses(wire.WIRE, wire.ERROR)
    return described


def _with_names(path: str, methods: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
    """Name each operation by its method and path."""
    name = "".join(letter if letter.isalnum() else "_" for letter in path).strip("_") or "root"
    slash = "_slash" if path.endswith("/") else ""
    return {method: {"operationId": f"{method}_{name}{slash}", **described} for method, described in methods.items()}
