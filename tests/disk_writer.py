"""A process that writes to a disk store until it is killed, and says on standard output which rows are acknowledged.

Called with the directory and, optionally, the largest size in bytes that its files may have.
"""

import asyncio
import itertools
import resource
import signal
import sys
import time
from pathlib import Path

from cache.contract import Entry, Meaning
from cache.disk import DiskStore


def make_entry(number: int) -> Entry:
    """Return the entry that this number stands for, the same in every process; they differ in size."""
    value = number.to_bytes(4) * (1 + number % 5000)
    meaning = Meaning(b"p" * 32, f"question {number}", bytes(64)) if number % 2 else None
    return Entry(number.to_bytes(32), value, float(number), 4e9, meaning)


async def write(directory: Path) -> None:
    """Write batch after batch, and print the number after the last acknowledged one."""
    store = DiskStore(directory, 1 << 30, time.time)
    await store.open()
    for number in itertools.count():
        await store.put(make_entry(number))
        if number % 7 == 6:
            await store.flush()
            sys.stdout.write(f"{number + 1} {store.counters.errors}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        # As on a full disk, a write beyond the limit fails; without this the signal would kill first.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
    asyncio.run(write(Path(sys.argv[1])))
