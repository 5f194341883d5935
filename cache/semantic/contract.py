"""What the semantic cache needs of others: who judges a pair of texts, and who takes the answer. Knows no models."""

from collections.abc import Callable
from typing import Literal, Protocol

from cache.contract import Entry, Meaning

Objection = Literal["request", "gone"]
"""Why an entry is not to be served whatever it means: whoever asks does not take it, or it is of no use any more."""

Objects = Callable[[Entry], Objection | None]
"""Tells what speaks against serving an entry to who asks; never waits."""


class Verifier(Protocol):
    """Tells how likely it is that one answer serves two questions, where no guard has vetoed."""

    @property
    def version(self) -> str:
        """What exactly judges: confidences of two versions are not compared."""
        ...

    async def verify(self, asked: Meaning, stored: list[Meaning]) -> list[float]:
        """Return a confidence in [0, 1] for each stored meaning; raise `VerifierError` where none can be told."""
        ...


class VerifierError(Exception):
    """No confidence can be told now; the candidates are not served."""
