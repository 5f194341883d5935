"""What the semantic cache needs of others: who judges a pair of texts. Knows no models."""

from typing import Protocol

from cache.contract import Meaning


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
