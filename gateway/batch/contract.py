"""The values of the batch queue, and its own errors. Knows no database, no network and no wire."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Operation = Literal["predict", "generate", "embed"]
Status = Literal["open", "done", "failed", "cancelled"]
ItemStatus = Literal["waiting", "done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """What the operator allows. `s3_buckets` and `file_roots` name all that references may reach."""

    max_items: int = 100_000
    max_bytes: int = 256 * 2**20
    concurrency: int = 4
    keep_s: float = 7 * 86400.0
    file_roots: tuple[Path, ...] = ()
    s3_buckets: tuple[str, ...] = ()
    s3_endpoint: str | None = None
    callback_secret: bytes | None = None
    allow_private: bool = False


@dataclass(frozen=True, slots=True)
class Draft:
    """A batch that is being accepted. `digest` is that of the request's body, to tell a repeat from another request."""

    id: str
    scope: str
    model: str
    operation: Operation
    parameters: Mapping[str, Any]
    callback_url: str | None
    idempotency_key: str | None
    digest: bytes
    created_at: float


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it stands: `number` is its place in the order of acceptance. An open one waits or runs."""

    number: int
    id: str
    scope: str
    model: str
    operation: Operation
    parameters: Mapping[str, Any]
    callback_url: str | None
    status: Status
    total: int
    done: int
    failed: int
    created_at: float
    finished_at: float | None

    @property
    def left(self) -> int:
        """Items that have not ended."""
        return self.total - self.done - self.failed if self.status == "open" else 0


@dataclass(frozen=True, slots=True)
class Item:
    """An input that waits: its batch's number, its place in it, and its JSON."""

    batch: int
    place: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of an item: its output's JSON, or its error's."""

    batch: int
    place: int
    status: Literal["done", "failed"]
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A callback that is owed; `tries` counts those that were begun before this one."""

    batch: Batch
    tries: int


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a batch's results: the JSON of an output or an error, none while it waits or where it was stopped."""

    place: int
    status: ItemStatus
    body: bytes | None


class QueueFullNow(Exception):
    """The queue has no room for these items now; `items` wait in it."""

    def __init__(self, items: int) -> None:
        super().__init__(f"{items} items wait")
        self.items = items


class TooLarge(Exception):
    """The batch alone is more than the queue may ever hold."""


class KeyReused(Exception):
    """The idempotency key belongs to a request with another body."""
