"""Follows the config file: a sound edit is applied, a bad one is told of and changes nothing. Knows no HTTP."""

import asyncio
import logging
import os
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from config.aside import Aside, HangsError
from config.difference import Difference, difference
from config.load import line_at, load
from config.plain import plain
from config.problems import SHOWN_PROBLEMS, ConfigError, dotted
from config.settings import Settings
from config.watch import Watch, is_gone
from gateway.building.faults import CannotServe
from gateway.building.keys import withdrawn
from gateway.counting.telemetry import Reading

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an edit was not applied, and where in the file that is."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        """Return it as `file:line: key: …`."""
        return f"{self.file}: {self.message}" if self.line is None else f"{self.file}:{self.line}: {self.message}"


class Applies(Protocol):
    """What takes settings into force."""

    def withdraw(self, newest: Settings) -> None:
        """Take from callers at once what these settings give them no more."""
        ...

    async def apply(self, settings: Settings) -> None:
        """Serve what these settings say, or raise and leave all as it is."""
        ...


@dataclass(frozen=True, slots=True)
class _Edit:
    """An edit that is sound by itself: which one it is of those that were read, and when that was (epoch seconds)."""

    number: int
    settings: Settings
    read_at: float


class ConfigFile:
    """The file as it was last read, and what became of it. `seen` is the digest of what the settings are from."""

    def __init__(self, path: Path, settings: Settings, seen: str | None) -> None:
        self._path = path
        self._seen = seen
        self._settings = self._newest = settings
        self._loaded_at = time.time()
        self._generation = 1
        self._read = 0
        self._applying_since: float | None = None
        self._waiting: _Edit | None = None
        self._came = asyncio.Event()
        self._faults: tuple[Fault, ...] = ()
        self._faulty = 0  # the edit that the faults are of
        self._refused = 0

    def state(self) -> dict[str, Any]:
        """Tell which settings are in force, what is on its way, and what is wrong with the last edit."""
        gone = withdrawn(self._settings.server, self._newest.server)
        return {
            "generation": self._generation,
            "loaded_at": self._loaded_at,
            "file": os.fspath(self._path.absolute()),
            "faults": [
                {"file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message}
                for fault in self._faults
            ],
            "applying_since": self._applying_since,
            "waiting_since": self._waiting and self._waiting.read_at,
            "refused_keys": gone.refused,
            "narrowed_keys": gone.narrowed,
            "settings": plain(self._settings),
        }

    def readings(self) -> Iterable[Reading]:
        """Read how the edits went."""
        yield Reading("warmgate_config_generation", "Edits in force since the start.", (), (), self._generation)
        yield Reading(
            "warmgate_config_in_force", "1 where the file is in force as it stands.", (), (), not self._faults
        )
        yield Reading(
            "warmgate_config_refused", "Edits that could not be applied.", (), (), self._refused, counter=True
        )

    async def follow(self, gateway: Applies) -> None:
        """Read the edits, and apply them one after the other, for as long as the gateway runs."""
        watch = Watch(self._path, self._seen)
        with closing(Aside()) as aside:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._apply_all(gateway, aside), name="config edits")
                async for found in watch.changes():
                    self._read += 1
                    try:
                        self._take(gateway, await aside.call(load, self._path, os.environ))
                    except HangsError as error:
                        self._refuse([self._fault(f"cannot be read: {error}")], self._read)
                        if not is_gone(found):
                            watch.forget()
                    except Exception as error:  # noqa: BLE001 - the next edit may be the one that mends it
                        self._refuse(await self._faults_of(error, aside), self._read)

    def _take(self, gateway: Applies, settings: Settings) -> None:
        """Take from callers what the edit takes, and let the rest wait for its turn in place of one that waits."""
        gateway.withdraw(settings)
        self._newest = settings
        if gone := withdrawn(self._settings.server, settings.server):
            _log.info("%s, from now on, whatever becomes of the rest of the edit", gone)
        self._waiting = _Edit(self._read, settings, time.time())
        self._came.set()

    async def _apply_all(self, gateway: Applies, aside: Aside) -> None:
        while await self._came.wait():
            self._came.clear()
            edit, self._waiting, self._applying_since = self._waiting, None, time.time()
            assert edit is not None, "it came"
            try:
                changes = difference(self._settings, edit.settings)
                await gateway.apply(edit.settings)
            except Exception as error:  # noqa: BLE001 - the next edit may be the one that mends it
                self._refuse(await self._faults_of(error, aside), edit.number)
            else:
                self._in_force(edit, changes)
            finally:
                self._applying_since = None

    def _in_force(self, edit: _Edit, changes: Difference) -> None:
        mended = bool(self._faults) and self._faulty <= edit.number
        if mended:
            self._faults = ()
        self._settings, self._loaded_at = edit.settings, time.time()
        self._generation += 1
        for change in changes:
            _log.info("%s", change)
        if mended:
            _log.info("%s is sound again: what it says is in force", self._path)

    async def _faults_of(self, error: Exception, aside: Aside) -> list[Fault]:
        """Return why an edit is not applied."""
        if isinstance(error, ConfigError):
            return [Fault(error.source, problem.line, problem.key, str(problem)) for problem in error.problems]
        if isinstance(error, CannotServe):
            try:
                return [await aside.call(fault_of, self._path, error)]
            except HangsError:
                key = dotted(error.key)
                return [self._fault(f"{key}: {error}", key)]
        _log.error("an edit could not be applied", exc_info=error)
        return [self._fault(f"an internal error: {error!r}")]

    def _fault(self, message: str, key: str = "") -> Fault:
        """Return a fault that stands at no line."""
        return Fault(os.fspath(self._path), None, key, message)

    def _refuse(self, faults: list[Fault], number: int) -> None:
        hidden = len(faults) - SHOWN_PROBLEMS
        if hidden > 0:
            faults = [*faults[:SHOWN_PROBLEMS], Fault(faults[0].file, None, "", f"and {hidden} more")]
        if number >= self._faulty:  # a newer edit may have been refused before this one was tried
            self._faults, self._faulty = tuple(faults), number
        self._refused += 1
        gone = withdrawn(self._settings.server, self._newest.server)
        for fault in faults:
            _log.error("%s; what was in force before stays%s", fault, f", but for {gone}" if gone else "")


def fault_of(path: Path, error: CannotServe) -> Fault:
    """Return the fault of a file whose settings cannot be served. Reads the file, so it blocks."""
    key = dotted(error.key)
    return Fault(os.fspath(path), line_at(path, error.key), key, f"{key}: {error}")
