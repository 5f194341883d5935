"""Reads the regular file at a path, and nothing else that could be there. Knows nothing of what is in it."""

import errno
import os
import stat
from pathlib import Path


def content_at(path: Path, most: int) -> bytes:
    """Return the first `most` bytes of a file. It blocks, but not for what never ends, as a pipe does.

    Raises `OSError`, and `ValueError` for a path with a null character.
    """
    _check(path.stat().st_mode)  # to open a device, or the end of a pipe, may mean something to somebody
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
        _check(os.fstat(file.fileno()).st_mode)
        return file.read(most)


def _check(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file")
