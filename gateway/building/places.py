"""Looks for the programs and the places to write to that settings name. Knows no engine, and starts nothing."""

import os
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

from config.settings import CommandSettings, Settings

Lack = tuple[tuple[str, ...], str]


def lacks(settings: Settings) -> Iterator[Lack]:
    """Yield what this machine lacks for a part of the settings, each with its key; the rest is served. Blocks."""
    log = settings.server.access_log
    if log is not None and (why := _unwritable_file(log)) is not None:
        yield ("server", "access_log"), f"{why}: requests are not written down"
    if settings.cache is not None and (why := unwritable(settings.cache.directory)) is not None:
        yield ("cache", "directory"), f"{why}: what is cached or learned does not outlive a restart"
    for name, model in settings.models.items():
        if model.command is not None and (why := _no_program(model.command)) is not None:
            yield ("models", name, "command", "run"), f"{why}: no replica can start"


def unwritable(directory: Path) -> str | None:
    """Return why no files can be made in a directory, which is made itself where it is not there; None where they can.

    It is said for the first part of the path that is there, by which it stands or falls.
    """
    whole = directory.absolute()
    for place in (whole, *whole.parents):
        if os.path.lexists(place):
            if not place.is_dir():
                return f"{place} is not a directory"
            return None if os.access(place, os.W_OK | os.X_OK) else f"{place} may not be written to"
    return None


def _unwritable_file(file: Path) -> str | None:
    if not os.path.lexists(file):
        return unwritable(file.parent)
    if file.is_dir():
        return f"{file.absolute()} is a directory"
    return None if os.access(file, os.W_OK) else f"{file.absolute()} may not be written to"


def _no_program(command: CommandSettings) -> str | None:
    program, own = shlex.split(command.run)[0], command.env.get("PATH")
    if shutil.which(program, path=None if own is None else own.get_secret_value()) is not None:
        return None
    where = f"at {Path(program).absolute()}" if os.sep in program else "on the PATH"
    return f"no program {program!r} is {where}"
