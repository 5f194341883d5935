"""Follows the certificate files that are in use: a renewed certificate counts without an edit. Knows no server."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from config.settings import TlsSettings
from config.watch import GONE, Watch, digest_at
from gateway import tls

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


async def seen(files: TlsSettings) -> str | None:
    """Return the digest of both files as they are now; taken before they are loaded it lets no renewal slip through."""
    digests = [await asyncio.to_thread(digest_at, file) for file in (files.certificate, files.key)]
    return None if None in digests else " ".join(map(str, digests))


async def follow(files: TlsSettings, before: str | None, renewed: Callable[[tls.Loaded], None]) -> None:
    """Give each new pair of certificate and key to `renewed`; one that cannot be used is told of. Never ends."""

    async def look(_: Path) -> str | None:
        return await seen(files)

    async for found in Watch(files.certificate, before, look=look, every_s=LOOK_EVERY_S).changes():
        if found == GONE:
            _log.error("%s or %s cannot be read; the certificate that was in use stays", files.certificate, files.key)
            continue
        try:
            loaded = await asyncio.to_thread(tls.load, files.certificate, files.key)
        except tls.TlsFilesError as error:
            _log.error("%s; the certificate that was in use stays", error)
        else:
            renewed(loaded)
            _log.info("%s was renewed; it counts for new connections", files.certificate)
