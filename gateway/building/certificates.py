"""Follows the certificate files that are in use: a renewed certificate counts without an edit. Knows no server."""

import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from config.aside import Aside, HangsError
from config.settings import TlsSettings
from config.watch import Watch, digest_at, is_gone, look_aside
from gateway.building import tls

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0


async def seen(files: TlsSettings) -> str:
    """Return the digest of both files as they are now; taken before they are loaded it lets no renewal slip through."""
    with closing(Aside()) as aside:
        return await look_aside(aside, _digest, files)


def _digest(files: TlsSettings) -> str:
    digests = [digest_at(file) for file in (files.certificate, files.key)]
    return next(filter(is_gone, digests), " ".join(digests))


async def follow(files: TlsSettings, before: str | None, renewed: Callable[[tls.Loaded], None]) -> None:
    """Give each new pair of certificate and key to `renewed`; one that cannot be used is told of. Never ends."""
    with closing(Aside()) as aside:

        async def look(_: Path) -> str:
            return await look_aside(aside, _digest, files)

        watch = Watch(files.certificate, before, look=look, every_s=LOOK_EVERY_S)
        async for found in watch.changes():
            if is_gone(found):
                _log.error(
                    "%s or %s cannot be read; the certificate that was in use stays", files.certificate, files.key
                )
                continue
            try:
                loaded = await aside.call(tls.load, files.certificate, files.key)
            except HangsError as error:
                _log.error("%s cannot be read: %s; the certificate that was in use stays", files.certificate, error)
                watch.forget()
            except tls.TlsFilesError as error:
                _log.error("%s; the certificate that was in use stays", error)
            else:
                renewed(loaded)
                _log.info("%s was renewed; it counts for new connections", files.certificate)
