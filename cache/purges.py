"""What is purged: for each group of entries, the moment before which all of it is dead. Knows no store and no wire.

A purge writes one mark, however many entries it ends. Moments are stamps of a hybrid logical clock (Kulkarni et al.,
2014): microseconds of the wall clock, but always later than every stamp that was seen, so that a clock that is set back
brings nothing back to life.
"""

import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cache.contract import Entry

ALL = "all"
AGE = "age"
# A table of marks as large as this costs some ten megabytes; beyond it the oldest become a purge of all before them.
MOST_MARKS = 1 << 16
# In microseconds some 280 years after the epoch; what is told from elsewhere and is later than this is no stamp, and
# would leave no room for later ones in what a store can write.
MOST_STAMP = 1 << 53


class Mark(NamedTuple):
    """A purge of a group at the moment `stamp`. `stored_by`, of `AGE` alone: it ends what was stored by then."""

    group: str
    stamp: int
    stored_by: float = 0.0


class Purges:
    """The marks in force. Any thread may merge; reading needs no lock, since every change is one assignment.

    `newest` is the stamp of the latest mark: what was stamped after it cannot be dead.
    """

    def __init__(self, clock: Callable[[], float] = time.time, most_marks: int = MOST_MARKS) -> None:
        self.newest = 0
        self.count = 0
        self._clock = clock
        self._most_marks = most_marks
        self._last = 0
        self._marks: dict[str, Mark] = {}
        self._unsaved: set[str] = set()
        self._has_keys = False
        self._changing = threading.Lock()

    def stamp(self) -> int:
        """Return the stamp of this moment: later than all before, whatever the wall clock does."""
        with self._changing:
            return self._tick()

    def observe(self, stamp: int) -> None:
        """Let all stamps to come be later than this one, which another process or an earlier life gave."""
        with self._changing:
            if stamp <= MOST_STAMP:
                self._last = max(self._last, stamp)

    def purge(self, group: str) -> Mark:
        """End all of a group that is stamped before now; durable once what is unsaved was written."""
        return self._add(group, 0.0)

    def purge_stored_by(self, moment: float) -> Mark:
        """End all that was stored by this moment, in seconds since the epoch; else as `purge`."""
        return self._add(AGE, moment)

    @property
    def has_unsaved(self) -> bool:
        """Whether there are marks that nobody has taken to write them."""
        return bool(self._unsaved)

    def take_unsaved(self) -> list[Mark]:
        """Return the marks that are to be written, to whoever writes them now."""
        with self._changing:
            taken = [mark for group in self._unsaved if (mark := self._marks.get(group)) is not None]
            self._unsaved.clear()
            return taken

    def put_back(self, marks: Iterable[Mark]) -> None:
        """Note that these were not written after all."""
        with self._changing:
            self._unsaved.update(mark.group for mark in marks)

    def merge(self, marks: Iterable[Mark]) -> list[Mark]:
        """Take over marks from elsewhere, the later of each two; return those of them that were new."""
        with self._changing:
            told = [mark for mark in marks if mark.stamp <= MOST_STAMP]
            news = [merged for mark in told if (merged := self._put(mark)) is not None]
            self._fold()
            return news

    @property
    def in_force(self) -> int:
        """How many marks there are."""
        return len(self._marks)

    def marks(self) -> list[Mark]:
        """Return all marks in force."""
        with self._changing:
            return list(self._marks.values())

    def is_dead(self, entry: Entry) -> bool:
        """Tell whether a purge has ended this entry."""
        stamp = entry.stamp
        if stamp > self.newest:
            return stamp > MOST_STAMP  # no purge to come could end it
        marks = self._marks
        if not marks:
            return False
        if ((mark := marks.get(ALL)) is not None and stamp <= mark.stamp) or (
            (mark := marks.get(AGE)) is not None and stamp <= mark.stamp and entry.stored_at <= mark.stored_by
        ):
            return True
        if self._has_keys and (mark := marks.get(of_key(entry.key))) is not None and stamp <= mark.stamp:
            return True
        for group in entry.groups:  # noqa: SIM110 - a generator would cost as much again, on the path of every hit
            if (mark := marks.get(group)) is not None and stamp <= mark.stamp:
                return True
        return False

    def latest(self, groups: Iterable[str]) -> int:
        """Return the stamp of the latest purge that concerns any of these groups; 0 where there was none."""
        marks = self._marks
        found = [mark.stamp for group in (ALL, AGE, *groups) if (mark := marks.get(group)) is not None]
        return max(found, default=0)

    def _add(self, group: str, stored_by: float) -> Mark:
        with self._changing:
            self.count += 1
            mark = self._put(Mark(group, self._tick(), stored_by))
            assert mark is not None, "its stamp is later than all others"
            self._fold()
            return mark

    def _tick(self) -> int:
        self._last = max(self._last + 1, int(self._clock() * 1_000_000))
        return self._last

    def _put(self, mark: Mark) -> Mark | None:
        """Put a mark over the former one of its group; None where the marks in force say as much already."""
        former = self._marks.get(mark.group)
        if former is not None:
            mark = Mark(mark.group, max(mark.stamp, former.stamp), max(mark.stored_by, former.stored_by))
        general = self._marks.get(ALL)
        if mark == former or (general is not None and mark.stamp <= general.stamp):
            return None
        self._marks[mark.group] = mark
        if mark.group == ALL:
            # A new table, so that who reads meanwhile finds a whole one.
            later = {group: kept for group, kept in self._marks.items() if kept.stamp > mark.stamp}
            self._marks = {ALL: mark, **later}
            self._unsaved &= self._marks.keys()
        self._unsaved.add(mark.group)
        self._has_keys = self._has_keys or mark.group.startswith("key:")
        self._last = max(self._last, mark.stamp)
        self.newest = max(self.newest, mark.stamp)
        return mark

    def _fold(self) -> None:
        """Keep the table small: in place of its oldest marks, all that was stamped before them is dead."""
        surplus = len(self._marks) - self._most_marks
        if surplus > 0:
            stamps = sorted(mark.stamp for mark in self._marks.values())
            self._put(Mark(ALL, stamps[surplus + self._most_marks // 8]))


def of_key(key: bytes) -> str:
    """Return the group that has just the entry of this key."""
    return f"key:{key.hex()}"


def of_model(name: str) -> str:
    """Return the group of the answers that a model made."""
    return f"model:{name}"


def of_version(version: str) -> str:
    """Return the group of the answers that a version of a model made."""
    return f"version:{version}"


def of_route(name: str) -> str:
    """Return the group of the answers to requests that named a route, or a model, so."""
    return f"route:{name}"


def of_scope(scope: str) -> str:
    """Return the group of one tenant's answers."""
    return f"scope:{scope}"


def of_tag(tag: str) -> str:
    """Return the group of the answers that bear a tag."""
    return f"tag:{tag}"
