"""Log probabilities of drawn tokens, as OpenAI's wire tells them. Knows tokens and their bytes, not how they are drawn.

They are the model's own: before temperature, penalties and what a client adds.
"""

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

# What stands for minus infinity, which JSON has no number for.
LEAST = -9999.0

Entry = dict[str, object]

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenBytes:
    """The bytes that each token adds to a text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added: Mapping[int, Any] = tokenizer.get_added_tokens_decoder()
        decoders = set(_types(json.loads(tokenizer.decoder.__getstate__()))) if tokenizer.decoder else set()
        self._letters = _byte_letters() if "ByteLevel" in decoders else None
        self._fallback = "ByteFallback" in decoders

    def of(self, token: int, before: int | None) -> bytes:
        """Return what `token` adds after the token `before` (None: at the beginning)."""
        if token in self._added:
            return str(self._added[token].content).encode()
        name = self._tokenizer.id_to_token(token) or ""
        if self._letters is not None and all(letter in self._letters for letter in name):
            return bytes(self._letters[letter] for letter in name)
        if self._fallback and (byte := _BYTE_TOKEN.fullmatch(name)):
            return bytes.fromhex(byte[1])
        ahead = [] if before is None else [before]
        joined: str = self._tokenizer.decode([*ahead, token], skip_special_tokens=False)
        return joined.removeprefix(self._tokenizer.decode(ahead, skip_special_tokens=False)).encode()


class Scores:
    """The entries of one sequence's tokens, held until the text that they stand for is shown."""

    def __init__(self, token_bytes: TokenBytes, top: int, before: Sequence[int]) -> None:
        self._bytes = token_bytes
        self._top = top
        self._before = before[-1] if before else None
        self._held: deque[tuple[int, Entry]] = deque()

    def add(self, token: int, logits: NDArray[np.float32], start: int) -> None:
        """Note a token that was drawn from `logits` and whose text begins at character `start`."""
        scaled = logits.astype(np.float64) - logits.max()
        scaled -= np.log(np.exp(scaled).sum())
        likeliest = np.argpartition(-scaled, min(self._top, len(scaled) - 1))[: self._top]
        ranked = sorted(likeliest.tolist(), key=lambda each: (-scaled[each], each))
        entry = self._entry(token, scaled)
        entry["top_logprobs"] = [self._entry(each, scaled) for each in ranked]
        self._held.append((start, entry))
        self._before = token

    def told(self, shown: int | None) -> list[Entry]:
        """Return the entries of tokens at least partly within the first `shown` characters; None asks for the rest."""
        entries = []
        while self._held and (shown is None or self._held[0][0] < shown):
            entries.append(self._held.popleft()[1])
        return entries

    def _entry(self, token: int, scaled: NDArray[np.float64]) -> Entry:
        data = self._bytes.of(token, self._before)
        return {
            "token": data.decode("utf-8", "replace"),
            "logprob": max(float(scaled[token]), LEAST),
            "bytes": list(data),
        }


def _types(decoder: Mapping[str, Any]) -> Iterator[str]:
    yield decoder["type"]
    for part in decoder.get("decoders", ()):
        yield from _types(part)


def _byte_letters() -> Mapping[str, int]:
    """Return the byte of each letter of a byte-level vocabulary: visible ones of Latin-1 stand for themselves."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(others)}
