"""Why settings cannot be served, and which key of the file is to blame. Knows no file."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from backends.contract import StartFailed
from gateway.building.tls import TlsFilesError


class CannotServe(Exception):
    """Settings that are sound by themselves ask for what cannot be had here; `key` is the path of what asks for it."""

    def __init__(self, key: tuple[str, ...], message: str) -> None:
        super().__init__(message)
        self.key = key


@contextmanager
def blamed_on(*key: str, trouble: str = "") -> Iterator[None]:
    """Tell of what goes wrong here as `CannotServe`; `trouble` stands before what the system says."""
    try:
        yield
    except (StartFailed, TlsFilesError) as error:
        raise CannotServe(key, str(error)) from error
    except OSError as error:
        # A resolver's errors have numbers below 0, and some libraries give their words in place of one.
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise CannotServe(key, f"{trouble}: {why}" if trouble and error.errno else why) from error
