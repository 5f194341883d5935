"""The shared tier on a real server: rows, deadlines, the breaker, and what a server's troubles cost."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from cache.contract import Entry, Meaning
from cache.purges import Purges
from cache.shared import SharedTier
from tests.redis_server import RedisServer

# Far more than a reply takes on a busy machine, where the test is not about slowness.
PATIENT_S = 5.0
HASTY_S = 0.03


def make_entry(n: int, value: bytes = b"value", **more: Any) -> Entry:
    """Return an entry of its own key."""
    now = time.time()
    return Entry(n.to_bytes(32), value, now, more.pop("expires_at", now + 3600), **more)


@asynccontextmanager
async def opened(
    server: RedisServer, purges: Purges | None = None, *, deadline_s: float = PATIENT_S, **more: Any
) -> AsyncIterator[SharedTier]:
    """Open the tier, and close it."""
    tier = SharedTier(server.url, purges or Purges(), deadline_s=deadline_s, **more)
    await tier.open()
    try:
        yield tier
    finally:
        await tier.close()


async def until(look: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    """Wait for a state."""
    end = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < end, f"waited until {what}"
        await asyncio.sleep(0.005)


async def opens(tier: SharedTier) -> None:
    """Ask until the breaker opens."""
    end = time.monotonic() + 20
    while tier.stats()["up"]:
        assert time.monotonic() < end, "the breaker does not open"
        await tier.get(bytes(32))


async def test_what_one_gateway_puts_another_gets(redis_server):
    """An entry comes back as it was, its meaning and groups included, whoever asks."""
    entry = make_entry(
        1, b"\x00\xff" * 1000, meaning=Meaning(b"p", "t\ud800", b"v", b"k"), groups=("model:a", "tag:b"), stamp=7
    )
    async with opened(redis_server) as one, opened(redis_server) as other:
        assert await other.get(entry.key) is None
        await one.put(entry)
        assert await one.get(entry.key) == entry
        assert await one.flush()
        assert await other.get(entry.key) == entry
        assert (one.stats()["writes"], other.stats()["hits"], other.stats()["misses"]) == (1, 1, 1)
