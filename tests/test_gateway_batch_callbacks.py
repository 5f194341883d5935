"""The callback of a batch: signed, sent once, tried again with growing waits, and repeated under its key alone."""

import asyncio
import hashlib
import hmac
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import callbacks
from gateway.batch.callbacks import Deliverer
from gateway.batch.contract import Batch, Ended
from gateway.batch.desk import Desk
from gateway.batch.ledger import Ledger
from gateway.batch.outbound import Unreachable
from tests.batch_world import NoThread, draft
from tests.fakes import run_virtual

URL = "https://example.com/done"
SECRET = b"secret"


class Receiver:
    """Receives callbacks as the test's script says: a status, or an exception; the last one again and again."""

    def __init__(self, *script: int | Exception) -> None:
        self.script = list(script)
        self.got: list[tuple[float, str, bytes, Mapping[str, str]]] = []
        self.asked = asyncio.Event()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], limit_s: float) -> int:
        """Note a callback and answer it."""
        self.got.append((asyncio.get_running_loop().time(), url, body, headers))
        self.asked.set()
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, Exception):
            raise step
        return step


@asynccontextmanager
async def delivering(directory: Path, receiver: Receiver, secret: bytes | None = SECRET) -> AsyncIterator[Desk]:
    """Run a deliverer on the queue of this directory."""
    desk = Desk(directory, NoThread())
    await desk.open()
    deliverer = Deliverer(desk, receiver.post, lambda: secret, asyncio.get_running_loop().time)
    deliverer.start()
    try:
        yield desk
    finally:
        await deliverer.close()
        await desk.close()


async def finish(desk: Desk, name: str = "b") -> Batch:
    """Put a batch that has ended into the queue."""
    batch = await desk.do(Ledger.put, draft(name, callback_url=URL), [b"0"], 100, 1000, last=True)
    assert batch is not None
    (finished,) = await desk.do(Ledger.end_items, [Ended(batch.number, 0, "done", b"1")], 5.0)
    return finished


async def settled(desk: Desk, batch: Batch) -> tuple[str, int, str | None]:
    """Wait until no more will be tried for a callback."""
    while True:
        found = await desk.do(Ledger.delivery, batch.number)
        if found is not None and found[0] != "pending":
            return found
        await asyncio.sleep(1)


def test_a_callback_is_signed_and_sent_once(tmp_path):
    """Its body says how the batch ended, and its headers who it is from and which one it is."""

    async def scenario() -> None:
        receiver = Receiver(204)
        async with delivering(tmp_path, receiver) as desk:
            batch = await finish(desk)
            assert await settled(desk, batch) == ("delivered", 1, None)
            await asyncio.sleep(100_000)

        ((at, url, body, headers),) = receiver.got
        assert url == URL
        assert body == b'{"batch_id":"b","status":"done","total":1,"done":1,"failed":0,"finished_at":5.0}'
        assert headers["Idempotency-Key"] == headers["Webhook-Id"] == "b"
        signed = hmac.new(SECRET, b"%d." % int(at) + body, hashlib.sha256).hexdigest()
        assert headers["X-Warmgate-Signature"] == f"t={int(at)},v1={signed}"

    run_virtual(scenario())


def test_a_callback_is_tried_again_with_growing_waits(tmp_path):
    """Errors and statuses other than 2xx are troubles; the key stays the same and the last trouble is kept."""

    async def scenario() -> None:
        receiver = Receiver(500, Unreachable("no"), 302, 404, 200)
        async with delivering(tmp_path, receiver) as desk:
            assert await settled(desk, await finish(desk)) == ("delivered", 5, None)

        times = [at for at, *_ in receiver.got]
        waits = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert waits == sorted(waits)
        assert 15 <= waits[0] <= 20
        assert waits[-1] >= 900
        assert {headers["Idempotency-Key"] for *_, headers in receiver.got} == {"b"}
        assert len({body for _, _, body, _ in receiver.got}) == 1

    run_virtual(scenario())


def test_a_callback_is_given_up_after_eight_tries(tmp_path, caplog):
    """Over some hours; and the log says so."""

    async def scenario() -> None:
        receiver = Receiver(500)
        async with delivering(tmp_path, receiver) as desk:
            assert await settled(desk, await finish(desk)) == ("given_up", 8, "the status was 500")
            await asyncio.sleep(100_000)
        assert len(receiver.got) == 8
        assert 2 * 3600 < receiver.got[-1][0] - receiver.got[0][0] < 6 * 3600

    run_virtual(scenario())
    assert "for the last time" in caplog.text
    assert "secret" not in caplog.text


def test_a_slow_receiver_holds_up_nobody_else(tmp_path):
    """Callbacks of several batches are on their way at a time."""

    async def scenario() -> None:
        class Slow(Receiver):
            async def post(self, *args: Any) -> int:
                if not self.got:
                    self.got.append(args)
                    await asyncio.sleep(9)
                return await super().post(*args)

        async with delivering(tmp_path, Slow(200)) as desk:
            slow, quick = await finish(desk, "slow"), await finish(desk, "quick")
            began = asyncio.get_running_loop().time()
            await settled(desk, quick)
            assert asyncio.get_running_loop().time() - began < 70
            await settled(desk, slow)

    run_virtual(scenario())


def test_without_its_secret_no_callback_leaves(tmp_path):
    """When the operator takes the secret away, what is owed is tried again later, and never sent unsigned."""

    async def scenario() -> None:
        receiver = Receiver(200)
        async with delivering(tmp_path, receiver, secret=None) as desk:
            assert (await settled(desk, await finish(desk)))[0] == "given_up"
        assert receiver.got == []

    run_virtual(scenario())


def test_a_life_that_ends_in_a_callback_repeats_it_under_the_same_key(tmp_path):
    """It was begun, and nobody knows whether it arrived: the next life sends it again, when its next try is due."""

    async def scenario() -> None:
        class Hanging(Receiver):
            async def post(self, *args: Any) -> int:
                await super().post(*args)
                await asyncio.Event().wait()
                raise AssertionError

        hanging, receiver = Hanging(200), Receiver(200)
        async with delivering(tmp_path, hanging) as desk:
            batch = await finish(desk)
            await asyncio.wait_for(hanging.asked.wait(), 90)
        async with delivering(tmp_path, receiver) as desk:
            status, tries, _ = await settled(desk, batch)

        assert (status, tries) == ("delivered", 2)
        assert len(hanging.got) == len(receiver.got) == 1
        assert hanging.got[0][3]["Idempotency-Key"] == receiver.got[0][3]["Idempotency-Key"]

    run_virtual(scenario())


@given(st.integers(0, 100), st.floats(0, 0.99))
def test_the_waits_of_callbacks_are_bounded(tries, chance):
    """Longer than a try may take, and an hour and a quarter at most."""
    assert 15 <= callbacks.wait_s(tries, chance) <= 4500
