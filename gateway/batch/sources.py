"""Where the inputs of a batch come from: the request itself, or the one file that it refers to. Knows no queue."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from gateway.batch import files, lines, objects
from gateway.batch.contract import BatchPolicy
from gateway.batch.outbound import Outbound, Unreachable
from gateway.errors import InvalidRequest
from gateway.fields import refuse

_LIMIT_S = 300.0


class Sources:
    """Reads inputs one by one, never a whole file at once."""

    def __init__(self, outbound: Outbound, policy: Callable[[], BatchPolicy]) -> None:
        self._outbound = outbound
        self._policy = policy

    async def read(self, inputs: object) -> AsyncGenerator[tuple[str, Any], None]:
        """Yield each input and where it stands. Raises `InvalidRequest`."""
        if isinstance(inputs, list) and inputs:
            for place, value in enumerate(inputs):
                yield f"inputs[{place}]", value
            return
        if not isinstance(inputs, str):
            raise refuse("inputs", inputs, "a non-empty list, or the file://, https:// or s3:// URL of a file")
        policy = self._policy()
        try:
            async with (
                asyncio.timeout(_LIMIT_S),
                aclosing(self._pieces(inputs, policy)) as pieces,
                aclosing(lines.values(pieces, policy.max_bytes)) as values,
            ):
                async for found in values:
                    yield found
        except TimeoutError:
            raise InvalidRequest(f"the inputs could not be read within {_LIMIT_S:g} s", "inputs") from None
        except Unreachable as error:
            raise InvalidRequest(str(error), "inputs") from error

    def _pieces(self, reference: str, policy: BatchPolicy) -> AsyncGenerator[bytes, None]:
        match reference.partition("://")[0]:
            case "file":
                return _threaded(files.pieces(reference, policy.file_roots, policy.max_bytes))
            case "https":
                return self._outbound.get(reference, policy.max_bytes, _LIMIT_S)
            case "s3":
                return _threaded(objects.pieces(reference, policy.s3_buckets, policy.s3_endpoint, policy.max_bytes))
        raise refuse("inputs", reference, "a non-empty list, or the file://, https:// or s3:// URL of a file")


async def _threaded(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Take each piece in a thread, where it may be waited for."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
