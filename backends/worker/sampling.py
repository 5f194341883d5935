"""Draws the next token from logits. Knows one sequence's draws so far, and nothing of its text."""

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from backends.contract import BadJob, Sampling
from backends.wishes import Wishes

Logits = NDArray[np.float32]


class Sampler:
    """Draws one sequence's tokens; greedy unless a temperature above 0 was asked for.

    Each sequence has a generator of its own, so that its draws depend on its seed and on none of its batch mates.
    """

    def __init__(self, sampling: Sampling, index: int = 0) -> None:
        """Seed the generator of choice `index`. Raises BadJob for values that no distribution has."""
        temperature, top_p, seed = sampling.temperature or 0.0, sampling.top_p, sampling.seed
        if temperature < 0:
            raise BadJob(f"temperature is {temperature:g}; it must be 0 or more", "temperature")
        if top_p is not None and not 0 < top_p <= 1:
            raise BadJob(f"top_p is {top_p:g}; it must be above 0 and at most 1", "top_p")
        self._temperature = temperature
        self._top_p = top_p if top_p is not None else 1.0
        self._random = default_rng(None if seed is None else (seed + index) % 2**64)

    def draw(self, logits: Logits) -> int:
        """Return the next token, given logits of shape (V,)."""
        if self._temperature == 0:
            return int(logits.argmax())
        scaled = (logits.astype(np.float64) - logits.max()) / self._temperature
        likely = np.argsort(-scaled, kind="stable")
        cumulative = np.cumsum(np.exp(scaled[likely]))
        nucleus = int(np.searchsorted(cumulative, self._top_p * cumulative[-1])) + 1
        nucleus = min(nucleus, len(likely))
        place = int(
            np.searchsorted(cumulative[:nucleus], self._random.random() * cumulative[nucleus - 1], side="right")
        )
        return int(likely[min(place, nucleus - 1)])


class Slant:
    """What a client adds to the logits of one sequence: for tokens that it names, and for those that came before."""

    def __init__(self, wishes: Wishes, vocabulary: int) -> None:
        """Raise BadJob for a token that the model does not have."""
        if (odd := next((token for token in wishes.bias if token >= vocabulary), None)) is not None:
            raise BadJob(f"logit_bias has the token {odd}; the model has 0 to {vocabulary - 1}", "logit_bias")
        self._biased = np.array(list(wishes.bias), np.int64)
        self._bias = np.array(list(wishes.bias.values()), np.float32)
        self._frequency, self._presence = wishes.frequency_penalty, wishes.presence_penalty
        self._penalized = bool(self._frequency or self._presence)
        self._counts: dict[int, int] = {}

    def apply(self, logits: Logits) -> Logits:
        """Return logits for the next draw; the same array where nothing is added."""
        if not self._biased.size and not self._counts:
            return logits
        slanted = logits.copy()
        slanted[self._biased] += self._bias
        for token, count in self._counts.items():
            slanted[token] -= count * self._frequency + self._presence
        return slanted

    def drawn(self, token: int) -> None:
        """Count a token that was drawn, where that matters."""
        if self._penalized:
            self._counts[token] = self._counts.get(token, 0) + 1
