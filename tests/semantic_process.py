"""A semantic cache over a real disk in a process that is killed at random moments, again and again.

Each life loads what the last one left, checks it, and then adds, replaces, removes, purges and lets expire. What it was
told that is durable it tells the parent, which tells the next. The parent imports everything once and forks, so that a
life is short.
"""

import asyncio
import hashlib
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.contract import Entry, Meaning
from cache.disk import DiskStore
from cache.exact import ExactCache
from cache.memory import MemoryStore
from cache.purges import Purges
from cache.semantic import Match, SemanticCache, block

DIMS = 16
TEXTS = 160
PARTITIONS = (b"a" * 32, b"b" * 32, b"c" * 32)
GROUPS = ("model:x", "model:y", "tag:z")
_LIFE_S = 0.06
_PATIENCE_S = 90.0


def vector_of(text: str) -> bytes:
    """Return a vector that is this text's alone."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big")
    row = np.random.default_rng(seed).standard_normal(DIMS).astype("<f4")
    return (row / np.linalg.norm(row)).tobytes()


def meaning_of(text: int, partition: bytes) -> Meaning:
    """Return the meaning of a numbered text."""
    words = f"question number {text}"
    return Meaning(partition, words, vector_of(words))


def key_of(text: int, partition: bytes, twin: int) -> bytes:
    """Return the key of a text; twins are two requests that ask the same in other shapes."""
    return hashlib.sha256(partition + bytes([twin]) + text.to_bytes(4, "big")).digest()


@dataclass
class Known:
    """What is durable: no answer of a key, or of a group, up to this number may be served again."""

    keys: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    number: int = 0

    def learn(self, told: dict[str, Any]) -> None:
        """Take in what a life has told."""
        self.number = max(self.number, told.get("number", 0))
        for kind, name in (("removed", "keys"), ("purged", "groups")):
            if kind in told:
                getattr(self, name)[told[kind]] = told["number"]

    def is_stale(self, entry: Entry) -> bool:
        """Whether an answer should be gone."""
        number = json.loads(entry.value)["number"]
        ended = [self.keys.get(entry.key.hex(), 0), *[self.groups.get(group, 0) for group in entry.groups]]
        return number <= max(ended)


class Life:
    """One process's time from its start to its end."""

    def __init__(self, directory: Path, seed: int, known: Known, pipe: int) -> None:
        self.random = random.Random(seed)
        self.known = known
        self.number = known.number + 1
        self.pipe = pipe
        purges = Purges()
        self.disk = DiskStore(directory / "store", 1 << 30, time.time, purges, read_deadline_s=30.0)
        self.store = ExactCache(MemoryStore(1 << 20), self.disk, purges)
        # Partitions are large early, and of several chunks.
        block.EXACT_ROWS, block._CHUNK_ROWS = 12, 32
        self.cache = SemanticCache(self.store)

    def tell(self, **what: object) -> None:
        """Tell the parent, in one write that no kill can cut."""
        os.write(self.pipe, json.dumps(what).encode() + b"\n")

    async def live(self) -> None:
        """Load, check, and go on changing."""
        await self.disk.open()
        self.cache.load(self.disk)
        await self.cache.loaded()
        self.tell(checked=await self.check(), entries=self.cache.entries)
        while True:
            await self.step()

    async def check(self) -> list[str]:
        """Return what is wrong: answers that are another's, stale, or that the store has and nobody finds."""
        faults: list[str] = []
        reachable: set[tuple[bytes, str]] = set()
        for partition in PARTITIONS:
            for text in range(TEXTS):
                meaning = meaning_of(text, partition)
                found = await self.cache.find("n", meaning, 30.0)
                if not isinstance(found, Match):
                    continue
                reachable.add((partition, meaning.text))
                faults += self._faults_of(found.entry, meaning)
        async for batch in self.disk.entries():
            for entry in batch:
                assert entry.meaning is not None, "all have one here"
                place = (entry.meaning.partition, entry.meaning.text)
                alive = entry.expires_at > time.time() + 1 and not self.store.purges.is_dead(entry)
                if alive and place not in reachable:
                    faults.append(f"{entry.meaning.text} is in the store and not found")
        return faults

    def _faults_of(self, entry: Entry, meaning: Meaning) -> Iterator[str]:
        if json.loads(entry.value)["text"] != meaning.text or entry.meaning is None:
            yield f"{meaning.text} got another's answer: {entry.value!r}"
        elif entry.meaning.partition != meaning.partition:
            yield f"{meaning.text} got another partition's answer"
        if self.known.is_stale(entry) or entry.expires_at <= time.time():
            yield f"{meaning.text} got a stale answer: {entry.value!r}"

    async def step(self) -> None:
        """Do one random thing."""
        match self.random.choices(("add", "remove", "purge", "find", "flush", "pause"), (60, 12, 1, 15, 6, 6))[0]:
            case "add":
                self.add()
            case "remove":
                key = key_of(self.random.randrange(TEXTS), self.random.choice(PARTITIONS), self.random.randrange(2))
                number = self.number
                await self.store.remove(key)
                self.cache.remove(key)
                self.tell(removed=key.hex(), number=number)
            case "purge":
                group, number = self.random.choice(GROUPS), self.number
                if await self.store.purge(group):
                    self.tell(purged=group, number=number)
            case "find":
                meaning = meaning_of(self.random.randrange(TEXTS), self.random.choice(PARTITIONS))
                found = await self.cache.find("n", meaning, 30.0)
                if isinstance(found, Match) and (faults := list(self._faults_of(found.entry, meaning))):
                    self.tell(checked=faults)
            case "flush":
                await self.disk.flush()
            case "pause":
                await asyncio.sleep(0.001)

    def add(self) -> None:
        """Store an answer, sometimes one that ends soon, as the gateway does."""
        text, partition = self.random.randrange(TEXTS), self.random.choice(PARTITIONS)
        # Most are in one partition, so that its sketches are compared while rows of the others are.
        partition = PARTITIONS[0] if self.random.random() < 0.7 else partition
        self.number += 1
        self.tell(number=self.number)
        meaning, now = meaning_of(text, partition), time.time()
        value = json.dumps({"text": meaning.text, "number": self.number}).encode()
        ends = now + self.random.choice((0.02, 3600.0, 3600.0, 3600.0))
        key = key_of(text, partition, self.random.randrange(2))
        entry = Entry(key, value, now, ends, meaning, groups=(self.random.choice(GROUPS),))
        entry = replace(entry, stamp=self.store.purges.stamp())
        if self.store.keep(entry):
            self.cache.add(entry)


