"""Prometheus metrics of the trunk. Knows what is counted, not how any room works.

What happens with every request is counted in plain numbers and put into a metric's form when Prometheus asks: the
library's own counters and histograms cost a request several times as much.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.counting.access_log import AccessLog
from gateway.counting.tally import Answered, OfModel, Times


@dataclass(frozen=True, slots=True)
class Reading:
    """A value that is read when Prometheus asks: `labels` in the order of `names`."""

    metric: str
    help: str
    names: tuple[str, ...]
    labels: tuple[str, ...]
    value: float
    counter: bool = False


class Telemetry:
    """The gateway's metrics, in a registry of its own; `access` has each request for itself, where that is wanted."""

    def __init__(self) -> None:
        self.access = AccessLog()
        self._registry = CollectorRegistry()
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
        self._renewals = Counter(
            "warmgate_cache_renewals",
            "Stale answers that were served and made anew: renewed, or why not.",
            ("result",),
            registry=self._registry,
        )
        self._hints = Counter(
            "warmgate_pool_hints", "Hints that a model will be asked for, by their source and what was granted.",
            ("model", "source", "result"), registry=self._registry,
        )  # fmt: skip
        self._sent_away = Counter(
            "warmgate_pool_sent_away", "Requests whose expected wait was beyond their patience.", ("model",),
            registry=self._registry,
        )  # fmt: skip
        self._answered: dict[tuple[str, str, int, str], Answered] = {}
        self._times: dict[tuple[str, str], Times] = {}
        self._models: dict[str, OfModel] = {}
        self._registry.register(_Tallies(self._families))

    def answered(self, surface: str, model: str, status: int, cache: str, seconds: float) -> None:
        """Count one request that was answered, or refused."""
        self.tally(surface, model, status, cache).add(seconds)

    def tally(self, surface: str, model: str, status: int, cache: str) -> Answered:
        """Return what counts the requests that end so; who has many of them keeps it."""
        key = (surface, model, status, cache)
        answered = self._answered.get(key)
        if answered is None:
            answered = self._answered[key] = Answered(self._times.setdefault((surface, cache), Times()))
        return answered

    def first_event(self, model: str, seconds: float) -> None:
        """Observe the wait for a model's first event."""
        self.of(model).first.add(seconds)

    def tokens(self, model: str, read: int, made: int) -> None:
        """Count tokens."""
        of_model = self.of(model)
        of_model.tokens_in += read
        of_model.tokens_out += made

    def of(self, model: str) -> OfModel:
        """Return what counts what one model did; who has much of it keeps it."""
        of_model = self._models.get(model)
        if of_model is None:
            of_model = self._models[model] = OfModel()
        return of_model

    def _families(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "warmgate_requests", "Requests answered.", labels=("surface", "model", "status", "cache")
        )
        for (surface, model, status, cache), answered in self._answered.items():
            requests.add_metric((surface, model, str(status), cache), answered.count)
        seconds = HistogramMetricFamily(
            "warmgate_request_seconds",
            "Time until the answer, or the head of a stream, was ready.",
            labels=("surface", "cache"),
        )
        for labels, times in self._times.items():
            seconds.add_metric(labels, times.buckets(), times.sum_s)
        first = HistogramMetricFamily(
            "warmgate_first_event_seconds", "Time from arrival to a model's first event.", labels=("model",)
        )
        tokens = CounterMetricFamily(
            "warmgate_tokens", "Tokens that models read and made.", labels=("model", "direction")
        )
        for model, of_model in self._models.items():
            first.add_metric((model,), of_model.first.buckets(), of_model.first.sum_s)
            tokens.add_metric((model, "in"), of_model.tokens_in)
            tokens.add_metric((model, "out"), of_model.tokens_out)
        return (requests, seconds, first, tokens)

    def fallback(self, model: str, error: Exception) -> None:
        """Count a candidate that failed before its first event."""
        self._fallbacks.labels(model, type(error).__name__).inc()

    def hint(self, model: str, source: str, result: str) -> None:
        """Count a hint, and how much of it was granted."""
        self._hints.labels(model, source, result).inc()

    def sent_away(self, model: str) -> None:
        """Count a request that was told to come again."""
        self._sent_away.labels(model).inc()

    def cache_trouble(self, tier: str) -> None:
        """Count a trouble in a cache."""
        self._troubles.labels(tier).inc()

    def semantic(self, result: str) -> None:
        """Count a look-up by meaning."""
        self._semantic.labels(result).inc()

    def looked_up(self) -> dict[str, int]:
        """Return how often look-ups by meaning came to each result since the start."""
        samples = (sample for metric in self._semantic.collect() for sample in metric.samples)
        return {each.labels["result"]: int(each.value) for each in samples if each.name.endswith("_total")}

    def renewal(self, result: str) -> None:
        """Count an answer that was served stale, and what became of making it anew."""
        self._renewals.labels(result).inc()

    def read_from(self, source: Callable[[], Iterable[Reading]]) -> None:
        """Ask `source` for readings at every scrape."""
        self._registry.register(_Readings(source))

    def exposition(self) -> bytes:
        """Write all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _Tallies(Collector):
    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families()


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
