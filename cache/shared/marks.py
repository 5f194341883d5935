"""Brings purges to the other gateways, and theirs here, over a log of marks on the server. Knows no entries.

The log is a stream that is read on from where the last read ended, so a mark that comes late is seen as well. Marks
merge in any order and any number of times; what could not be sent is sent when the server is back.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from cache.purges import Mark, Purges
from cache.shared.link import Command, Link

_READ_AT_ONCE = 1000
_KEPT = 1 << 16
_START = b"0-0"
# More than any stamp has.
_MOST_DIGITS = 20
# The largest stamp that any gateway gave: who sees it gives later ones, though its clock be behind.
_OBSERVE = """
local seen = tonumber(redis.call('get', KEYS[1]) or '0')
if tonumber(ARGV[1]) > seen then redis.call('set', KEYS[1], ARGV[1]) return ARGV[1] end
return redis.call('get', KEYS[1])
"""


class SharedMarks:
    """Keeps this gateway's purges and the log in step, each time that `exchange` is called."""

    def __init__(self, link: Link, purges: Purges, name: Callable[[str, bytes], bytes]) -> None:
        self.sent = 0
        self.received = 0
        self._link = link
        self._purges = purges
        self._log = name("marks", b"")
        self._clock_name = name("clock", b"")
        self._read_to = _START
        self._sent_to = 0
        self._from_others: set[Mark] = set()
        self._exchanging = asyncio.Lock()

    async def exchange(self, within_s: float, *, quietly: bool = False) -> None:
        """Read what is new in the log, then write what is new here; `quietly` as the link has it.

        Raises `UnreachableError`.
        """
        async with self._exchanging:
            await self._read(within_s, quietly=quietly)
            await self._write(within_s, quietly=quietly)

    async def _read(self, within_s: float, *, quietly: bool) -> None:
        while True:
            stamp = self._purges.stamp()
            exists, found, clock = await self._link.run(
                [
                    ("EXISTS", self._log),
                    ("XRANGE", self._log, b"(" + self._read_to, b"+", "COUNT", _READ_AT_ONCE),
                    ("EVAL", _OBSERVE, 1, self._clock_name, stamp),
                ],
                within_s,
                quietly=quietly,
            )
            if isinstance(clock, bytes) and clock.isdigit() and len(clock) <= _MOST_DIGITS:
                self._purges.observe(int(clock))
            if exists == 0:
                # Somebody emptied the server: all that is known is news again, and so are the log's first ids.
                self._read_to, self._sent_to = _START, 0
                self._from_others.clear()
            rows = found if isinstance(found, list) else []
            marks = [mark for _, fields in rows if (mark := _mark_of(fields)) is not None]
            self.received += len(self._purges.merge(marks))
            self._from_others.update(marks)
            if rows:
                self._read_to = rows[-1][0]
            if len(rows) < _READ_AT_ONCE:
                return

    async def _write(self, within_s: float, *, quietly: bool) -> None:
        newest = self._purges.newest
        if newest <= self._sent_to:
            self._from_others.clear()
            return
        news = [
            mark
            for mark in self._purges.marks()
            if self._sent_to < mark.stamp <= newest and mark not in self._from_others
        ]
        for begin in range(0, len(news), _READ_AT_ONCE):
            part = news[begin : begin + _READ_AT_ONCE]
            await self._link.run([self._append(mark) for mark in part], within_s, quietly=quietly)
            self.sent += len(part)
        self._sent_to = newest
        self._from_others.clear()

    def _append(self, mark: Mark) -> Command:
        return (
            "XADD", self._log, "MAXLEN", "~", _KEPT, "*",
            "group", mark.group.encode(errors="surrogatepass"), "stamp", mark.stamp, "by", repr(mark.stored_by),
        )  # fmt: skip


def _mark_of(fields: Any) -> Mark | None:
    """Read a mark of the log; None where it is none."""
    try:
        told = fields if isinstance(fields, dict) else dict(zip(fields[::2], fields[1::2], strict=True))
        group = told[b"group"].decode(errors="surrogatepass")
        return Mark(group, int(told[b"stamp"]), float(told[b"by"]))
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
