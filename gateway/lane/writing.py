"""One writing for the bodies that say the same in other bytes: other spacing, other order, another end user. Pure.

It knows of a request no more than that. What cannot be told at a glance is left for the surface to read.
"""

import orjson

from gateway.lane.asked import PATH

# To read a longer body twice, where its writing is not known, costs more than it may gain.
_MAX_BYTES = 16 * 2**10
# A float that is written so may have been a whole number of more digits than are read.
_EXPONENT = b"e+"
_MARK = b"\x00"
_ASIDE = frozenset({"user", "metadata"})
_BACKSLASH = b"\\\\"
_QUOTE, _ESCAPED_QUOTE = b'"', b'\\"'


def written(path: str, body: bytes) -> bytes | None:
    """Return a body in the writing of all that say the same on this path; None where that is not seen at a glance.

    No body is such a writing itself, which begins with a mark. What follows is JSON with its names in order, and for
    OpenAI's chats without `user` and `metadata`: they are no part of any answer or key. A body that names something
    twice has no writing (RFC 8259 §4 leaves open what it means).
    """
    try:
        fields = orjson.loads(body) if len(body) <= _MAX_BYTES else None
        whole = orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # no JSON, or nested deeper than it can be written
        return None
    if type(fields) is not dict:
        return None
    # Every name and text has its two quotes in either writing; one that is named twice was read once.
    if _BACKSLASH in body or _BACKSLASH in whole or _EXPONENT in whole or _quotes(body) != _quotes(whole):
        return None
    if path != PATH or _ASIDE.isdisjoint(fields):
        return _MARK + whole
    user, metadata = fields.pop("user", None), fields.pop("metadata", None)
    if not isinstance(user, str | None) or not isinstance(metadata, dict | None):
        return None
    return _MARK + orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def _quotes(written: bytes) -> int:
    return written.count(_QUOTE) - written.count(_ESCAPED_QUOTE)
