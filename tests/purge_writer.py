"""A process that keeps entries and purges them until it is killed, and says on standard output what it was promised.

Called with the directory and the number of its life. Each line is `keep NUMBER`: the entries of this life below it are
kept; `begin GROUP BEFORE`: a purge begins that may end those of the group below; or `purge GROUP BEFORE`: they are gone
for good. `keep` and `purge` are written once the store has acknowledged it.
"""

import asyncio
import random
import sys
from pathlib import Path

from cache.contract import Entry
from cache.disk import DiskStore
from cache.exact import ExactCache
from cache.memory import MemoryStore
from cache.purges import Purges, of_tag

GROUPS = 5
LIFE = 1_000_000
"""Numbers of entries begin anew with each life at a multiple of this."""


def make_entry(number: int, stamp: int = 0) -> Entry:
    """Return the entry that this number stands for, but for its stamp the same in every process."""
    value = number.to_bytes(8) * (1 + number % 500)
    return Entry(number.to_bytes(32), value, 1000.0, 4e9, groups=(of_tag(str(number % GROUPS)),), stamp=stamp)


async def write(directory: Path, life: int) -> None:
    """Keep and purge at random, without an end."""
    choose = random.Random(life)
    # Each life has a clock that is off by as much as an hour, back or ahead.
    off_s = choose.uniform(-3600, 3600)
    purges = Purges(lambda: 1e9 + off_s)
    disk = DiskStore(directory, 1 << 30, purges=purges)
    await disk.open()
    cache = ExactCache(MemoryStore(1 << 20), disk, purges)
    number = life * LIFE
    while True:
        for _ in range(choose.randrange(1, 20)):
            cache.keep(make_entry(number, purges.stamp()))
            number += 1
        if choose.random() < 0.5:
            assert await disk.flush(60)
            sys.stdout.write(f"keep {number}\n")
        if choose.random() < 0.3:
            group = choose.randrange(GROUPS)
            sys.stdout.write(f"begin {group} {number}\n")
            sys.stdout.flush()
            if await cache.purge(of_tag(str(group))):
                sys.stdout.write(f"purge {group} {number}\n")
        assert disk.counters.errors == disk.counters.dropped == 0
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2])))