def be_killed(directory: Path, kills: int, seed: int) -> dict[str, int]:
    """Live and be killed so many times; return what was counted. Raises `AssertionError` where anything is wrong."""
    chance, known = random.Random(seed), Known()
    counted = {"kills": 0, "checks": 0, "entries_checked": 0, "most_entries": 0}
    for life in range(kills):
        told = _live_once(directory, seed * 1_000_003 + life, known, chance)
        counted["kills"] += 1
        for each in told:
            assert not each.get("checked"), f"life {life} of seed {seed}: {each['checked'][:5]}"
            known.learn(each)
            if "entries" in each:
                counted["checks"] += 1
                counted["entries_checked"] += each["entries"]
                counted["most_entries"] = max(counted["most_entries"], each["entries"])
    return counted


def _live_once(directory: Path, seed: int, known: Known, chance: random.Random) -> list[dict[str, Any]]:
    """Fork a life, kill it at a random moment, before or after it has checked what it found; return what it told."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with suppress(BaseException):
            asyncio.run(Life(directory, seed, known, writing).live())
        os._exit(1)
    os.close(writing)
    told = b""
    try:
        if chance.random() < 0.8:  # else it is killed while it starts
            told = _until_checked(reading)
        time.sleep(chance.random() * _LIFE_S)
    finally:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    while piece := os.read(reading, 1 << 16):
        told += piece
    os.close(reading)
    assert os.WIFSIGNALED(status), f"it ended by itself: {told[-500:]!r}"
    return [json.loads(line) for line in told.splitlines()]


def _until_checked(reading: int) -> bytes:
    told, until = b"", time.monotonic() + _PATIENCE_S
    while b'"checked"' not in told:
        ready, _, _ = select.select([reading], [], [], max(0.0, until - time.monotonic()))
        piece = os.read(reading, 1 << 16) if ready else b""
        assert piece, f"a life came to no check: {told!r}"
        told += piece
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(be_killed(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))) + "\n")
