"""Follows the config file: a sound edit is applied, a bad one is told of and changes nothing. Knows no HTTP."""

import logging
import os
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from config.aside import Aside, HangsError
from config.difference import difference
from config.load import line_at, load
from config.plain import plain
from config.problems import SHOWN_PROBLEMS, ConfigError, dotted
from config.settings import Settings
from config.watch import Watch, is_gone
from gateway.building.faults import CannotServe
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

    async def apply(self, settings: Settings) -> None:
        """Serve what these settings say, or raise and leave all as it is."""
        ...


class ConfigFile:
    """The file as it was last read, and what became of it. `seen` is the digest of what the settings are from."""

    def __init__(self, path: Path, settings: Settings, seen: str | None) -> None:
        self._path = path
        self._seen = seen
        self._settings = settings
        self._loaded_at = time.time()
        self._generation = 1
        self._faults: tuple[Fault, ...] = ()
        self._refused = 0

    def state(self) -> dict[str, Any]:
        """Tell which settings are in force, and what is wrong with the last edit where it is not."""
        return {
            "generation": self._generation,
            "loaded_at": self._loaded_at,
            "file": os.fspath(self._path.absolute()),
            "faults": [
                {"file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message}
                for fault in self._faults
            ],
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
        """Apply the edits one after the other, for as long as the gateway runs."""
        watch = Watch(self._path, self._seen)
        with closing(Aside()) as aside:
            async for found in watch.changes():
                try:
                    await self._edit(gateway, aside)
                except HangsError as error:
                    self._refuse([Fault(os.fspath(self._path), None, "", f"cannot be read: {error}")])
                    if not is_gone(found):
                        watch.forget()

    async def _edit(self, gateway: Applies, aside: Aside) -> None:
        try:
            settings = await aside.call(load, self._path, os.environ)
            changes = difference(self._settings, settings)
            await gateway.apply(settings)
        except ConfigError as error:
            problems = error.problems
            self._refuse([Fault(error.source, problem.line, problem.key, str(problem)) for problem in problems])
        except CannotServe as error:
            self._refuse([await aside.call(fault_of, self._path, error)])
        except HangsError:
            raise
        except Exception as error:  # noqa: BLE001 - as the comment says
            # Whoever follows the file must go on: the next edit may be the one that mends it.
            _log.exception("an edit could not be applied")
            self._refuse([Fault(os.fspath(self._path), None, "", f"an internal error: {error!r}")])
        else:
            mended = bool(self._faults)
            self._settings, self._loaded_at, self._faults = settings, time.time(), ()
            self._generation += 1
            for change in changes:
                _log.info("%s", change)
            if mended:
                _log.info("%s is sound again: what it says is in force", self._path)

    def _refuse(self, faults: list[Fault]) -> None:
        hidden = len(faults) - SHOWN_PROBLEMS
        if hidden > 0:
            faults = [*faults[:SHOWN_PROBLEMS], Fault(faults[0].file, None, "", f"and {hidden} more")]
        self._faults = tuple(faults)
        self._refused += 1
        for fault in faults:
            _log.error("%s; what was in force before stays", fault)


def fault_of(path: Path, error: CannotServe) -> Fault:
    """Return the fault of a file whose settings cannot be served. Reads the file, so it blocks."""
    key = dotted(error.key)
    return Fault(os.fspath(path), line_at(path, error.key), key, f"{key}: {error}")
