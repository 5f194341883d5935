"""Tells when the content of a file has changed and holds still. Knows nothing of what is in it.

It looks at the file a few times a second in place of asking the kernel for events: those miss what happens behind a
symlink and on mounts of other machines, which is how a config reaches a container.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from config.load import MAX_FILE_BYTES

LOOK_EVERY_S = 0.25
# A file may be missing while an editor puts another in its place; one that stays away so long is gone.
GONE_AFTER_S = 2.0

GONE = "gone"


def digest_of(content: bytes) -> str:
    """Return what tells one content of a file from another."""
    return sha256(content).hexdigest()


def digest_at(path: Path) -> str | None:
    """Return the digest of what is at the path now, or None where nothing can be read. Blocks.

    Taken before the file is loaded, and given to a `Watch` as `seen`, it lets no edit slip through in between.
    """
    try:
        with path.open("rb") as file:
            return digest_of(file.read(MAX_FILE_BYTES + 1))
    except (OSError, ValueError):  # a path with a null character is a ValueError
        return None


class Watch:
    """Looks at one file by its path: through symlinks, and whatever was renamed to it.

    `seen` is the digest of the content that the owner has, or None for what is there at the first look. `look`
    returns the digest of what is there now, or None where nothing can be read.
    """

    def __init__(
        self,
        path: Path,
        seen: str | None = None,
        *,
        look: Callable[[Path], Awaitable[str | None]] | None = None,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._path = path
        self._seen = seen
        self._look = look or _look
        self._every_s = every_s

    async def changes(self) -> AsyncGenerator[str]:
        """Yield the digest of each new content once two looks have found the same, or `GONE`. Never ends."""
        before = self._seen
        missing_s = 0.0
        while True:
            found = await self._look(self._path)
            missing_s = 0.0 if found is not None else missing_s + self._every_s
            if missing_s >= GONE_AFTER_S:
                found = GONE
            if self._seen is None:
                self._seen = found
            elif found is not None and found != self._seen and found in (before, GONE):
                self._seen = found
                yield found
            before = found
            await asyncio.sleep(self._every_s)


async def _look(path: Path) -> str | None:
    return await asyncio.to_thread(digest_at, path)
