"""The tables of the batch queue's database, and the longer statements on them. Knows no transaction."""

import sqlite3

import orjson

from gateway.batch.contract import Batch

_VERSION = 1

# A draft is a batch whose inputs are still being read. An item's body is its input while it waits, then its result.
_SCHEMA = """
CREATE TABLE batch (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    scope TEXT NOT NULL,
    idempotency_key TEXT,
    digest BLOB NOT NULL,
    model TEXT NOT NULL,
    operation TEXT NOT NULL,
    parameters BLOB NOT NULL,
    callback_url TEXT,
    status TEXT NOT NULL DEFAULT 'draft',
    total INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    waiting_bytes INTEGER NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    finished_at REAL
);
CREATE UNIQUE INDEX batch_of_key ON batch (scope, idempotency_key)
    WHERE idempotency_key IS NOT NULL AND status != 'draft';
CREATE INDEX batch_status ON batch (status);
CREATE INDEX batch_finished ON batch (finished_at) WHERE finished_at IS NOT NULL;
CREATE TABLE item (
    batch INTEGER NOT NULL, place INTEGER NOT NULL, status TEXT NOT NULL, body BLOB, PRIMARY KEY (batch, place)
);
CREATE TABLE delivery (
    batch INTEGER PRIMARY KEY, tries INTEGER NOT NULL, due_at REAL NOT NULL, status TEXT NOT NULL, trouble TEXT
);
CREATE INDEX delivery_due ON delivery (due_at) WHERE status = 'pending';
"""

INSERT_DRAFT = (
    "INSERT INTO batch (id, scope, idempotency_key, digest, model, operation, parameters, callback_url, created_at)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
BY_KEY = "SELECT * FROM batch WHERE scope = ? AND idempotency_key = ? AND status != 'draft'"
OPEN = "SELECT * FROM batch WHERE status = 'open' ORDER BY number"
WAITING_IN_ALL = (
    "SELECT count(*), coalesce(sum(total - done - failed), 0), coalesce(sum(waiting_bytes), 0) FROM batch"
    " WHERE status IN ('draft', 'open')"
)
DUE = (
    "SELECT batch.*, tries FROM delivery JOIN batch ON batch.number = delivery.batch"
    " WHERE delivery.status = 'pending' AND due_at <= ? ORDER BY due_at LIMIT ?"
)


def prepare(db: sqlite3.Connection) -> None:
    """Set the connection up, make the tables where there are none, and forget the drafts of an earlier life."""
    db.row_factory = sqlite3.Row
    for pragma in (
        "locking_mode = EXCLUSIVE",  # two gateways on one queue would both do its work
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        "synchronous = FULL",  # what was accepted survives a power cut as well
        f"journal_size_limit = {64 * 2**20}",
    ):
        db.execute(f"PRAGMA {pragma}").fetchall()
    db.execute("BEGIN EXCLUSIVE")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"its tables are of version {version}, this program reads {_VERSION}")
    if version == 0:
        for statement in filter(str.strip, _SCHEMA.split(";\n")):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("DELETE FROM item WHERE batch IN (SELECT number FROM batch WHERE status = 'draft')")
    db.execute("DELETE FROM batch WHERE status = 'draft'")
    db.execute("COMMIT")


def batch_of(row: sqlite3.Row) -> Batch:
    """Read a row of `batch`."""
    return Batch(
        number=row["number"],
        id=row["id"],
        scope=row["scope"],
        model=row["model"],
        operation=row["operation"],
        parameters=orjson.loads(row["parameters"]),
        callback_url=row["callback_url"],
        status=row["status"],
        total=row["total"],
        done=row["done"],
        failed=row["failed"],
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )
