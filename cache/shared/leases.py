"""Who of several gateways makes an answer: a lease by key, kept by token, that ends by itself when its holder dies.

The lock of one Redis instance, as Redis' documentation describes it: SET with NX and PX, a random token, and a release
that compares. Nothing here must be right for answers to be right: who holds no lease makes the answer all the same.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from cache.contract import Entry
from cache.flight import SingleFlight
from cache.shared.link import Command, Link, UnreachableError

T = TypeVar("T")

LEASE_S = 3.0
# How long others know that the last answer could not be kept, and ask for no lease.
_VOID_S = 1.0
_VOID = b"void"
_SHORTEST_POLL_S = 0.005
_LONGEST_POLL_S = 0.25
# Waiting costs at most about this share more than the answer took.
_POLL_SHARE = 0.125
# A lease that nobody began to work under by then is given back.
_IDLE_S = 1.0
_HELD_AT_MOST = 4096

_RENEW = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('pexpire', KEYS[1], ARGV[2]) end return 0"
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"
_RELEASE_VOID = (
    "if redis.call('get', KEYS[1]) == ARGV[1] then redis.call('del', KEYS[1]) "
    # A server without memory refuses this; the lease has ended all the same.
    "redis.pcall('set', KEYS[1], ARGV[2], 'PX', ARGV[3]) end return 0"
)


@dataclass(slots=True)
class LeaseCounters:
    """What happened since the start.

    `led`: answers made here under a lease. `followed`: found after another gateway had made them. `taken_over`: leases
    got after a wait. `gave_up`: waits that ended without an answer, whose request then ran here.
    """

    led: int = 0
    followed: int = 0
    taken_over: int = 0
    gave_up: int = 0


@dataclass(slots=True, eq=False)
class _Held:
    name: bytes
    token: bytes
    keys: Sequence[bytes]
    since: float
    runs: int = 0
    begun: bool = False
    stored: bool = False
    failed: bool = field(default=False)


class Leases:
    """The leases that this gateway holds, and its waits for those of others.

    `read` returns the live entries among these keys' values, as the server has them; `name` the server's name of a key.
    """

    def __init__(
        self,
        link: Link,
        read: Callable[[Sequence[bytes], Sequence[object]], Sequence[Entry]],
        name: Callable[[str, bytes], bytes],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = LeaseCounters()
        self._link = link
        self._read = read
        self._name = name
        self._clock = clock
        self._held: dict[bytes, _Held] = {}
        self._makes: dict[bytes, _Held] = {}
        self._ended: list[_Held] = []
        self._asking: SingleFlight[Entry | None] = SingleFlight()
        self.on_ended: Callable[[], None] = lambda: None
        """Called when a lease waits to be released by `settle`."""

    async def ask(
        self, key: bytes, keys: Sequence[bytes], fits: Callable[[Entry], bool], within_s: float
    ) -> Entry | None:
        """Return the answer that another gateway is making, once it is made; None where it is to be made here.

        `key` names the work, `keys` the entries that it may leave, of which one that `fits` is waited for. None comes
        at once where nobody else works on it, within `within_s` in any case, and without any wait where the server is
        not up. Then call `lead`.
        """
        if not self._link.up or key in self._held or len(self._held) >= _HELD_AT_MOST:
            return None
        async with self._asking.join(key, lambda: self._find(key, keys, fits)) as seat:
            try:
                async with asyncio.timeout(within_s):
                    async for entry in seat:
                        return entry
            except TimeoutError:
                self.counters.gave_up += 1
        return None

    @property
    def asking(self) -> int:
        """How many wait for an answer, or for word that there is none."""
        return self._asking.seats

    def lead(self, key: bytes, make: Callable[[], AsyncIterator[T]]) -> Callable[[], AsyncIterator[T]]:
        """Return the work, which ends the lease of this key when it ends; the work itself where there is no lease."""
        held = self._held.get(key)
        if held is None:
            return make
        held.begun = True
        return lambda: self._leading(key, held, make)

    def note(self, key: bytes, *, stored: bool) -> None:
        """Note that an entry was queued for the server, or that it did not get there."""
        held = self._makes.get(key)
        if held is not None:
            held.stored |= stored
            held.failed |= not stored

    async def settle(self, unwritten: Callable[[bytes], bool]) -> None:
        """Release what has ended, but for what has an entry on its way (`unwritten`)."""
        ready = [held for held in self._ended if not any(unwritten(key) for key in held.keys)]
        if not ready:
            return
        self._ended = [held for held in self._ended if held not in ready]
        for held in ready:
            self._forget(held)
        await self._send([_release(held) for held in ready])

    async def renew(self) -> None:
        """Prolong the leases under which work goes on; give back those that nobody came to work under."""
        now = self._clock()
        for key, held in list(self._held.items()):
            if not held.begun and now - held.since > _IDLE_S:
                self._end(key, held)
        await self._send([("EVAL", _RENEW, 1, held.name, held.token, _ms(LEASE_S)) for held in self._held.values()])

    async def close(self) -> None:
        """Release everything, so that no other gateway waits for this one."""
        await self._asking.close()
        for key, held in list(self._held.items()):
            self._end(key, held)
        await self.settle(lambda _: False)

    async def _find(
        self, key: bytes, keys: Sequence[bytes], fits: Callable[[Entry], bool]
    ) -> AsyncGenerator[Entry | None, None]:
        """Yield what is found: the answer, or None where it is to be made here, with the lease or without."""
        since = self._clock()
        name, token = self._name("lease", key), os.urandom(16)
        commands: list[Command] = [
            ("SET", name, token, "NX", "PX", _ms(LEASE_S)),
            ("MGET", *[self._name("entry", each) for each in keys], name),
        ]
        while True:
            held = _Held(name, token, keys, self._clock())
            try:
                answered, found = await self._link.run(commands)
            except BaseException as error:
                # The lease may have been taken all the same.
                self._ended.append(held)
                self.on_ended()
                if isinstance(error, UnreachableError):
                    yield None
                    return
                raise
            *values, holder = found if isinstance(found, list) else [None]
            taken = answered is True
            entry = next(filter(fits, self._read(keys, values)), None)
            if taken:
                self._held[key] = held
                self._makes.update(dict.fromkeys(keys, held))
            if entry is not None:
                if taken:
                    self._end(key, held)
                self.counters.followed += 1
                yield entry
                return
            waited_s = self._clock() - since
            if taken:
                self.counters.led += 1
                self.counters.taken_over += waited_s > LEASE_S / 2
            if taken or holder == _VOID or isinstance(answered, Exception):
                yield None
                return
            pause_s = min(max(waited_s * _POLL_SHARE, _SHORTEST_POLL_S), _LONGEST_POLL_S)
            await asyncio.sleep(pause_s * random.uniform(0.75, 1.25))

    async def _leading(self, key: bytes, held: _Held, make: Callable[[], AsyncIterator[T]]) -> AsyncGenerator[T, None]:
        held.runs += 1
        try:
            async with aclosing(make()) as items:  # type: ignore[type-var]
                async for item in items:
                    yield item
        finally:
            held.runs -= 1
            # What the work leaves is queued in this very turn of the loop; the release is settled in a later one.
            if not held.runs:
                self._end(key, held)

    def _end(self, key: bytes, held: _Held) -> None:
        if self._held.get(key) is held:
            del self._held[key]
            self._ended.append(held)
            self.on_ended()

    def _forget(self, held: _Held) -> None:
        for key in held.keys:
            if self._makes.get(key) is held:
                del self._makes[key]

    async def _send(self, commands: Sequence[Command]) -> None:
        if commands and self._link.up:
            try:
                await self._link.run(commands, 1.0)
            except UnreachableError:
                return


def _release(held: _Held) -> Command:
    if held.stored and not held.failed:
        return ("EVAL", _RELEASE, 1, held.name, held.token)
    return ("EVAL", _RELEASE_VOID, 1, held.name, held.token, _VOID, _ms(_VOID_S))


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
