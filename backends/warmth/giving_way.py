"""Who gives way when a model needs room that others hold. Pure; knows no budget and no clock."""

from collections.abc import Sequence
from dataclasses import dataclass

CLEARLY = 1.3
"""How many times the value of another makes it clear that it is worth more: forecasts are not finer than that."""


@dataclass(frozen=True, slots=True)
class Resident:
    """Who holds room that may be taken: what keeping it is worth (for each byte), and since when it holds it."""

    name: str
    value: float
    since: float


def first_to_go(residents: Sequence[Resident]) -> Resident:
    """Return who gives way first: the least worth if it clearly is, else who came last. Raises `ValueError` for none.

    Where more models are asked for in turn than there is room for, whoever lets the longest unused go has nobody there
    when they are asked for next. Among equals the last comer gives way, so that the others stay and are found.
    """
    least = min(residents, key=lambda r: (r.value, -r.since))
    last = max(residents, key=lambda r: (r.since, -r.value))
    return least if least.value * CLEARLY < last.value else last
