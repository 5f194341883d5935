"""Draws the next token from logits. Knows nothing of sequences; its only state is the random generator passed in."""

import numpy as np
from numpy.random import default_rng
from numpy.typing import NDArray

from backends.contract import BadJob, Sampling


class Sampler:
    """Draws one sequence's tokens; greedy unless a temperature above 0 was asked for.

    Each sequence has a generator of its own, so that its draws depend on its seed and on none of its batch mates.
    """

    def __init__(self, sampling: Sampling) -> None:
        """Seed the generator. Raises BadJob for values that no distribution has."""
        temperature, top_p, seed = sampling.temperature or 0.0, sampling.top_p, sampling.seed
        if temperature < 0:
            raise BadJob(f"temperature is {temperature:g}; it must be 0 or more", "temperature")
        if top_p is not None and not 0 < top_p <= 1:
            raise BadJob(f"top_p is {top_p:g}; it must be above 0 and at most 1", "top_p")
        self._temperature = temperature
        self._top_p = top_p if top_p is not None else 1.0
        self._random = default_rng(None if seed is None else seed % 2**64)

    def draw(self, logits: NDArray[np.float32]) -> int:
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
