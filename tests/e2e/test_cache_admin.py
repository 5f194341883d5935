"""The operator's way to the caches: what they hold, ending answers for good, and the check of what lies on the disk."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.replay import outcome_of
from scripts.running_gateway import RunningGateway
from tests.e2e.program import ECHO, Stream, call, chat, chat_body, config, metric, serving, started, text_of, until

CHAT = "/v1/chat/completions"


def asked(gateway: RunningGateway, text: str, model: str = "echo") -> str:
    """Ask, and tell how the caches took part."""
    answered = chat(gateway.url, model, text)
    text_of(answered)
    return outcome_of(answered.headers["cache-status"])


def purge(gateway: RunningGateway, **what: object) -> dict[str, object]:
    """Purge by the page."""
    answered = call(gateway.url, "POST", "/admin/cache/purge", what)
    assert answered.status == 200, answered.body
    told: dict[str, object] = answered.json()
    return told


def stats(gateway: RunningGateway, query: str = "") -> Any:
    """Ask what the caches hold."""
    return call(gateway.url, "GET", f"/admin/cache{query}").json()


def warmgate(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the program as operators do."""
    command = [sys.executable, "-m", "gateway.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def lasting() -> Iterator[RunningGateway]:
    """Serve one model for all tests here; each begins with empty caches."""
    with serving(ECHO) as gateway:
        yield gateway


@pytest.fixture
def own(lasting: RunningGateway) -> RunningGateway:
    """Empty the caches."""
    purge(lasting, all=True)
    until(lambda: stats(lasting)["tiers"]["memory"]["entries"] == 0, "the caches are empty")
    return lasting


def test_a_purge_ends_what_it_names_and_a_dry_run_only_counts(own: RunningGateway) -> None:
    """Answers of a purged model are asked for again; a dry run tells how many there are and ends none."""
    assert [asked(own, text) for text in ("one", "two", "one")] == ["miss", "miss", "exact"]

    assert purge(own, model="echo", dry_run=True)["entries"] == 2
    assert purge(own, model="another", dry_run=True)["entries"] == 0
    assert asked(own, "one") == "exact"
    purge(own, model="another")
    assert asked(own, "one") == "exact"
    purge(own, model="echo")
    assert purge(own, all=True, dry_run=True) == {"dry_run": True, "entries": 0, "bytes": 0}
    assert [asked(own, text) for text in ("one", "one")] == ["miss", "exact"]

    until(lambda: stats(own)["tiers"]["memory"]["entries"] == 1, "what is dead is cleared away")
    told = stats(own, "?by=model")
    assert [found["entries"] for found in told["models"]["echo"].values()] == [1]
    assert told["purges"]["marks"] == 3
    assert metric(own.url, "warmgate_cache_purge_marks") == 3


@pytest.mark.parametrize("what", [{"all": True}, {"scope": ""}, {"route": "echo"}, {"older_than_s": 0}])
def test_a_purge_ends_answers_by_whatever_names_them(own: RunningGateway, what: dict[str, object]) -> None:
    """All, a tenant's, a route's, or those stored long ago: the next question is asked of the model."""
    asked(own, "one")
    purge(own, **what)
    assert [asked(own, "one"), asked(own, "one")] == ["miss", "exact"]


def test_one_answer_is_purged_by_the_key_that_explain_tells(own: RunningGateway) -> None:
    """The key of a request is told whether it is cached or not; its purge ends that answer and no other."""
    for question in ("one", "two"):
        asked(own, question)
    explained = call(own.url, "POST", "/admin/explain", {"path": CHAT, "body": chat_body("echo", "one")})
    (key,) = explained.json()["cache"]["keys"].values()
    assert purge(own, key=key, dry_run=True)["entries"] == 1
    purge(own, key=key)
    assert [asked(own, text) for text in ("one", "two", "one")] == ["miss", "exact", "exact"]


def test_a_wrong_answer_is_ended_by_feedback(own: RunningGateway) -> None:
    """Exact answers need no section of meanings for it: of each repeat it is known what was served, and why."""
    for repeats in (1, 4):  # of these the last is answered by its bytes alone
        asked(own, "one")
        for _ in range(repeats):
            answered = chat(own.url, "echo", "one")
            assert outcome_of(answered.headers["cache-status"]) == "exact"
        request_id = answered.headers["x-request-id"]
        explained = call(own.url, "GET", f"/admin/explain/{request_id}").json()
        assert explained["outcome"] == "exact"
        assert purge(own, key=explained["key"], dry_run=True)["entries"] == 1
        told = call(own.url, "POST", "/admin/cache/feedback", {"request_id": request_id, "wrong": True})
        assert told.json() == {"removed": "entry", "kept": True}
        assert asked(own, "one") == "miss"
        purge(own, all=True)


def test_who_asks_after_a_purge_joins_nothing_that_began_before(own: RunningGateway) -> None:
    """A stream under way goes on for its reader, is not joined by who comes later, and leaves nothing in the caches."""
    question = "slow " + "word " * 30
    with Stream(own.url, "echo", question) as stream:
        pieces = stream.texts()
        next(pieces)
        purge(own, model="echo")
        with Stream(own.url, "echo", question) as other:
            assert "collapsed" not in other.cache_status
            assert "".join(other.texts()).startswith("echo: slow")
        list(pieces)
    assert asked(own, question) == "exact"
    assert metric(own.url, "warmgate_cache_events_total", tier="exact", event="late") >= 1


def test_a_purge_outlasts_kill_9(tmp_path: Path) -> None:
    """A gateway that is killed once it has replied serves nothing of what was purged when it is back, but the rest."""
    text = config(tmp_path, ECHO)
    with started(text, tmp_path) as (gateway, family):
        for question in ("purged", "kept"):
            answered = call(
                gateway.url, "POST", CHAT,
                {"model": "echo", "messages": [{"role": "user", "content": question}]}, **{"X-Warmgate-Tags": question},
            )  # fmt: skip
            text_of(answered)
        until(lambda: stats(gateway)["tiers"]["disk"]["entries"] == 2, "both are on the disk")
        purge(gateway, tag="purged")
        gateway.process.kill()
        gateway.process.wait()
        family.wait_gone()
    with started(text, tmp_path) as (gateway, _):
        assert [asked(gateway, question) for question in ("purged", "kept")] == ["miss", "exact"]


def test_the_command_line_does_what_the_pages_do(tmp_path: Path) -> None:
    """`warmgate cache` tells, purges and checks; what it cannot do ends with a status that is not 0."""
    with started(config(tmp_path, ECHO), tmp_path) as (gateway, _):
        asked(gateway, "one")
        dry = warmgate("cache", "purge", "--url", gateway.url, "--model", "echo", "--dry-run")
        assert dry.stdout.startswith("1 answers of "), dry.stderr
        told = json.loads(warmgate("cache", "stats", "--url", gateway.url, "--json").stdout)
        assert told["tiers"]["memory"]["entries"] == 1
        assert "entries: 1\n" in warmgate("cache", "stats", "--url", gateway.url).stdout
        stranger = warmgate("cache", "purge", "--url", gateway.url, "--model", "ecko")
        assert stranger.stdout == "purged, but nothing of that was cached, and its config has no such model\n"
        misspelt = warmgate("cache", "purge", "--url", gateway.url, "--tag", "misspelt")
        assert "nothing of that was cached" in misspelt.stdout
        assert "purged: " in warmgate("cache", "purge", "--url", gateway.url, "--older-than", "0s").stdout
        assert asked(gateway, "one") == "miss"
        refused = warmgate("cache", "purge", "--url", gateway.url, "--key", "abc")
        assert refused.returncode == 1
        assert "64 hexadecimal digits" in refused.stderr

    stopped = warmgate("cache", "stats", "--url", gateway.url)
    assert (stopped.returncode, "asks a gateway that runs" in stopped.stderr) == (1, True)

    checked = warmgate("cache", "fsck", "--directory", str(tmp_path / "cache"), "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["left"] == 0
    assert warmgate("cache", "fsck", "--directory", str(tmp_path / "nowhere")).returncode == 2
