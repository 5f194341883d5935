"""The pages of the batch API: order, look, cancel. Knows no table and no network."""

import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import orjson

from backends.contract import Task
from gateway.batch import orders
from gateway.batch.contract import Batch, Row
from gateway.batch.service import Batches
from gateway.callers.auth import Gatekeeper
from gateway.errors import InvalidRequest
from gateway.fields import cut
from gateway.front import Page
from gateway.request import Caller
from gateway.surfaces.wire import JSON, Call, Reply

_PATH = "/api/v1/batch"
_ORDER, _LOOK, _CANCEL = PAGES = (("POST", _PATH), ("GET", f"{_PATH}/{{id}}"), ("DELETE", f"{_PATH}/{{id}}"))
"""What there is, by method and path."""
_PAGE = 100
_MAX_PAGE = 1000
_MAX_OFFSET = 2**31
_MAX_KEY_CHARS = 255
_ACCEPTED = 202


class BatchPages:
    """The pages by method and path. Errors are told in the shape that the front gives to all pages."""

    def __init__(self, batches: Batches, gatekeeper: Gatekeeper, task_of: Callable[[str, Caller], Task]) -> None:
        """Take what tells a model's task to a caller; it raises `UnknownModel` or `Forbidden`."""
        self._batches = batches
        self._gatekeeper = gatekeeper
        self._task_of = task_of

    def table(self) -> dict[tuple[str, str], Page]:
        """Return the pages by (method, path)."""
        return {_ORDER: self._order, _LOOK: self._look, _CANCEL: self._cancel}

    async def _order(self, call: Call) -> Reply:
        caller = self._caller(call)
        order = orders.read(call.body)
        operation = orders.operation_of(order, self._task_of(order.model, caller))
        digest = hashlib.sha256(call.body).digest()
        batch = await self._batches.accept(order, operation, caller, _idempotency_key(call), digest)
        told = {**self._state(batch), "estimated_time": _rounded(self._batches.estimate_s(batch))}
        return Reply(_ACCEPTED, {"Content-Type": JSON, "Location": f"{_PATH}/{batch.id}"}, orjson.dumps(told))

    async def _look(self, call: Call) -> Reply:
        offset, limit = _page(call.query)
        batch = await self._batches.find(call.names["id"], self._caller(call))
        rows = await self._batches.rows(batch, offset, limit)
        end = offset + len(rows)
        told = {
            **await self._progress(batch),
            "results": [_result(row) for row in rows],
            "next_offset": end if rows and end < batch.total else None,
        }
        return Reply(200, {"Content-Type": JSON}, orjson.dumps(told))

    async def _cancel(self, call: Call) -> Reply:
        batch = await self._batches.cancel(call.names["id"], self._caller(call))
        return Reply(200, {"Content-Type": JSON}, orjson.dumps(await self._progress(batch)))

    def _caller(self, call: Call) -> Caller:
        return self._gatekeeper.identify(call.headers, call.peer)

    def _state(self, batch: Batch) -> dict[str, object]:
        status: str = batch.status
        if status == "open":
            status = "running" if self._batches.runs(batch) else "queued"
        return {
            "batch_id": batch.id,
            "status": status,
            "total": batch.total,
            "done": batch.done,
            "failed": batch.failed,
        }

    async def _progress(self, batch: Batch) -> dict[str, Any]:
        told = {
            **self._state(batch),
            "model": batch.model,
            "task": batch.operation,
            "estimated_time": _rounded(self._batches.estimate_s(batch)),
            "created_at": batch.created_at,
            "finished_at": batch.finished_at,
        }
        if batch.callback_url is not None and (delivery := await self._batches.delivery(batch)) is not None:
            told["callback"] = dict(zip(("status", "tries", "trouble"), delivery, strict=True))
        return told


def _result(row: Row) -> dict[str, object]:
    told: dict[str, object] = {"index": row.place, "status": row.status}
    if row.body is not None:
        told["output" if row.status == "done" else "error"] = orjson.Fragment(row.body)
    return told


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _idempotency_key(call: Call) -> str | None:
    key = call.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _MAX_KEY_CHARS and key.isascii() and key.isprintable()):
        raise InvalidRequest(f"'Idempotency-Key' must be 1 to {_MAX_KEY_CHARS} printable ASCII characters")
    return key


def _page(query: str) -> tuple[int, int]:
    """Read `offset` and `limit`."""
    asked = dict(parse_qsl(query, keep_blank_values=True))
    for name in asked:
        if name not in ("offset", "limit"):
            raise InvalidRequest(f"'{cut(name)}' is no parameter of this page; there are: offset, limit", cut(name))
    return _number(asked, "offset", 0, _MAX_OFFSET), _number(asked, "limit", _PAGE, _MAX_PAGE)


def _number(asked: dict[str, str], name: str, default: int, most: int) -> int:
    text = asked.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise InvalidRequest(f"'{name}' must be a whole number from 0 to {most}, got '{cut(text)}'", name)
    return int(text)
