"""The operator's way to the caches: what they hold, ending answers for good, and the check of what lies on the disk."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.replay import outcome_of
from scripts.running_gateway import RunningGateway
from tests.e2e.program import ECHO, Stream, call, chat, config, serving, started, text_of, until


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


def test_a_purge_ends_what_it_names_and_a_dry_run_only_counts() -> None:
    """Answers of a purged model are asked for again; a dry run tells how many there are and ends none."""
    with serving(ECHO) as gateway:
        assert [asked(gateway, text) for text in ("one", "two", "one")] == ["miss", "miss", "exact"]

        assert purge(gateway, model="echo", dry_run=True)["entries"] == 2
        assert purge(gateway, model="another", dry_run=True)["entries"] == 0
        assert asked(gateway, "one") == "exact"
        purge(gateway, model="another")
        assert asked(gateway, "one") == "exact"
        purge(gateway, model="echo")
        assert purge(gateway, all=True, dry_run=True) == {"dry_run": True, "entries": 0, "bytes": 0}
        assert [asked(gateway, text) for text in ("one", "one")] == ["miss", "exact"]

        until(lambda: stats(gateway)["tiers"]["memory"]["entries"] == 1, "what is dead is cleared away")
        told = stats(gateway, "?by=model")
        assert [found["entries"] for found in told["models"]["echo"].values()] == [1]
        assert (told["purges"]["asked"], told["purges"]["marks"]) == (2, 2)


@pytest.mark.parametrize("what", [{"all": True}, {"scope": ""}, {"route": "echo"}, {"older_than_s": 0}])
def test_a_purge_ends_answers_by_whatever_names_them(what: dict[str, object]) -> None:
    """All, a tenant's, a route's, or those stored long ago: the next question is asked of the model."""
    with serving(ECHO) as gateway:
        asked(gateway, "one")
        purge(gateway, **what)
        assert [asked(gateway, "one"), asked(gateway, "one")] == ["miss", "exact"]


def test_a_purge_outlasts_kill_9(tmp_path: Path) -> None:
    """A gateway that is killed once it has replied serves nothing of what was purged when it is back, but the rest."""
    text = config(tmp_path, ECHO)
    with started(text, tmp_path) as (gateway, family):
        for question in ("purged", "kept"):
            answered = call(
                gateway.url, "POST", "/v1/chat/completions",
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


def test_who_asks_after_a_purge_joins_nothing_that_began_before(tmp_path: Path) -> None:
    """A stream under way goes on for its reader, is not joined by who comes later, and leaves nothing in the caches."""
    with serving(ECHO) as gateway:
        question = "slow " + "word " * 30
        with Stream(gateway.url, "echo", question) as stream:
            pieces = stream.texts()
            next(pieces)
            purge(gateway, model="echo")
            with Stream(gateway.url, "echo", question) as other:
                assert "collapsed" not in other.cache_status
                assert "".join(other.texts()).startswith("echo: slow")
            list(pieces)
        assert asked(gateway, question) == "exact"


def test_the_command_line_does_what_the_pages_do(tmp_path: Path) -> None:
    """`warmgate cache` tells, purges and checks; what it cannot do ends with a status that is not 0."""
    with started(config(tmp_path, ECHO), tmp_path) as (gateway, _):
        asked(gateway, "one")
        dry = warmgate("cache", "purge", "--url", gateway.url, "--model", "echo", "--dry-run")
        assert dry.stdout.startswith("1 answers of "), dry.stderr
        told = json.loads(warmgate("cache", "stats", "--url", gateway.url, "--json").stdout)
        assert told["tiers"]["memory"]["entries"] == 1
        assert "entries: 1\n" in warmgate("cache", "stats", "--url", gateway.url).stdout
        assert warmgate("cache", "purge", "--url", gateway.url, "--older-than", "0s").returncode == 0
        assert asked(gateway, "one") == "miss"
        refused = warmgate("cache", "purge", "--url", gateway.url, "--key", "abc")
        assert refused.returncode == 1
        assert "64 hexadecimal digits" in refused.stderr

    checked = warmgate("cache", "fsck", "--directory", str(tmp_path / "cache"), "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert json.loads(checked.stdout)["left"] == 0
    assert warmgate("cache", "fsck", "--directory", str(tmp_path / "nowhere")).returncode == 2
