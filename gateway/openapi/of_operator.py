"""What is served for who runs the gateway: health, metrics, its own views, and this description."""

from gateway.openapi.of_openai import WIRE
from gateway.openapi.shapes import (
    ANY_OBJECT,
    FLAG,
    TEXT,
    WORDS,
    Operations,
    Schema,
    answer,
    errors,
    listed,
    operation,
    record,
)

_TAG = "Operator"
_READY = record({"ready": FLAG, "waiting_for": listed(TEXT), "unloaded": listed(TEXT)})
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
    "/admin/explain": {
        "post": operation(
            "Tell what would be done with a request, without doing it.",
            {**errors(WIRE), "200": answer(ANY_OBJECT, "What would be done.")},
            body=record({"path": WORDS, "body": ANY_OBJECT}),
            tag=_TAG,
        )
    },
}
