"""What the pipeline needs of work that other gateways may be doing at this moment. Knows no server and no lease."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol, TypeVar

from cache.contract import Entry

T = TypeVar("T")


class Elsewhere(Protocol):
    """Tells of answers that other gateways are making, and them of those that are made here."""

    @property
    def leads(self) -> bool:
        """Whether to ask at all; where not, nothing is waited for."""
        ...

    async def ask(
        self, key: bytes, keys: Sequence[bytes], fits: Callable[[Entry], bool], within_s: float
    ) -> Entry | None:
        """Return the entry that another gateway leaves under one of `keys`; None where it is to be made here."""
        ...

    def lead(self, key: bytes, make: Callable[[], AsyncIterator[T]]) -> Callable[[], AsyncIterator[T]]:
        """Return the work so that others which wait for it learn of its end."""
        ...
