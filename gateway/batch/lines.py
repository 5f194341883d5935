"""Inputs from a file's bytes as they come: JSON lines, or lines of plain text. Knows not where the bytes come from.

The first line that is not blank decides: if it is a JSON string or object then all are JSON. A file that begins as a
JSON list is refused: it would be read as plain text otherwise, which nobody means.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import orjson

from gateway.errors import InvalidRequest

MAX_LINE_BYTES = 2**20
# A list alone on its line, or the first of several lines; "[INST] …" and "[1] …" are texts.
_LIST = re.compile(rb"\[\s*([\[{\"].*)?")
_MARK = b"\xef\xbb\xbf"  # some editors begin a file in UTF-8 with it


async def values(chunks: AsyncIterator[bytes], max_bytes: int) -> AsyncGenerator[tuple[str, Any], None]:
    """Yield (`line 7`, the input that is on it). Raises `InvalidRequest` where the bytes are too many or make no sense.

    No more than a line and a chunk are held.
    """
    reader = _Lines()
    left = max_bytes
    async for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise InvalidRequest(f"the inputs have more than {max_bytes} bytes, which 'batch.max_bytes' is", "inputs")
        for found in reader.feed(chunk):
            yield found
    for found in reader.feed(b"\n"):
        yield found


class _Lines:
    def __init__(self) -> None:
        self._rest = b""
        self._number = 0
        self._as_json: bool | None = None

    def feed(self, chunk: bytes) -> Iterator[tuple[str, Any]]:
        *complete, self._rest = (self._rest + chunk).split(b"\n")
        for line in complete:
            self._number += 1
            self._check_length(line)
            stripped = (line.removeprefix(_MARK) if self._number == 1 else line).strip()
            if stripped:
                yield f"line {self._number}", self._value(stripped)
        self._check_length(self._rest, self._number + 1)

    def _check_length(self, line: bytes, number: int | None = None) -> None:
        if len(line) > MAX_LINE_BYTES:
            self._refuse_list(line[:MAX_LINE_BYTES].removeprefix(_MARK).strip())
            raise InvalidRequest(f"line {number or self._number} has more than {MAX_LINE_BYTES} bytes", "inputs")

    def _refuse_list(self, line: bytes) -> None:
        """Raise where this line, if it is the first, begins a list."""
        if self._as_json is None and _LIST.fullmatch(line):
            raise InvalidRequest(
                "the file holds a JSON list; JSON lines are wanted: each input on a line of its own, and no brackets",
                "inputs",
            )

    def _value(self, line: bytes) -> Any:
        self._refuse_list(line)
        if self._as_json is False:
            return self._text(line)
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            if self._as_json is None:
                self._as_json = False
                return self._text(line)
            raise InvalidRequest(
                f"line {self._number} is not valid JSON, as the first one is: {error}", "inputs"
            ) from error
        if self._as_json is None:
            self._as_json = isinstance(value, str | dict)
        return value if self._as_json else self._text(line)

    def _text(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"line {self._number} is not valid UTF-8: {error.reason}", "inputs") from error
