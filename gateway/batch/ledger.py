"""The queue's book in SQLite, for one thread: what was accepted, what became of it, and which callbacks are owed.

Every method is one transaction that is on the disk when it returns. An item without an end has not been done: there is
no state of being worked on that a crash could leave behind. Knows nothing of the event loop.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import orjson

from gateway.batch import tables
from gateway.batch.contract import (
    Batch,
    Delivery,
    Draft,
    Ended,
    Item,
    KeyReused,
    QueueFullNow,
    Row,
    Status,
    TooLarge,
)

# A page of results ends where it would grow beyond this; one result is always on it.
_PAGE_BYTES = 8 * 2**20
# Waiting items are read until they have this size together.
_FETCH_BYTES = 2**20
# Rows that one transaction removes, so that nobody waits long for it.
_REMOVED_AT_A_TIME = 5000
# Batches that may be open: each is looked at when turns are taken.
MAX_BATCHES = 1000


class Ledger:
    """The open database. Raises `sqlite3.Error` where the disk fails; what was accepted before stays accepted."""

    def __init__(self, directory: Path, connect: Callable[..., sqlite3.Connection] = sqlite3.connect) -> None:
        """Open the book, or begin one. Raises `OSError`."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "batch.db"
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))  # inputs are their senders' own affair
        try:
            self._db = connect(path, isolation_level=None, check_same_thread=False, timeout=2.0)
            try:
                tables.prepare(self._db)
            except sqlite3.Error:
                self._db.close()  # what it has locked is free for the next try
                raise
        except sqlite3.Error as error:
            taken = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY
            why = "another warmgate uses it" if taken else str(error)
            raise OSError(f"the batch queue in {directory} cannot be opened: {why}") from error

    def close(self) -> None:
        """Close the book."""
        self._db.close()

    def known(self, scope: str, key: str, digest: bytes) -> Batch | None:
        """Return the batch that this idempotency key has made. Raises `KeyReused` where it was another request's."""
        row = self._db.execute(tables.BY_KEY, (scope, key)).fetchone()
        if row is None:
            return None
        if row["digest"] != digest:
            raise KeyReused
        return tables.batch_of(row)

    def put(self, draft: Draft, items: Sequence[bytes], max_items: int, max_bytes: int, *, last: bool) -> Batch | None:
        """Add items to a draft; with the last of them it is accepted, and returned.

        Where its idempotency key was taken meanwhile, the batch that took it is returned and the draft is gone.
        Raises `QueueFullNow`, `TooLarge` and `KeyReused`; the caller discards the draft then.
        """
        with self._transaction():
            number, held = self._draft(draft)
            size = sum(map(len, items))
            total, waiting_bytes = held[0] + len(items), held[1] + size
            if total > max_items or waiting_bytes > max_bytes:
                raise TooLarge
            batches, all_items, all_bytes = self._db.execute(tables.WAITING_IN_ALL).fetchone()
            if batches > MAX_BATCHES or all_items + len(items) > max_items or all_bytes + size > max_bytes:
                raise QueueFullNow(all_items)
            rows = [(number, held[0] + place, body) for place, body in enumerate(items)]
            self._db.executemany("INSERT INTO item VALUES (?, ?, 'waiting', ?)", rows)
            self._db.execute(
                "UPDATE batch SET total = ?, waiting_bytes = ? WHERE number = ?", (total, waiting_bytes, number)
            )
            if not last:
                return None
            if draft.idempotency_key is not None:
                earlier = self.known(draft.scope, draft.idempotency_key, draft.digest)
                if earlier is not None:
                    self._remove(number)
                    return earlier
            self._db.execute("UPDATE batch SET status = 'open' WHERE number = ?", (number,))
            return self._batch(number)

    def discard(self, draft: Draft) -> None:
        """Forget a draft and its items, if it is one still."""
        with self._transaction():
            row = self._db.execute("SELECT number FROM batch WHERE id = ? AND status = 'draft'", (draft.id,)).fetchone()
            if row is not None:
                self._remove(row["number"])

    def find(self, batch_id: str, scope: str) -> Batch | None:
        """Return the batch of this id, if it is this caller's."""
        row = self._db.execute(
            "SELECT * FROM batch WHERE id = ? AND scope = ? AND status != 'draft'", (batch_id, scope)
        ).fetchone()
        return None if row is None else tables.batch_of(row)

    def open_batches(self) -> list[Batch]:
        """Return the batches with work left, in the order of their acceptance."""
        return [tables.batch_of(row) for row in self._db.execute(tables.OPEN)]

    def waiting(self, number: int, from_place: int, limit: int) -> list[Item]:
        """Return the next items of a batch that wait: up to so many, and fewer where they are large."""
        items: list[Item] = []
        size = 0
        for row in self._db.execute(
            "SELECT * FROM item WHERE batch = ? AND place >= ? AND status = 'waiting' ORDER BY place LIMIT ?",
            (number, from_place, limit),
        ):
            items.append(Item(row["batch"], row["place"], row["body"]))
            size += len(row["body"])
            if size >= _FETCH_BYTES:
                break
        return items

    def rows(self, number: int, offset: int, limit: int) -> list[Row]:
        """Return a page of a batch's items, in the order of the inputs."""
        page: list[Row] = []
        size = 0
        for row in self._db.execute(
            "SELECT place, status, CASE status WHEN 'waiting' THEN NULL ELSE body END AS result FROM item"
            " WHERE batch = ? AND place >= ? ORDER BY place LIMIT ?",
            (number, offset, limit),
        ):
            size += len(row["result"] or b"")
            if page and size > _PAGE_BYTES:
                break
            page.append(Row(row["place"], row["status"], row["result"]))
        return page

    def end_items(self, ended: Sequence[Ended], now: float) -> list[Batch]:
        """Write down how items ended, and return the batches that are thereby complete.

        An item that has an end already keeps it.
        """
        touched: dict[int, None] = {}
        with self._transaction():
            for item in ended:
                if self._end_item(item):
                    touched[item.batch] = None
            batches = [self._batch(number) for number in touched]
            return [self._end(batch, _verdict(batch), now) for batch in batches if batch.left == 0]

    def stop(self, number: int, status: Status, now: float, error: bytes | None = None) -> Batch:
        """End an open batch before its time: its waiting items fail with the error, or without one are cancelled."""
        with self._transaction():
            batch = self._batch(number)
            if batch.status != "open":
                return batch
            if error is None:
                self._db.execute(
                    "UPDATE item SET status = 'cancelled', body = NULL WHERE batch = ? AND status = 'waiting'",
                    (number,),
                )
            else:
                self._db.execute(
                    "UPDATE item SET status = 'failed', body = ? WHERE batch = ? AND status = 'waiting'",
                    (error, number),
                )
                self._db.execute("UPDATE batch SET failed = total - done WHERE number = ?", (number,))
            return self._end(self._batch(number), status, now)

    def due(self, now: float, limit: int) -> list[Delivery]:
        """Return callbacks whose time has come."""
        rows = self._db.execute(tables.DUE, (now, limit))
        return [Delivery(tables.batch_of(row), row["tries"]) for row in rows]

    def next_due(self) -> float | None:
        """Return when the next callback is due."""
        at: float | None = self._db.execute("SELECT min(due_at) FROM delivery WHERE status = 'pending'").fetchone()[0]
        return at

    def begin_delivery(self, number: int, again_at: float) -> None:
        """Write down that a callback is being tried: if nothing more is heard of it, it is tried again then."""
        with self._transaction():
            self._db.execute("UPDATE delivery SET tries = tries + 1, due_at = ? WHERE batch = ?", (again_at, number))

    def end_delivery(self, number: int, status: str, trouble: str | None) -> None:
        """Write down how a try ended: `delivered`, `given_up`, or still `pending`."""
        with self._transaction():
            self._db.execute("UPDATE delivery SET status = ?, trouble = ? WHERE batch = ?", (status, trouble, number))

    def delivery(self, number: int) -> tuple[str, int, str | None] | None:
        """Return the state of a batch's callback: status, tries and the last trouble."""
        row = self._db.execute("SELECT status, tries, trouble FROM delivery WHERE batch = ?", (number,)).fetchone()
        return None if row is None else (row["status"], row["tries"], row["trouble"])

    def overdue(self, before: float) -> list[int]:
        """Return the open batches that were accepted before this time."""
        return [batch.number for batch in self.open_batches() if batch.created_at < before]

    def remove_finished(self, before: float) -> bool:
        """Remove some of what finished before this time; tell whether there is more."""
        row = self._db.execute(
            "SELECT number FROM batch WHERE finished_at < ? ORDER BY number LIMIT 1", (before,)
        ).fetchone()
        if row is None:
            return False
        with self._transaction():
            removed = self._db.execute(
                "DELETE FROM item WHERE batch = ? AND place IN (SELECT place FROM item WHERE batch = ? LIMIT ?)",
                (row["number"], row["number"], _REMOVED_AT_A_TIME),
            )
            if removed.rowcount < _REMOVED_AT_A_TIME:
                self._remove(row["number"])
        self._db.execute("PRAGMA incremental_vacuum").fetchall()
        return True

    def _draft(self, draft: Draft) -> tuple[int, tuple[int, int]]:
        """Return the draft's number, and the items and bytes that it has; the first call makes it."""
        row = self._db.execute("SELECT * FROM batch WHERE id = ?", (draft.id,)).fetchone()
        if row is not None:
            return row["number"], (row["total"], row["waiting_bytes"])
        values = (
            draft.id, draft.scope, draft.idempotency_key, draft.digest, draft.model, draft.operation,
            orjson.dumps(draft.parameters), draft.callback_url, draft.created_at,
        )  # fmt: skip
        number = self._db.execute(tables.INSERT_DRAFT, values).lastrowid
        assert number is not None
        return number, (0, 0)

    def _batch(self, number: int) -> Batch:
        return tables.batch_of(self._db.execute("SELECT * FROM batch WHERE number = ?", (number,)).fetchone())

    def _end_item(self, item: Ended) -> bool:
        waiting = self._db.execute(
            "SELECT length(body) FROM item WHERE batch = ? AND place = ? AND status = 'waiting'",
            (item.batch, item.place),
        ).fetchone()
        if waiting is None:
            return False
        self._db.execute(
            "UPDATE item SET status = ?, body = ? WHERE batch = ? AND place = ?",
            (item.status, item.body, item.batch, item.place),
        )
        self._db.execute(
            "UPDATE batch SET done = done + ?, failed = failed + ?, waiting_bytes = waiting_bytes - ? WHERE number = ?",
            (item.status == "done", item.status == "failed", waiting[0], item.batch),
        )
        return True

    def _end(self, batch: Batch, status: Status, now: float) -> Batch:
        self._db.execute(
            "UPDATE batch SET status = ?, finished_at = ?, waiting_bytes = 0 WHERE number = ?",
            (status, now, batch.number),
        )
        if batch.callback_url is not None:
            self._db.execute("INSERT INTO delivery VALUES (?, 0, ?, 'pending', NULL)", (batch.number, now))
        return self._batch(batch.number)

    def _remove(self, number: int) -> None:
        for table, column in (("item", "batch"), ("delivery", "batch"), ("batch", "number")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} = ?", (number,))  # noqa: S608 - names of our own

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a failed commit may have ended it
                self._db.execute("ROLLBACK")
            raise


def _verdict(batch: Batch) -> Status:
    """Tell how a complete batch ended: one of which nothing succeeded has failed."""
    return "done" if batch.done else "failed"
