"""All that is known of a namespace, as one plain value that can be written down and read again. Decides nothing."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from cache.trust.sample import LEVELS, Ledger, Sample

Status = Literal["starting", "certified", "exact-only"]
SOURCES = ("audit", "exploration", "feedback")

# One bet for each size of a drift: from a little above what is allowed to one in five.
BETS = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator asks for. `target` is the share of wrong hits, which holds with probability 1 - `delta`.

    Without a target nothing is learned: `start_threshold` decides alone. `share` and `start_share` are how many of the
    served hits are audited: once there is a certificate, and before.
    """

    target: float | None
    start_threshold: float
    share: float = 0.05
    start_share: float = 0.5
    delta: float = 0.05

    @property
    def start(self) -> int:
        """The place of the loosest level that is no looser than the start threshold."""
        return max(place for place, level in enumerate(LEVELS) if level >= min(self.start_threshold, 1.0))


@dataclass(frozen=True, slots=True)
class State:
    """What may be served and why, and the evidence for it.

    `start` is the level of the policy's start threshold; `base` the one that is served down to without evidence of its
    own for what is below: the start, or a stricter one; `place` the one that is served down to now. `wealth` has what
    bets against the target have won of late, and `wrong_of_late` the wrong hits that they won by, of audits and of
    feedback; `lost` is how many audits in a row came to no label, `attempt` how often evidence was begun anew. Samples
    and ledgers: older, younger.
    """

    status: Status
    reason: str
    since: float
    start: int
    base: int
    place: int
    samples: tuple[Sample, Sample]
    ledgers: tuple[Ledger, Ledger]
    wealth: tuple[float, ...] = (0.0,) * BETS
    labels: tuple[int, ...] = (0,) * len(SOURCES)
    labelled_at: float | None = None
    lost: int = 0
    attempt: int = 0
    wrong_of_late: tuple[int, int] = (0, 0)

    @property
    def threshold(self) -> float:
        """The least confidence that is served, or that would be where the status forbids it."""
        return LEVELS[self.place]


def dump(state: State) -> str:
    """Write a state down."""
    return json.dumps(asdict(state))


def load(text: str) -> State:
    """Read what `dump` wrote. Raises `ValueError`, also for what another version wrote."""
    try:
        raw = json.loads(text)
        samples = [Sample(each["begun"], tuple(each["looked_at"]), tuple(each["wrong"])) for each in raw["samples"]]
        if any(len(sample.looked_at) != len(LEVELS) for sample in samples):
            raise ValueError("the levels have changed")
        return State(
            **{
                **raw,
                "samples": tuple(samples),
                "ledgers": tuple(_ledger(each) for each in raw["ledgers"]),
                "wealth": tuple(raw["wealth"]),
                "labels": tuple(raw["labels"]),
                "wrong_of_late": tuple(raw.get("wrong_of_late", (0, 0))),  # earlier versions did not count them
            }
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no state of this version: {error}") from error


def _ledger(raw: dict[str, Any]) -> Ledger:
    return Ledger(**{**raw, "spent": tuple(raw["spent"])})
