"""What the tests of the shared tier have in common: entries, open tiers, and waits for a state."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from cache.contract import Entry
from cache.disk.row import ROW_VERSION
from cache.purges import Purges
from cache.shared import SharedTier
from tests.redis_server import RedisServer

# Far more than a reply takes on a busy machine, for tests that are not about slowness.
PATIENT_S = 5.0
HASTY_S = 0.05
WITHIN_S = 90.0


def make_entry(n: int, value: bytes = b"value", **more: Any) -> Entry:
    """Return an entry of its own key."""
    now = time.time()
    return Entry(n.to_bytes(32), value, now, more.pop("expires_at", now + 3600), **more)


def name_of(key: bytes, kind: str = "entry") -> bytes:
    """Return what the server knows a key by."""
    return b"warmgate:%d:%s:" % (ROW_VERSION, kind.encode()) + key


@asynccontextmanager
async def opened(
    server: RedisServer, purges: Purges | None = None, *, deadline_s: float = PATIENT_S, url: str = "", **more: Any
) -> AsyncIterator[SharedTier]:
    """Open the tier, and close it."""
    tier = SharedTier(url or server.url, purges or Purges(), deadline_s=deadline_s, **more)
    await tier.open()
    try:
        yield tier
    finally:
        await tier.close()


async def until(look: Callable[[], object], what: str) -> None:
    """Wait for a state."""
    end = time.monotonic() + WITHIN_S
    while not look():
        assert time.monotonic() < end, f"waited until {what}"
        await asyncio.sleep(0.005)


async def opens(tier: SharedTier) -> None:
    """Ask until the breaker opens."""
    end = time.monotonic() + WITHIN_S
    while tier.stats()["up"]:
        assert time.monotonic() < end, "the breaker does not open"
        await tier.get(bytes(32))
