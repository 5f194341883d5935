"""How long a batch pauses, and how long it will take. Pure."""

from collections.abc import Sequence

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 60.0
_LONGEST_ASKED_S = 300.0
# What one measurement of an item's seconds counts for.
_WEIGHT = 0.1


def pause_s(pauses: int, asked_s: float | None, chance: float) -> float:
    """Return how long a batch pauses after the model had no room `pauses` times in a row; `chance` in [0, 1) jitters.

    Doubles from half a second to a minute, and is no less than what the model asked for, up to some minutes: it may
    have room long before.
    """
    doubled: float = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(pauses, 10))
    return max(min(asked_s or 0.0, _LONGEST_ASKED_S), doubled) * (1 + chance / 4)


def smoothed(former: float | None, measured: float) -> float:
    """Return the seconds that an item of a model takes, after one more was measured."""
    return measured if former is None else former + _WEIGHT * (measured - former)


def estimate_s(
    left: int, item_s: float | None, others: Sequence[tuple[int, float | None]], concurrency: int
) -> float | None:
    """Return the seconds until a batch with so many items left is complete; None where nothing was measured yet.

    `others` are the items left of each other batch, and their seconds. Batches take turns, so of a larger one only as
    many items come before ours as we have.
    """
    if item_s is None:
        return None
    before = sum(min(count, left) * (other_s or item_s) for count, other_s in others)
    return (left * item_s + before) / concurrency
