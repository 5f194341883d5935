"""What the operator sees: metrics, pools and their decisions, and the plan for a request."""

from typing import Any

from scripts.running_gateway import RunningGateway
from tests.e2e.program import call, chat, chat_body, metric, metrics, pool, text_of


def explain(gateway: RunningGateway, model: str, text: str, **more: object) -> Any:
    """Ask what would be done with a chat."""
    question = {"path": "/v1/chat/completions", "body": chat_body(model, text, **more)}
    answered = call(gateway.url, "POST", "/admin/explain", question)
    assert answered.status == 200, answered.body
    return answered.json()


def test_explain_shows_the_plan_and_its_reasons(gateway: RunningGateway) -> None:
    """A request that nobody asked before is explained by features, empty caches, and a plan with expected times."""
    found = explain(gateway, "atlas", "What is the capital of Mongolia?")

    assert found["features"]["cacheable"]
    assert found["features"]["by_meaning"]
    assert found["cache"]["exact"] is None
    assert all(not result["hit"] for result in found["cache"]["semantic"].values())
    (choice,) = found["plan"]
    assert choice["model"] == "atlas"
    assert choice["in_time"]
    assert choice["total_s"] == choice["wait_s"] + choice["service_s"]
    assert "free slots" in choice["why"] or "cold start" in choice["why"]


def test_explain_does_nothing(gateway: RunningGateway) -> None:
    """Explaining neither runs a model nor fills a cache."""
    asked = "What is the capital of Lesotho?"
    before = pool(gateway.url, "atlas")["last_arrival"]
    explain(gateway, "atlas", asked)

    assert pool(gateway.url, "atlas")["last_arrival"] == before
    assert "fwd=miss" in chat(gateway.url, "atlas", asked).headers["cache-status"]


def test_explain_shows_hits(gateway: RunningGateway) -> None:
    """What the caches would serve is shown with the question that matched and how near it is."""
    asked = "What is the capital of Portugal?"
    text_of(chat(gateway.url, "atlas", asked))

    assert explain(gateway, "atlas", asked)["cache"]["exact"]["hit"]
    (alike,) = explain(gateway, "atlas", "Tell me the capital city of Portugal")["cache"]["semantic"].values()
    assert alike["hit"]
    assert alike["matched"] == asked
    assert 0.8 < alike["similarity"] < 1


def test_explain_shows_what_kept_a_near_miss_out(gateway: RunningGateway) -> None:
    """A near miss that a guard stopped is shown with the guard's reason."""
    text_of(chat(gateway.url, "atlas", "How many metres are in 7 km?"))
    (found,) = explain(gateway, "atlas", "How many metres are in 70 km?")["cache"]["semantic"].values()

    assert not found["hit"]
    assert found["reason"] == "vetoed"
    assert found["veto"]


def test_explain_shows_why_nothing_is_cached(gateway: RunningGateway) -> None:
    """A sampled request says that its temperature keeps it out of the cache."""
    features = explain(gateway, "atlas", "Hello", temperature=1)["features"]

    assert (features["cacheable"], features["reason"]) == (False, "temperature")


def test_pools_show_replicas_and_decisions(gateway: RunningGateway) -> None:
    """Every pool is shown with its replicas and learned costs, and what the keeper did with its reasons."""
    text_of(chat(gateway.url, "atlas", "What is the capital of Bhutan?"))
    shown = call(gateway.url, "GET", "/admin/pools").json()

    assert set(shown["pools"]) == {"minilm", "atlas", "intents", "echo"}
    assert shown["forecast"]["followed"] in shown["forecast"]["lost_s"]
    atlas = shown["pools"]["atlas"]
    assert atlas["ladder"]["rungs"][0] == {"level": "warm", "price": 1.0, "reach_s": 0.0}
    assert atlas["forecast"]["rate_per_s"] > 0
    assert atlas["accounts"]["cold_starts"]["never"] == len(atlas["accounts"]["last_cold_starts"]) == 1
    assert atlas["accounts"]["last_cold_starts"][0]["why"] == "never"
    replicas = shown["pools"]["atlas"]["replicas"]
    assert {replica["state"] for replica in replicas} == {"ready"}
    assert all(replica["memory_bytes"] > 0 for replica in replicas)
    assert 0 <= atlas["last_arrival_ago_s"] <= atlas["accounts"]["last_cold_starts"][0]["ago_s"]
    starts = [decision for decision in shown["decisions"] if decision["action"] == "start"]
    assert {decision["model"] for decision in starts} >= {"minilm", "atlas"}
    (began_ago_s,) = (decision["ago_s"] for decision in starts if decision["model"] == "atlas")
    assert all(0 <= replica["since_ago_s"] <= began_ago_s for replica in replicas)
    assert all(decision["why"] for decision in starts)


def test_metrics_are_what_prometheus_reads(gateway: RunningGateway) -> None:
    """Prometheus' own parser takes every line, and requests, caches and pools are counted."""
    asked = "What is the capital of Nepal?"
    counted = {"surface": "openai", "model": "atlas", "status": "200"}
    hits = metric(gateway.url, "warmgate_requests_total", cache="exact", **counted)
    for _ in range(2):
        text_of(chat(gateway.url, "atlas", asked))

    assert metric(gateway.url, "warmgate_requests_total", cache="exact", **counted) == hits + 1
    assert metric(gateway.url, "warmgate_tokens_total", model="atlas", direction="out") > 0
    assert metric(gateway.url, "warmgate_pool_replicas", model="minilm", state="ready") == 1
    assert metric(gateway.url, "warmgate_cache_events_total", tier="memory", event="hits") > 0
    assert all(name.startswith("warmgate_") for name, _ in metrics(gateway.url))


def test_answers_tell_their_timings(gateway: RunningGateway) -> None:
    """Every answer names its request and where its time went; a hit tells its age and how long it lives."""
    asked = "What is the capital of Oman?"
    miss, hit = (chat(gateway.url, "atlas", asked).headers for _ in range(2))

    assert miss["x-request-id"] != hit["x-request-id"]
    assert {part.split(";")[0].strip() for part in miss["server-timing"].split(",")} == {
        "cache", "queue", "start", "infer",
    }  # fmt: skip
    assert int(hit["age"]) >= 0
    assert "ttl=" in hit["cache-status"]
