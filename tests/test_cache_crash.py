"""kill -9 of a process that keeps and purges answers, at any moment, again and again: nothing wrong is ever served.

WARMGATE_CRASHES says how often; the few of the usual run take some seconds.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

import pytest

from cache.disk import DiskStore
from cache.disk.check import HARMLESS, check
from cache.purges import Purges
from scripts.running_gateway import ROOT
from tests.purge_writer import GROUPS, LIFE, make_entry

CRASHES = int(os.environ.get("WARMGATE_CRASHES", "12"))


class Promises:
    """What the processes said before they died."""

    def __init__(self) -> None:
        self.kept_below: dict[int, int] = {}
        self.begun_below = dict.fromkeys(range(GROUPS), 0)
        self.purged_below = dict.fromkeys(range(GROUPS), 0)

    def hear(self, line: str) -> None:
        """Take in one line."""
        what, *numbers = line.split()
        if what == "keep":
            number = int(numbers[0])
            self.kept_below[number // LIFE] = number
        else:
            group, below = map(int, numbers)
            (self.begun_below if what == "begin" else self.purged_below)[group] = below

    def is_purged(self, number: int) -> bool:
        """Tell whether the entry must be gone."""
        return number < self.purged_below[number % GROUPS]

    def is_kept(self, number: int) -> bool:
        """Tell whether the entry must be there: it was acknowledged, and no purge began that would end it."""
        return self.begun_below[number % GROUPS] <= number < self.kept_below.get(number // LIFE, 0)

    def numbers(self) -> list[int]:
        """Return all entries that were kept for sure, and some that may have been."""
        return [n for life, below in self.kept_below.items() for n in range(life * LIFE, below + 40)]


async def one_life(directory: Path, life: int, promises: Promises, choose: random.Random) -> None:
    """Let a process live for some lines and some moments, kill it, and hear what it said."""
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.purge_writer", str(directory), str(life), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert writer.stdout is not None
    for _ in range(choose.randrange(1, 60)):
        promises.hear((await writer.stdout.readline()).decode())
    # Not in step with what it writes.
    await asyncio.sleep(choose.random() * 0.01)
    writer.kill()
    rest, _ = await writer.communicate()
    for line in rest.rpartition(b"\n")[0].decode().splitlines():
        promises.hear(line)


async def survey(directory: Path, promises: Promises) -> int:
    """Read everything as the next process would; return how many entries live. What is wrong fails."""
    purges = Purges()
    store = DiskStore(directory, 1 << 30, purges=purges, read_deadline_s=60)
    await store.open()
    alive = 0
    for number in promises.numbers():
        entry = await store.get(make_entry(number).key)
        served = entry is not None and not purges.is_dead(entry)
        assert not (served and promises.is_purged(number)), f"{number} was purged and lives again"
        if served:
            assert entry == make_entry(number, entry.stamp), f"{number} is not what was kept"
            alive += 1
        assert served or not promises.is_kept(number), f"{number} was lost"
    assert store.counters.errors == 0
    await store.close()
    return alive


@pytest.mark.timeout(300 + 5 * CRASHES)
async def test_nothing_purged_torn_or_wrong_survives_kill_9(tmp_path):
    """Whatever a killed process had acknowledged holds: purges stay in force, and rows are whole."""
    choose = random.Random(CRASHES)
    promises = Promises()
    alive = 0
    for life in range(CRASHES):
        await one_life(tmp_path, life, promises, choose)
        report = check(tmp_path)
        assert report.faults == []
        assert set(report.bad) <= set(HARMLESS)
        if life % 10 == CRASHES % 10 or life == CRASHES - 1:
            alive += await survey(tmp_path, promises)
    assert alive > 0
    assert any(promises.purged_below.values())
