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
# What is longer takes too long to keep while others wait.
_MOST_BYTES = 2**20
_DATA = b"data:"
_NAME = b'"id"'
_ID = re.compile(rb'"id"\s*+:\s*+(?:"((?:[^"\\]|\\.)*+)"|[^"\s])', re.DOTALL)


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
    if _MARK in data or len(data) > _MOST_BYTES:
        return None
    said = _ID.findall(data)
    own = _own_ids(data, set(said)) if said else set[bytes]()
    if own is None:
        return None
    for each in own:
        usual, count = b'"id":"' + each + b'"', said.count(each)
        if data.count(usual) == count:
            data = data.replace(usual, b'"id":"' + _MARK + b'"')
        else:
            data = re.sub(rb'("id"\s*+:\s*+")' + re.escape(each) + b'"', b"\\1" + _MARK + b'"', data)
    return data


def _own_ids(data: bytes, said: set[bytes]) -> set[bytes] | None:
    """Return which of the ids that are said in the bytes are the reply's; None where one of its is not said plainly."""
    own = set[bytes]()
    for payload in _payloads(data):
        if _NAME not in payload or own.issuperset(_ID.findall(payload)):
            continue
        for each in _ids(payload):
            if not isinstance(each, str) or each.encode() not in said:
                return None
            own.add(each.encode())
        if own == said:  # there is nothing more to find
            break
    return own


def _payloads(data: bytes) -> Iterator[bytes]:
    """Yield the one body, or the data of each event of a stream."""
    if data.lstrip()[:1] == b"{":
        yield data
        return
    for line in data.splitlines():
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
