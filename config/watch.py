"""Tells when the content of a file has changed and holds still. Knows nothing of what is in it.

It looks at the file a few times a second in place of asking the kernel for events: those miss what happens behind a
symlink and on mounts of other machines, which is how a config reaches a container.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from config.aside import Aside, HangsError
from config.load import MAX_FILE_BYTES
from config.reading import content_at

LOOK_EVERY_S = 0.25
# A file may be missing while an editor puts another in its place; one that stays away so long is gone.
GONE_AFTER_S = 2.0

_GONE = "gone: "

T = TypeVar("T")


def digest_of(content: bytes) -> str:
    """Return what tells one content of a file from another."""
    return sha256(content).hexdigest()


def gone(why: object) -> str:
    """Return what stands for a digest where nothing can be read."""
    return f"{_GONE}{why}"


def is_gone(found: str) -> bool:
    """Tell whether this stands for a file that cannot be read."""
    return found.startswith(_GONE)


def digest_at(path: Path) -> str:
    """Return the digest of what is at the path now, or what `gone` makes of the reason where that is nothing. Blocks.

    Taken before the file is loaded, and given to a `Watch` as `seen`, it lets no edit slip through in between.
    """
    try:
        return digest_of(content_at(path, MAX_FILE_BYTES + 1))
    except OSError as error:
        return gone(error.strerror)
    except ValueError as error:
        return gone(error)


class Watch:
    """Looks at one file by its path: through symlinks, and whatever was renamed to it.

    `seen` is the digest of the content that the owner has, or None for what is there at the first look. `look`
    returns the digest of what is there now, or what `gone` makes of the reason why nothing can be read.
    """

    def __init__(
        self,
        path: Path,
        seen: str | None = None,
        *,
        look: Callable[[Path], Awaitable[str]] | None = None,
        every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._path = path
        self._seen = seen
        self._look = look
        self._every_s = every_s

    async def changes(self) -> AsyncGenerator[str]:
        """Yield the digest of each new content, or the reason why it stays away, once two looks found the same."""
        with closing(Aside()) as aside:
            before = self._seen
            missing_since: float | None = None
            clock = asyncio.get_running_loop().time
            while True:
                found = await (self._look(self._path) if self._look else look_aside(aside, digest_at, self._path))
                if not is_gone(found):
                    missing_since = None
                elif missing_since is None:
                    missing_since = clock()
                if missing_since is None or clock() - missing_since >= GONE_AFTER_S:
                    if self._seen is None:
                        self._seen = found
                    elif found == before != self._seen:
                        self._seen = found
                        yield found
                before = found
                await asyncio.sleep(self._every_s)

    def forget(self) -> None:
        """Tell what is there once more, for an owner that could not read it."""
        self._seen = gone("")


async def look_aside(aside: Aside, look: Callable[[T], str], where: T) -> str:
    """Look where that may hang, which is one more reason why nothing can be read."""
    try:
        return await aside.call(look, where)
    except HangsError as error:
        return gone(error)
