"""What is served for who runs the gateway: health, metrics, its own views, and this description."""

from gateway.openapi.of_openai import WIRE
from gateway.openapi.shapes import (
    ANY_OBJECT,
    FLAG,
    TEXT,
    WHOLE,
    WORDS,
    Operations,
    Schema,
    answer,
    asked,
    errors,
    in_path,
    in_query,
    listed,
    nullable,
    number,
    one_of,
    operation,
    record,
    whole,
)

_TAG = "Operator"
_READY = record({"ready": FLAG, "waiting_for": listed(TEXT), "unloaded": listed(TEXT)})
_CACHE = record({"tiers": ANY_OBJECT, "purges": ANY_OBJECT}, {"models": ANY_OBJECT})
_PURGED_BY: dict[str, Schema] = {
    "all": FLAG,
    **dict.fromkeys(("model", "version", "route", "tag"), WORDS),
    "scope": TEXT,
    "key": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
    "older_than_s": number(0, 315360000),
}
_PURGED = record({"dry_run": FLAG, "entries": nullable(WHOLE), "bytes": nullable(WHOLE)}, {"unknown_model": TEXT})
_WARMED = record(
    {
        "model": TEXT,
        "replicas": WHOLE,
        "for_s": number(0, 86400),
        "until": {"type": "number"},
        "in_full": FLAG,
        "credit_left": number(0, 1),
    }
)
_CERTIFICATES = record({"target": nullable(number(0, 1)), "namespaces": listed(ANY_OBJECT)})
_TAKEN = record({"removed": nullable(one_of("pair", "entry")), "kept": FLAG})
_OPEN_METHODS = {status: errors(WIRE)[status] for status in ("400", "405", "413", "415", "431")}


def _page(summary: str, *made: Schema) -> dict[str, Schema]:
    """Describe a page that anybody may read."""
    responses = dict(zip(("200", "503"), made, strict=False))
    return {"get": operation(summary, {**_OPEN_METHODS, **responses}, tag=_TAG)}


def _view(summary: str, made: Schema) -> dict[str, Schema]:
    """Describe a page that answers loopback only."""
    return {"get": operation(summary, {**errors(WIRE), "200": answer(made, "The view.")}, tag=_TAG)}


OPERATIONS: Operations = {
    "/healthz": _page("Tell that the gateway lives.", answer(record({"status": TEXT}), "It lives.")),
    "/readyz": _page(
        "Tell whether the models that shall always run do.", answer(_READY, "Ready."), answer(_READY, "Not ready.")
    ),
    "/metrics": _page("Metrics for Prometheus.", answer(TEXT, "The metrics.", "text/plain")),
    "/openapi.json": _page("This description.", answer(ANY_OBJECT, "OpenAPI 3.1.")),
    "/admin/pools": _view("Tell of all replicas and of what was decided on them.", ANY_OBJECT),
    "/admin/config": _view("Tell which settings are in force.", ANY_OBJECT),
    "/admin/pools/{model}/warm": {
        "post": operation(
            "Have a model warm for a time, as far as the caller's credit of hints goes.",
            {**errors(WIRE), "200": answer(_WARMED, "What was granted, and until when (Unix time).")},
            parameters=[in_path("model")],
            body=asked({}, {"for_s": number(1, 86400), "replicas": whole(1, 64)}, closed=True),
            tag=_TAG,
        )
    },
    "/admin/cache": {
        "get": operation(
            "Tell what the caches hold and what happened in them.",
            {**errors(WIRE), "200": answer(_CACHE, "What they hold.")},
            parameters=[in_query("by", one_of("model"))],
            tag=_TAG,
        )
    },
    "/admin/cache/purge": {
        "post": operation(
            "End cached answers: exactly one of the fields says which. A dry run counts them and ends none.",
            {**errors(WIRE), "200": answer(_PURGED, "They are gone, also after a restart; or how many they are.")},
            body=asked({}, {**_PURGED_BY, "dry_run": FLAG}, closed=True),
            tag=_TAG,
        )
    },
    "/admin/cache/certificate": {
        "get": operation(
            "State how many hits by meaning were wrong at most, for each namespace.",
            {**errors(WIRE), "200": answer(_CERTIFICATES, "What the labels so far allow to say.")},
            parameters=[in_query("namespace", WORDS)],
            tag=_TAG,
        )
    },
    "/admin/cache/feedback": {
        "post": operation(
            "Tell whether what a request got from the cache was wrong: then it is not served so again.",
            {**errors(WIRE), "200": answer(_TAKEN, "What was removed, and whether that outlives a restart.")},
            body=asked({"request_id": WORDS, "wrong": FLAG}, {}, closed=True),
            tag=_TAG,
        )
    },
    "/admin/explain/{request}": {
        "get": operation(
            "Tell what the caches did for a recent request, and why.",
            {**errors(WIRE), "200": answer(ANY_OBJECT, "All that was weighed.")},
            parameters=[in_path("request")],
            tag=_TAG,
        )
    },
    "/admin/explain": {
        "post": operation(
            "Tell what would be done with a request, of the key that `scope` names or of none, without doing it.",
            {**errors(WIRE), "200": answer(ANY_OBJECT, "What would be done.")},
            body=asked({"path": WORDS, "body": ANY_OBJECT}, {"scope": TEXT}, closed=True),
            tag=_TAG,
        )
    },
}
