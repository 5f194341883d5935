"""Prometheus metrics of the trunk. Knows what is counted, not how any room works.

Children of labelled metrics are looked up once and kept: `labels()` costs more than counting.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that is read when Prometheus asks: `labels` in the order of `names`."""

    metric: str
    help: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    value: float
    counter: bool = False


@dataclass(frozen=True, slots=True)
class _OfModel:
    """The children of one model."""

    first: Histogram
    tokens_in: Counter
    tokens_out: Counter


class Telemetry:
    """The gateway's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "warmgate_requests", "Requests answered.", ("surface", "model", "status", "cache"), registry=self._registry
        )
        self._seconds = Histogram(
            "warmgate_request_seconds",
            "Time until the answer, or the head of a stream, was ready.",
            ("surface", "cache"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._first = Histogram(
            "warmgate_first_event_seconds",
            "Time from arrival to a model's first event.",
            ("model",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._tokens = Counter(
            "warmgate_tokens", "Tokens that models read and made.", ("model", "direction"), registry=self._registry
        )
        self._fallbacks = Counter(
            "warmgate_fallbacks", "Times that a candidate failed and the next one was tried.",
            ("model", "error"), registry=self._registry,
        )  # fmt: skip
        self._troubles = Counter(
            "warmgate_cache_troubles", "Troubles in a cache, each of them a miss.", ("tier",), registry=self._registry
        )
        self._semantic = Counter(
            "warmgate_semantic_lookups",
            "Look-ups by meaning: hit, or the reason of the miss.",
            ("result",),
            registry=self._registry,
        )
        self._kept: dict[tuple[str, str, int, str], tuple[Counter, Histogram]] = {}
        self._of_model: dict[str, _OfModel] = {}

    def answered(self, surface: str, model: str, status: int, cache: str, seconds: float) -> None:
        """Count one request that was answered, or refused."""
        key = (surface, model, status, cache)
        kept = self._kept.get(key)
        if kept is None:
            counter = self._requests.labels(surface, model, str(status), cache)
            kept = self._kept[key] = (counter, self._seconds.labels(surface, cache))
        kept[0].inc()
        kept[1].observe(seconds)

    def first_event(self, model: str, seconds: float) -> None:
        """Observe the wait for a model's first event."""
        self._kept_for(model).first.observe(seconds)

    def tokens(self, model: str, read: int, made: int) -> None:
        """Count tokens."""
        kept = self._kept_for(model)
        kept.tokens_in.inc(read)
        kept.tokens_out.inc(made)

    def _kept_for(self, model: str) -> "_OfModel":
        kept = self._of_model.get(model)
        if kept is None:
            kept = self._of_model[model] = _OfModel(
                self._first.labels(model), self._tokens.labels(model, "in"), self._tokens.labels(model, "out")
            )
        return kept

    def fallback(self, model: str, error: Exception) -> None:
        """Count a candidate that failed before its first event."""
        self._fallbacks.labels(model, type(error).__name__).inc()

    def cache_trouble(self, tier: str) -> None:
        """Count a trouble in a cache."""
        self._troubles.labels(tier).inc()

    def semantic(self, result: str) -> None:
        """Count a look-up by meaning."""
        self._semantic.labels(result).inc()

    def read_from(self, source: Callable[[], Iterable[Reading]]) -> None:
        """Ask `source` for readings at every scrape."""
        self._registry.register(_Readings(source))

    def exposition(self) -> bytes:
        """Write all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Readings(Collector):
    def __init__(self, source: Callable[[], Iterable[Reading]]) -> None:
        self._source = source

    def collect(self) -> Iterable[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        kinds: Mapping[bool, type[CounterMetricFamily | GaugeMetricFamily]] = {
            True: CounterMetricFamily,
            False: GaugeMetricFamily,
        }
        for reading in self._source():
            family = families.get(reading.metric)
            if family is None:
                family = kinds[reading.counter](reading.metric, reading.help, labels=reading.names)
                families[reading.metric] = family
            family.add_metric(reading.labels, reading.value)
        return families.values()
