"""Remembers what a verifier told of pairs of questions, so that a repeat costs no run. Knows no model.

A pair's confidence depends on its texts alone. Whether an answer may be served depends on more, which may change: that
is decided anew each time, so a repeat is counted, audited and refused like any other hit.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

from cache.contract import Meaning
from cache.semantic.contract import Verifier

# With their keys some 5 MB.
_MOST_PAIRS = 32_768
_DIGEST_BYTES = 16


class RememberedPairs:
    """A verifier over another one, which is asked of each pair once, as long as the pair is among the last."""

    def __init__(self, verifier: Verifier, *, most: int = _MOST_PAIRS) -> None:
        self._verifier = verifier
        self._most = most
        self._told: OrderedDict[bytes, float] = OrderedDict()

    @property
    def version(self) -> str:
        """What exactly judges."""
        return self._verifier.version

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Return a confidence for each stored meaning. Raises `VerifierError`; then nothing is remembered."""
        keys = [_key(asked, meaning) for meaning in stored]
        known = [self._told.get(key) for key in keys]
        missing = [place for place, confidence in enumerate(known) if confidence is None]
        if missing:
            told = await self._verifier.verify(asked, [stored[place] for place in missing])
            for place, confidence in zip(missing, told, strict=True):
                known[place] = confidence
        found = [confidence for confidence in known if confidence is not None]
        self._remember(keys, found)
        return found

    def _remember(self, keys: Sequence[bytes], confidences: Sequence[float]) -> None:
        for key, confidence in zip(keys, confidences, strict=True):
            self._told[key] = confidence
            self._told.move_to_end(key)
        while len(self._told) > self._most:
            self._told.popitem(last=False)


def _key(asked: Meaning, stored: Meaning) -> bytes:
    """Name a pair: the partition tells of the embedder, and a text may come without what a verifier compares."""
    sizes = f"{len(asked.tokens)} {len(stored.tokens)} {len(asked.text)} "
    pair = (sizes + asked.text + stored.text).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(pair, digest_size=_DIGEST_BYTES, key=asked.partition[:64]).digest()
