"""What the tests of the batches' pages share: the pages over a queue of their own, asked as a client would."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from backends.contract import Finish, Task, Vectors
from gateway.batch.contract import BatchPolicy
from gateway.batch.ledger import Ledger
from gateway.batch.pages import BatchPages
from gateway.batch.service import Batches
from gateway.callers.auth import Gatekeeper, Key
from gateway.counting.telemetry import Telemetry
from gateway.front import Front
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call, Reply
from tests.fakes import FakeEngine
from tests.test_gateway_batch_outbound import AUTHORITY
from tests.test_gateway_pipeline import house

POLICY = BatchPolicy(callback_secret=b"secret", allow_private=True)
TASKS = {"a": Task.CHAT, "e": Task.EMBED, "i": Task.INFER}
VECTORS = (Vectors(np.array([1, 2], dtype="<f4").tobytes(), (1, 2)), Finish("stop"))


class Api:
    """A front with the batch pages, called in the process."""

    def __init__(self, front: Front, batches: Batches) -> None:
        self.front = front
        self.batches = batches

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Reply:
        """Make one call; a header's name has underscores for dashes."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        path, _, query = path.partition("?")
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.front.serve(Call(method, path, names, raw, "127.0.0.1", query))

    async def order(
        self, body: object = None, status: int = 202, headers: dict[str, str] | None = None, **fields: Any
    ) -> Any:
        """Order a batch."""
        body = {"model": "a", "inputs": ["x"], **fields} if body is None else body
        reply = await self.call("POST", "/api/v1/batch", body, **(headers or {}))
        assert reply.status == status, reply.body
        return json.loads(reply.body)

    async def look(self, batch_id: str, query: str = "", **headers: str) -> Any:
        """Look at a batch."""
        reply = await self.call("GET", f"/api/v1/batch/{batch_id}{query}", **headers)
        assert reply.status == 200, reply.body
        return json.loads(reply.body)

    async def ended(self, batch_id: str, query: str = "") -> Any:
        """Wait until a batch has ended."""
        while True:
            found = await self.look(batch_id, query)
            if found["status"] not in ("queued", "running"):
                return found
            await asyncio.sleep(0.005)


async def until(look: Callable[[], bool]) -> None:
    """Wait until something is so."""
    while True:
        if look():
            return
        await asyncio.sleep(0.005)


@asynccontextmanager
async def api(
    directory: Path,
    policy: BatchPolicy = POLICY,
    keys: tuple[Key, ...] = (),
    **engines: FakeEngine,
) -> AsyncIterator[Api]:
    """Serve the batch API over models that answer at once."""
    known = {"a": FakeEngine(), "e": FakeEngine(VECTORS), "i": FakeEngine(), **engines}
    async with house(known) as built:
        gatekeeper = Gatekeeper(keys)
        trust = ssl.create_default_context()
        AUTHORITY.configure_trust(trust)
        batches = Batches(directory, policy, pipeline=lambda: built.pipeline, caller_of=gatekeeper.of_scope, tls=trust)
        await batches.open()
        batches.start()

        def task_of(name: str, caller: Any) -> Task:
            return TASKS[built.pipeline._routes.resolve(name, caller).candidates[0]]

        pages = BatchPages(batches, gatekeeper, task_of).table()
        front = Front((OpenAISurface(), NativeSurface()), pages, built.pipeline, gatekeeper, Telemetry())
        try:
            yield Api(front, batches)
        finally:
            await batches.close(1.0)


async def items(served: Api) -> int:
    """Count the items in the queue, those of drafts too."""

    def count(ledger: Ledger) -> int:
        counted: int = ledger._db.execute("SELECT count(*) FROM item").fetchone()[0]
        return counted

    return await served.batches._desk.do(count)
