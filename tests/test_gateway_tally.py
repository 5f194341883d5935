"""Counts in plain numbers, as Prometheus reads them."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.counting.telemetry import Telemetry


def samples(telemetry: Telemetry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Read the exposition as a scraper does."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(telemetry.exposition().decode())
        for sample in family.samples
    }


def test_requests_are_counted_by_their_labels_and_timed():
    """Buckets hold all that took no longer; two models share the times of their surface."""
    telemetry = Telemetry()
    telemetry.answered("openai", "a", 200, "miss", 0.0005)
    telemetry.answered("openai", "a", 200, "miss", 0.003)
    telemetry.answered("openai", "b", 502, "miss", 1000.0)
    seen = samples(telemetry)
    labels = {"surface": "openai", "cache": "miss"}

    def bucket(bound: str) -> float:
        return seen["warmgate_request_seconds_bucket", tuple(sorted({**labels, "le": bound}.items()))]

    assert [bucket(bound) for bound in ("0.0005", "0.0025", "0.005", "120.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert seen["warmgate_request_seconds_count", tuple(sorted(labels.items()))] == 3
    assert seen["warmgate_request_seconds_sum", tuple(sorted(labels.items()))] == 1000.0035
    ok = tuple(sorted({**labels, "model": "a", "status": "200"}.items()))
    assert seen["warmgate_requests_total", ok] == 2


def test_tokens_and_first_events_are_counted_by_model():
    """Both directions."""
    telemetry = Telemetry()
    telemetry.first_event("a", 0.2)
    telemetry.tokens("a", 3, 5)
    telemetry.tokens("a", 1, 0)
    seen = samples(telemetry)
    assert seen["warmgate_tokens_total", (("direction", "in"), ("model", "a"))] == 4
    assert seen["warmgate_tokens_total", (("direction", "out"), ("model", "a"))] == 5
    assert seen["warmgate_first_event_seconds_count", (("model", "a"),)] == 1
