"""What one model costs, learned from what happened: start-up, memory, service time, tokens made.

Synchronous and without a clock; the pool tells it what it measured, the keeper and the router ask.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backends.estimators import DecayedMean, DurationHistogram, LinearFit, flag, member, number
from backends.snapshot import LevelCost
from backends.warmth.ladder import WAIT_VALUE, Ladder, Level, Rung

# Below this many jobs a fit of three coefficients says less than their mean.
YOUNG_JOBS = 8

# Scales token counts to about one, the size that the fit's ridge is meant for.
TOKENS_SCALE = 100.0

LEAST_SERVICE_S = 1e-4

# What one sample and one start leave of the growth that was learned and was not seen again.
GROWTH_KEPT_BY_SAMPLE = 0.9
GROWTH_KEPT_BY_START = 0.5

# How many starts are looked back on for what a replica may hold once it is up.
STARTS_REMEMBERED = 8


# A byte of a device's memory is worth so many of the host's: what either costs to rent is about that far apart.
DEVICE_BYTE = 10.0

# What a sleeping replica is believed to cost, as a share of a warm one, until both were measured.
ASLEEP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class CostSeed:
    """What to believe of a model before anything was measured (seconds, bytes, tokens).

    `wake_s` None: a tenth of `start_s`. `memory_bytes` and `device_bytes` are those of a warm replica; `beyond_bytes`
    is what it may turn out to hold beyond `memory_bytes`: counted on until it was measured, and no bar to a start.
    """

    start_s: float = 5.0
    wake_s: float | None = None
    memory_bytes: int = 0
    beyond_bytes: int = 0
    asleep_bytes: int = 0
    device_bytes: int = 0
    service_s: float = 1.0
    tokens_out: float = 64.0


class ModelCosts:
    """The learned costs of one model."""

    def __init__(self, seed: CostSeed = CostSeed()) -> None:
        self._start = DurationHistogram(seed.start_s)
        self._wake = DurationHistogram(0.1 * seed.start_s if seed.wake_s is None else seed.wake_s)
        self._asleep_bytes, self._asleep_device_bytes = float(seed.asleep_bytes), 0.0
        self._device_bytes = float(seed.device_bytes)
        self._is_measured = self._is_measured_on_devices = False
        self._sleeps = self._sleepless = False
        self._levels: tuple[LevelCost, ...] | None = None
        self._start_bytes = self._least_bytes = float(seed.memory_bytes)
        self._starts: deque[int] = deque(maxlen=STARTS_REMEMBERED)
        self._peaks: deque[int] = deque(maxlen=STARTS_REMEMBERED)
        self._growth_bytes = 0.0
        self._beyond_bytes = float(seed.beyond_bytes)
        self._service = DecayedMean(seed.service_s)
        self._fit = LinearFit()
        self._tokens_out = DecayedMean(seed.tokens_out)
        self._first_event = DecayedMean(seed.service_s)

    def believe(self, seed: CostSeed) -> None:
        """Take another seed for what was not measured yet."""
        fresh = ModelCosts(seed)
        if self._start.is_empty:
            self._start = fresh._start
        if self._wake.is_empty:
            self._wake = fresh._wake
        if not self._is_measured:
            self._start_bytes, self._least_bytes = fresh._start_bytes, fresh._least_bytes
            self._beyond_bytes = fresh._beyond_bytes
        if not self._is_measured_on_devices:
            self._device_bytes = fresh._device_bytes
        self._levels = None

    def learn_start(self, seconds: float) -> None:
        """Learn how long one replica took from absent to ready."""
        self._start.add(seconds)
        self._levels = None

    def learn_wake(self, seconds: float) -> None:
        """Learn how long one replica took from sleep to ready."""
        self._wake.add(seconds)
        self._levels = None

    def learn_sleeps(self, *, can: bool) -> None:
        """Learn whether the replicas of this model can sleep; where one did not fall asleep, no more is tried."""
        self._sleeps = can and not self._sleepless
        self._levels = None

    def learn_sleepless(self) -> None:
        """Learn that a replica did not fall asleep, though it says that it can."""
        self._sleepless, self._sleeps = True, False
        self._levels = None

    def learn_asleep_memory(self, measured_bytes: int) -> None:
        """Learn the resident bytes of a replica that sleeps."""
        self._asleep_bytes = float(measured_bytes)
        self._levels = None

    def learn_device_memory(self, level: Level, measured_bytes: int) -> None:
        """Learn what a replica holds of devices, at the warmest level or asleep."""
        if level is Level.ASLEEP:
            self._asleep_device_bytes = float(measured_bytes)
        else:
            self._device_bytes, self._is_measured_on_devices = float(measured_bytes), True
        self._levels = None

    def learn_start_memory(self, measured_bytes: int) -> None:
        """Learn the resident bytes of a replica that has just come up; the growth of those before it fades.

        The same model may hold a quarter more than the last time, by how its allocator fared: the most of late counts.
        """
        self._least_bytes, self._is_measured = float(measured_bytes), True
        self._starts.append(measured_bytes)
        self._start_bytes = float(max(self._starts))
        self._growth_bytes *= GROWTH_KEPT_BY_START
        self._beyond_bytes = 0.0
        self._levels = None

    def learn_peak(self, measured_bytes: int) -> None:
        """Learn the most resident bytes that a replica had on its way up."""
        self._peaks.append(measured_bytes)

    def learn_memory(self, measured_bytes: int) -> None:
        """Learn the resident bytes of a replica at work: a new peak at once, a smaller figure slowly."""
        growth = max(0.0, measured_bytes - self._start_bytes)
        kept = GROWTH_KEPT_BY_SAMPLE
        self._growth_bytes = max(growth, kept * self._growth_bytes + (1.0 - kept) * growth)
        self._levels = None

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

    def wake_s(self, share: float = 0.5) -> float:
        """Return the time in seconds from sleep to ready that `share` of wakings do not exceed."""
        quantile = self._wake.quantile(share)
        assert quantile is not None, "without a lower bound there is always a value or the seed"
        return quantile

    def remaining_start_s(self, elapsed_s: float, level: Level = Level.ABSENT) -> float:
        """Return the seconds that a climb from `level` still needs which has run for `elapsed_s`.

        One that took longer than all before it is expected to take half as long again.
        """
        total = (self._wake if level is Level.ASLEEP else self._start).quantile(0.5, above_s=elapsed_s)
        return 0.5 * elapsed_s if total is None else total - elapsed_s

    @property
    def sleeps(self) -> bool:
        """Whether the replicas of this model can sleep, as the last that came up said."""
        return self._sleeps

    @property
    def device_bytes(self) -> int:
        """The memory of devices that a warm replica is expected to hold."""
        return int(self._device_bytes)

    @property
    def levels(self) -> tuple[LevelCost, ...]:
        """What each level costs that a replica can stand on, the coldest first."""
        if self._levels is None:
            levels = [LevelCost(Level.ABSENT, self.start_s(), self.start_s(0.9), 0)]
            if Level.ASLEEP in self.ladder.levels:  # else nobody is put there, not even for want of memory
                held = self.asleep_bytes, int(self._asleep_device_bytes)
                levels.append(LevelCost(Level.ASLEEP, self.wake_s(), self.wake_s(0.9), *held))
            self._levels = (*levels, LevelCost(Level.WARM, 0.0, 0.0, self.memory_bytes, self.device_bytes))
        return self._levels

    @property
    def ladder(self) -> Ladder:
        """The rungs that are worth standing on, in seconds of a replica that is warm and idle."""
        rungs = [Rung(Level.WARM, 1.0, 0.0), Rung(Level.ABSENT, 0.0, self.start_s())]
        if self._sleeps:
            rungs.append(Rung(Level.ASLEEP, self._asleep_share, self.wake_s()))
        return Ladder.of(rungs, WAIT_VALUE)

    @property
    def _asleep_share(self) -> float:
        """What a sleeping replica costs beside a warm one: by their bytes, where both are known."""
        warm = self.memory_bytes + DEVICE_BYTE * self._device_bytes
        asleep = self._asleep_bytes + DEVICE_BYTE * self._asleep_device_bytes
        return asleep / warm if warm and asleep else ASLEEP_SHARE

    @property
    def memory_bytes(self) -> int:
        """The host memory that one replica is expected to hold: what the last one had at its start, and its growth."""
        return int(self._start_bytes + self._growth_bytes + self._beyond_bytes)

    @property
    def asleep_bytes(self) -> int:
        """The host memory that a sleeping replica is expected to hold; before one was measured, what it holds up."""
        return int(self._asleep_bytes) or self.memory_bytes

    @property
    def climb_bytes(self) -> int:
        """The host memory that one replica needs to come up: loading may take more than it leaves."""
        return max(self.memory_bytes, *self._peaks, 0)

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
            "wake": self._wake.dump(),
            "sleeps": self._sleeps,
            "asleep_bytes": self._asleep_bytes,
            "asleep_device_bytes": self._asleep_device_bytes,
            "device_bytes": self._device_bytes,
            "measured": self._is_measured,
            "measured_on_devices": self._is_measured_on_devices,
            "start_bytes": self._start_bytes,
            "growth_bytes": self._growth_bytes,
            "beyond_bytes": self._beyond_bytes,
            "service": self._service.dump(),
            "fit": self._fit.dump(),
            "tokens_out": self._tokens_out.dump(),
            "first_event": self._first_event.dump(),
        }

    def load(self, data: Mapping[str, Any]) -> None:
        """Take over what `dump` returned.

        Raises `ValueError` and keeps what it had where `dump` cannot have returned `data`.
        """
        sizes = [number(member(data, name)) for name in ("start_bytes", "growth_bytes", "beyond_bytes")]
        fresh = (
            DurationHistogram(self.start_s()).load(member(data, "start")),
            DurationHistogram(self.wake_s()).load(member(data, "wake")),
            DecayedMean(0.0).load(member(data, "service")),
            LinearFit().load(member(data, "fit")),
            DecayedMean(0.0).load(member(data, "tokens_out")),
            DecayedMean(0.0).load(member(data, "first_event")),
        )
        asleep = number(member(data, "asleep_bytes")), number(member(data, "asleep_device_bytes"))
        device_bytes, sleeps = number(member(data, "device_bytes")), flag(member(data, "sleeps"))
        measured = flag(member(data, "measured")), flag(member(data, "measured_on_devices"))
        self._is_measured, self._is_measured_on_devices = measured
        self._start_bytes, self._growth_bytes, self._beyond_bytes = sizes
        self._starts.clear()
        self._asleep_bytes, self._asleep_device_bytes = asleep
        self._device_bytes, self._sleeps, self._levels = device_bytes, sleeps, None
        self._start, self._wake, self._service, self._fit, self._tokens_out, self._first_event = fresh
