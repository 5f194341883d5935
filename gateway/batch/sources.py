"""Where the inputs of a batch come from: the request itself, or the files that it refers to. Knows no queue."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from gateway.batch import files, lines, objects
from gateway.batch.contract import BatchPolicy
from gateway.batch.outbound import Outbound, Unreachable
from gateway.errors import InvalidRequest
from gateway.fields import cut, refuse

_LIMIT_S = 300.0
_MAX_REFERENCES = 100
_REFERENCE = ("file://", "https://", "s3://")
# Texts that a model is to read may well be addresses of the web; nobody means these as texts.
_NEVER_TEXT = ("file://", "s3://")
_WANTED = "a non-empty list, or the file://, https:// or s3:// URL of a file"


class Sources:
    """Reads inputs one by one, never a whole file at once."""

    def __init__(self, outbound: Outbound, policy: Callable[[], BatchPolicy]) -> None:
        self._outbound = outbound
        self._policy = policy

    async def read(self, inputs: object) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield each input and where it stands. Raises `InvalidRequest`."""
        if not inputs or not isinstance(inputs, str | list):
            raise refuse("inputs", inputs, _WANTED)
        references = _references(inputs)
        if not references:
            for place, value in enumerate(inputs):
                yield f"inputs[{place}]", value
            return
        try:
            async with asyncio.timeout(_LIMIT_S):
                for at, reference in references:
                    async with aclosing(self._lines(reference)) as values:
                        async for where, value in values:
                            yield at + where, value
        except TimeoutError:
            raise InvalidRequest(f"the inputs could not be read within {_LIMIT_S:g} s", "inputs") from None
        except Unreachable as error:
            raise InvalidRequest(str(error), "inputs") from error

    async def _lines(self, reference: str) -> AsyncGenerator[tuple[str, Any], None]:
        policy = self._policy()
        async with (
            aclosing(self._pieces(reference, policy)) as pieces,
            aclosing(lines.values(pieces, policy.max_bytes)) as values,
        ):
            async for found in values:
                yield found

    def _pieces(self, reference: str, policy: BatchPolicy) -> AsyncGenerator[bytes, None]:
        match reference.partition("://")[0]:
            case "file":
                return _threaded(files.pieces(reference, policy.file_roots, policy.max_bytes))
            case "https":
                return self._outbound.get(reference, policy.max_bytes, _LIMIT_S)
            case "s3":
                return _threaded(objects.pieces(reference, policy.s3_buckets, policy.s3_endpoint, policy.max_bytes))
        raise refuse("inputs", reference, _WANTED)


def _references(inputs: str | list[Any]) -> list[tuple[str, str]]:
    """Return what refers to files, and what to say before a line of each; none where the list holds the inputs."""
    if isinstance(inputs, str):
        return [("", inputs)]
    others = [place for place, value in enumerate(inputs) if not _begins(value, _REFERENCE)]
    if not others:
        if len(inputs) > _MAX_REFERENCES:
            raise InvalidRequest(f"a batch may refer to up to {_MAX_REFERENCES} files, got {len(inputs)}", "inputs")
        return [(f"inputs[{place}], ", reference) for place, reference in enumerate(inputs)]
    for place, value in enumerate(inputs):
        if _begins(value, _NEVER_TEXT):
            raise InvalidRequest(
                f"'inputs[{place}]' refers to a file, '{cut(value)}', and 'inputs[{others[0]}]' does not:"
                " 'inputs' is a list of references alone, or of inputs alone",
                f"inputs[{place}]",
            )
    return []


def _begins(value: object, starts: tuple[str, ...]) -> bool:
    return isinstance(value, str) and value.startswith(starts)


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Take each piece in a thread, where it may be waited for."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
