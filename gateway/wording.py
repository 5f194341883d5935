"""An answer in the very bytes that its upstream sent, and how a cache keeps them. Knows no wire's events, no store.

Told again, they are the same bytes but for one thing: a reply has an id of its own, so where the upstream's stood there
stands another. An id counts as the reply's where it is the member `id` of the body, of a stream's event, or of the
`message` in one, as OpenAI's and Anthropic's wires have it; other ids (of tool calls) stay.
"""

import re
import zlib
from collections.abc import Iterator
from typing import Any

import orjson

from backends.value import value

# Stands for the reply's id. JSON never has this byte, and what has it otherwise is not kept.
_MARK = b"\x00"
_LEVEL = 1
# How far deflate looks back.
_WINDOW_BYTES = 2**15
_DATA = b"data:"
_NAME = b'"id"'


@value
class Wording:
    """Bytes as they came."""

    data: bytes

    def told(self, own_id: str) -> bytes:
        """Return the bytes; the reply is the upstream's own, and so is its id."""
        del own_id
        return self.data


@value
class KeptWording:
    """Bytes that were kept: deflated, with what the answer's events were packed to as the dictionary.

    What was said is in those already, so it is kept once.
    """

    deflated: bytes
    dictionary: bytes

    def told(self, own_id: str) -> bytes | None:
        """Return the bytes with this id in the place of the upstream's; None where they are spoilt."""
        inflater = zlib.decompressobj(zdict=self.dictionary[-_WINDOW_BYTES:])
        try:
            marked = inflater.decompress(self.deflated) + inflater.flush()
        except zlib.error:
            return None
        return marked.replace(_MARK, own_id.encode()) if inflater.eof else None


def kept(data: bytes, dictionary: bytes) -> KeptWording | None:
    """Return bytes as they are to be kept; None where it is not clear what in them is the reply's id."""
    marked = _marked(data)
    if marked is None:
        return None
    deflater = zlib.compressobj(_LEVEL, zdict=dictionary[-_WINDOW_BYTES:])
    return KeptWording(deflater.compress(marked) + deflater.flush(), dictionary)


def _marked(data: bytes) -> bytes | None:
    """Return the bytes with a mark for each place of the reply's id."""
    if _MARK in data:
        return None
    members: set[bytes] = set()
    for payload in _payloads(data):
        if _NAME not in payload or any(member in payload for member in members):
            continue
        for own in _ids(payload):
            if not isinstance(own, str):
                return None
            pattern = rb'("id"\s*+:\s*+")' + re.escape(own.encode()) + b'"'
            data, count = re.subn(pattern, rb'\1\x00"', data)
            found = re.search(pattern, payload)
            if not count or found is None:
                return None
            members.add(found[0])
    return data


def _payloads(data: bytes) -> Iterator[bytes]:
    """Yield the one body, or the data of each event of a stream."""
    if data.lstrip()[:1] == b"{":
        yield data
        return
    for line in re.split(rb"[\r\n]+", data):
        if line.startswith(_DATA):
            yield line.removeprefix(_DATA)


def _ids(payload: bytes) -> Iterator[object]:
    """Yield the ids of the reply that a payload has; an empty one is none."""
    try:
        said: Any = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return
    if not isinstance(said, dict):
        return
    for part in (said, said.get("message")):
        if isinstance(part, dict) and part.get("id"):
            yield part["id"]
