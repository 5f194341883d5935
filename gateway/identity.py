"""Digests that say when two requests are the same, or the same but for their last user text. Knows no store."""

import hashlib
from collections.abc import Mapping, Sequence

import orjson

from gateway.request import Request

_SEPARATOR = b"\x00"
_ANY_TEXT = "\x00any text"


def fingerprint(fields: Mapping[str, object]) -> bytes:
    """Digest a request's fields: SHA-256 of JSON with sorted keys, so that their order does not matter."""
    return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).digest()


def compatibility(request: Request) -> bytes:
    """Digest a chat request with its last user text blanked: only requests equal in this may match by meaning."""
    messages = request.fields["messages"]
    assert isinstance(messages, Sequence)
    blanked = [*messages[:-1], {**messages[-1], "content": _ANY_TEXT}]
    return fingerprint({**request.fields, "messages": blanked})


def scoped(digest: bytes, *parts: str) -> bytes:
    """Bind a digest to a tenant, a model version or whatever else must part two caches: a 32-byte key."""
    return hashlib.sha256(_SEPARATOR.join([digest, *[part.encode() for part in parts]])).digest()
