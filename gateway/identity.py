"""Digests that say when two requests are the same, or the same but for their last user text. Knows no store."""

import dataclasses
import hashlib
from collections.abc import Sequence

import orjson

from gateway.request import Request

_SEPARATOR = b"\x00"
_ANY_TEXT = "\x00any text"

PARTITION_EPOCH = "1"
"""A release whose rules of what may match differ in more than strictness raises it: older entries match no more."""


def fingerprint(request: Request) -> bytes:
    """Digest all that an answer depends on: SHA-256 of JSON with sorted keys, so that their order does not matter.

    What we know of a request is no neighbour of the client's own fields, which may have any name.
    """
    asked = [request.job.task, request.beside, request.fields]
    return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest()


def compatibility(request: Request) -> bytes:
    """Digest a chat request with its last user text blanked: only requests equal in this may match by meaning."""
    messages = request.fields["messages"]
    assert isinstance(messages, Sequence)
    blanked = [*messages[:-1], {**messages[-1], "content": _ANY_TEXT}]
    return fingerprint(dataclasses.replace(request, fields={**request.fields, "messages": blanked}))


def scoped(digest: bytes, *parts: str) -> bytes:
    """Bind a digest to a tenant, a model version or whatever else must part two caches: a 32-byte key."""
    return hashlib.sha256(_SEPARATOR.join([digest, *[part.encode() for part in parts]])).digest()
