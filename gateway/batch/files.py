"""Inputs from a file of this machine, under the roots that the operator allows and nowhere else. Needs POSIX.

The path is resolved first, and must then be under a root; it is opened step by step from the root without following
any link, so that nothing exchanged in between leads out of it.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gateway.errors import InvalidRequest
from gateway.fields import cut

_CHUNK_BYTES = 64 * 2**10


def pieces(reference: str, roots: Sequence[Path], max_bytes: int) -> Iterator[bytes]:
    """Yield what is in the file, for a thread of its own. Raises `InvalidRequest`."""
    descriptor = _open(_path(reference), roots)
    if descriptor is None:
        # Whether there is a file that may not be read is nobody's business.
        raise InvalidRequest(f"'{cut(reference)}' is no readable file under 'batch.file_roots'", "inputs")
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if os.fstat(descriptor).st_size > max_bytes:
            raise InvalidRequest(f"the inputs have more than {max_bytes} bytes, which 'batch.max_bytes' is", "inputs")
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _path(reference: str) -> str:
    parts = urlsplit(reference)
    path = unquote(parts.path, errors="surrogateescape")
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not path.startswith("/"):
        raise InvalidRequest(f"'{cut(reference)}' is no 'file:///absolute/path'", "inputs")
    return path


def _open(path: str, roots: Sequence[Path]) -> int | None:
    """Return a descriptor of the file; None where it is none, or under no root."""
    try:
        real = Path(os.path.realpath(path))
        for root in roots:
            real_root = Path(os.path.realpath(root))
            if real.is_relative_to(real_root):
                return _open_below(real_root, real.relative_to(real_root).parts)
    except (OSError, ValueError):  # a path may hold what no system takes
        return None
    return None


def _open_below(root: Path, parts: Sequence[str]) -> int | None:
    careful = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    at = os.open(root, careful | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            below = os.open(part, careful | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        # Without waiting: a pipe that nobody writes to would hold the thread forever.
        descriptor = os.open(parts[-1], careful | os.O_NONBLOCK, dir_fd=at) if parts else -1
    finally:
        os.close(at)
    if descriptor >= 0 and not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return descriptor if descriptor >= 0 else None
