"""What one model costs, learned from what happened: start-up, memory, service time, tokens made.

Synchronous and without a clock; the pool tells it what it measured, the keeper and the router ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.estimators import DecayedMean, DurationHistogram, LinearFit, member, number

# Below this many jobs a fit of three coefficients says less than their mean.
YOUNG_JOBS = 8

# Scales token counts to about one, the size that the fit's ridge is meant for.
TOKENS_SCALE = 100.0

LEAST_SERVICE_S = 1e-4

# What one sample and one start leave of the growth that was learned and was not seen again.
GROWTH_KEPT_BY_SAMPLE = 0.9
GROWTH_KEPT_BY_START = 0.5


@dataclass(frozen=True, slots=True)
class CostSeed:
    """What to believe of a model before anything was measured (seconds, bytes, tokens)."""

    start_s: float = 5.0
    memory_bytes: int = 0
    service_s: float = 1.0
    tokens_out: float = 64.0


class ModelCosts:
    """The learned costs of one model."""

    def __init__(self, seed: CostSeed = CostSeed()) -> None:
        self._start = DurationHistogram(seed.start_s)
        self._start_bytes = self._least_bytes = float(seed.memory_bytes)
        self._growth_bytes = 0.0
        self._service = DecayedMean(seed.service_s)
        self._fit = LinearFit()
        self._tokens_out = DecayedMean(seed.tokens_out)
        self._first_event = DecayedMean(seed.service_s)

    def learn_start(self, seconds: float) -> None:
        """Learn how long one replica took from absent to ready."""
        self._start.add(seconds)

    def learn_start_memory(self, measured_bytes: int) -> None:
        """Learn the resident bytes of a replica that has just come up; the growth of those before it fades."""
        self._start_bytes = self._least_bytes = float(measured_bytes)
        self._growth_bytes *= GROWTH_KEPT_BY_START

    def learn_memory(self, measured_bytes: int) -> None:
        """Learn the resident bytes of a replica at work: a new peak at once, a smaller figure slowly."""
        growth = max(0.0, measured_bytes - self._start_bytes)
        kept = GROWTH_KEPT_BY_SAMPLE
        self._growth_bytes = max(growth, kept * self._growth_bytes + (1.0 - kept) * growth)

    def learn_job(self, *, service_s: float, first_event_s: float, tokens_in: int, tokens_out: int) -> None:
        """Learn from one complete job; both times count from its dispatch."""
        self._service.add(service_s)
        self._first_event.add(first_event_s)
        self._tokens_out.add(float(tokens_out))
        self._fit.add(tokens_in / TOKENS_SCALE, tokens_out / TOKENS_SCALE, service_s)

    def start_s(self, share: float = 0.5) -> float:
        """Return the start-up time in seconds that `share` of starts do not exceed."""
        quantile = self._start.quantile(share)
        assert quantile is not None, "without a lower bound there is always a value or the seed"
        return quantile

    def remaining_start_s(self, elapsed_s: float) -> float:
        """Return the seconds that a start still needs which has run for `elapsed_s`.

        One that took longer than all before it is expected to take half as long again.
        """
        total = self._start.quantile(0.5, above_s=elapsed_s)
        return 0.5 * elapsed_s if total is None else total - elapsed_s

    @property
    def memory_bytes(self) -> int:
        """The host memory that one replica is expected to hold: what the last one had at its start, and its growth."""
        return int(self._start_bytes + self._growth_bytes)

    @property
    def least_bytes(self) -> int:
        """The host memory without which no replica comes up, as the last start measured; before one, the seed.

        It alone can bar a model for good, so neither growth nor what another process measured counts: a wrong figure
        ends with the process at the latest.
        """
        return min(int(self._least_bytes), self.memory_bytes)

    @property
    def mean_service_s(self) -> float:
        """The time from dispatch to the end of a usual job."""
        return max(LEAST_SERVICE_S, self._service.value)

    @property
    def first_event_s(self) -> float:
        """The time from dispatch to the first event of a usual job."""
        return self._first_event.value

    @property
    def tokens_out(self) -> float:
        """The tokens that a usual answer has."""
        return self._tokens_out.value

    def service_s(self, tokens_in: float, tokens_out: float) -> float:
        """Predict the time in seconds from dispatch to the end of a job with these token counts."""
        if self._fit.count < YOUNG_JOBS:
            return self.mean_service_s
        return max(LEAST_SERVICE_S, self._fit.predict(tokens_in / TOKENS_SCALE, tokens_out / TOKENS_SCALE))

    def dump(self) -> dict[str, Any]:
        """Return what was learned as plain JSON values."""
        return {
            "start": self._start.dump(),
            "start_bytes": self._start_bytes,
            "growth_bytes": self._growth_bytes,
            "service": self._service.dump(),
            "fit": self._fit.dump(),
            "tokens_out": self._tokens_out.dump(),
            "first_event": self._first_event.dump(),
        }

    def load(self, data: Mapping[str, Any]) -> None:
        """Take over what `dump` returned.

        Raises `ValueError` and keeps what it had where `dump` cannot have returned `data`.
        """
        sizes = number(member(data, "start_bytes")), number(member(data, "growth_bytes"))
        fresh = (
            DurationHistogram(self.start_s()).load(member(data, "start")),
            DecayedMean(0.0).load(member(data, "service")),
            LinearFit().load(member(data, "fit")),
            DecayedMean(0.0).load(member(data, "tokens_out")),
            DecayedMean(0.0).load(member(data, "first_event")),
        )
        self._start_bytes, self._growth_bytes = sizes
        self._start, self._service, self._fit, self._tokens_out, self._first_event = fresh
