"""Short ways to write JSON Schemas and OpenAPI operations. Knows no route."""

from collections.abc import Iterable, Mapping
from typing import Any

Schema = dict[str, Any]
Operations = dict[str, dict[str, Schema]]
"""What is served: operations by path and method."""

TEXT: Schema = {"type": "string"}
WORDS: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
WHOLE: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
ANY_OBJECT: Schema = {"type": "object"}
MODEL: Schema = {"$ref": "#/components/schemas/ModelName"}
_CONDITION: Schema = {"$ref": "#/components/parameters/IfNoneMatch"}


def whole(low: int, high: int) -> Schema:
    """Describe a whole number within bounds."""
    return {"type": "integer", "minimum": low, "maximum": high}


def number(low: float, high: float) -> Schema:
    """Describe a number within bounds."""
    return {"type": "number", "minimum": low, "maximum": high}


def one_of(*values: str) -> Schema:
    """Describe one of some words."""
    return {"type": "string", "enum": list(values)}


def either(*schemas: Schema) -> Schema:
    """Describe what fits any of these."""
    return {"anyOf": list(schemas)}


def nullable(schema: Schema) -> Schema:
    """Describe what may also be null."""
    return either(schema, {"type": "null"})


def listed(items: Schema, low: int = 0, high: int | None = None) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": items, "minItems": low} | ({} if high is None else {"maxItems": high})


def record(
    required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None, *, closed: bool = False
) -> Schema:
    """Describe an object; a `closed` one has no other fields."""
    schema: Schema = {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
    }
    return schema | ({"additionalProperties": False} if closed else {})


def asked(required: Mapping[str, Schema], optional: Mapping[str, Schema], *, closed: bool = False) -> Schema:
    """Describe a request's body: a field that is null is one that is left out."""
    return record(required, {name: nullable(schema) for name, schema in optional.items()}, closed=closed)


def answer(schema: Schema | None, what: str, content_type: str = "application/json") -> Schema:
    """Describe one response."""
    return {"description": what} | ({} if schema is None else {"content": {content_type: {"schema": schema}}})


# OpenAPI 3.1 has no words for the events of a stream.
EVENTS: Schema = {"text/event-stream": {}}


def streamed(schema: Schema, what: str) -> Schema:
    """Describe a response that is one body, or server-sent events where the client asked for them."""
    return {"description": what, "content": {"application/json": {"schema": schema}, **EVENTS}}


def operation(
    summary: str,
    responses: Mapping[str, Schema],
    *,
    body: Schema | None = None,
    content_type: str = "application/json",
    parameters: Iterable[Schema] = (),
    required: bool = True,
    tag: str,
) -> Schema:
    """Describe one operation."""
    described: Schema = {"summary": summary, "tags": [tag], "responses": dict(responses)}
    if body is not None:
        described["requestBody"] = {"required": required, "content": {content_type: {"schema": body}}}
    if parameters:
        described["parameters"] = list(parameters)
        if _CONDITION in described["parameters"]:
            described["responses"]["304"] = {"$ref": "#/components/responses/Unchanged"}
    return described


def in_path(name: str, schema: Schema = WORDS) -> Schema:
    """Describe a part of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema}


def in_query(name: str, schema: Schema) -> Schema:
    """Describe an optional parameter of the query."""
    return {"name": name, "in": "query", "schema": schema}


def in_header(name: str, schema: Schema, what: str) -> Schema:
    """Describe an optional header."""
    return {"name": name, "in": "header", "schema": schema, "description": what}


HEADERS: dict[str, Schema] = {
    "RequestTimeout": in_header(
        "X-Request-Timeout", number(0.001, 86400), "Seconds that the request may take, below `server.request_timeout`."
    ),
    "CacheControl": in_header(
        "Cache-Control",
        TEXT,
        "What the caches may do: `no-store`, `no-cache`, `only-if-cached` (504 where nothing is), and with seconds"
        " `max-age`, `min-fresh`, `max-stale`, `stale-while-revalidate` and `stale-if-error`.",
    ),
    "IfNoneMatch": in_header("If-None-Match", TEXT, "`ETag`s of answers that the client has: 304 where one is cached."),
    "Prefer": in_header(
        "Prefer",
        TEXT,
        "`wait=N` (RFC 7240): where no model is expected to have a slot within N seconds, 503 with `Retry-After`.",
    ),
    "PreferredRoute": in_header(
        "X-Warmgate-Prefer",
        one_of("fastest", "exact"),
        "`fastest`: whichever model of the route is expected to begin first, even a fallback; `exact`: no fallback.",
    ),
    "NextModel": in_header(
        "X-Warmgate-Next", TEXT, "What this client will ask for next: it is started, as far as the hints' credit goes."
    ),
    "Tags": in_header("X-Warmgate-Tags", TEXT, "Up to 16 tags with commas between, by which the answer can be purged."),
}
"""Headers that every request to a model may have."""

ASKED_HEADERS: tuple[Schema, ...] = tuple([{"$ref": f"#/components/parameters/{name}"} for name in HEADERS])
"""References to them."""

_WHY = {
    400: "The request is malformed, or the model cannot do what it asks.",
    401: "No key, or an unknown one.",
    403: "The key may not do this, or the caller is not on this machine.",
    404: "No such model, path or batch.",
    405: "Another method is served here; `Allow` names it.",
    408: "The request did not arrive in time.",
    409: "It contradicts an earlier request.",
    413: "The body is longer than `server.max_body`.",
    415: "The body is compressed in a way that is not undone.",
    429: "A limit of the key, or a full queue. `Retry-After` and `x-should-retry` say when to come again.",
    431: "The head is too long.",
    500: "A defect; the log has the details.",
    501: "The protocol knows this, and nothing here does it.",
    502: "The model failed.",
    503: "The model cannot be started, or the gateway is going down.",
    504: "The deadline passed.",
    529: "The model is overloaded.",
}


def errors(wire: str, *more: int) -> dict[str, Schema]:
    """Refer to the errors that every request of a wire may meet, and to `more` of them."""
    usual = (400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 502, 503, 504)
    return {str(status): {"$ref": f"#/components/responses/{wire}{status}"} for status in (*usual, *more)}


def error_responses(wire: str, schema: Schema) -> dict[str, Schema]:
    """Describe what `errors` refers to."""
    told = {f"{wire}{status}": answer(schema, why) for status, why in _WHY.items()}
    return told | {"Unchanged": answer(None, "The cached answer is one that `If-None-Match` names.")}
