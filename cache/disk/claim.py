"""Claims a directory for one process: of two, neither would know what the other purges. Knows no database."""

import fcntl
import os
from pathlib import Path


class Claim:
    """A directory that nobody else can claim until it is released, or this process has ended."""

    def __init__(self, directory: Path) -> None:
        """Raise `BlockingIOError` where it is claimed already, and another `OSError` where the disk fails."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: int | None = os.open(directory / "claimed", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.release()
            raise

    def release(self) -> None:
        """Let others claim it; a second time does nothing."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
