"""Trust as it runs: what it refuses and learned survives its process, edits and other judges; its budget is kept."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cache.trust.contract import Label, Pair, Source
from cache.trust.journal import Journal, Refused
from cache.trust.live import Budget, LiveTrust
from cache.trust.state import Policy
from tests.fakes import VirtualClock

ROOT = Path(__file__).parent.parent
POLICY = Policy(0.01, 0.9)
PAIR = Pair(b"asked", b"stored")


def made(policy: Policy = POLICY, version: str = "v1", **more: object) -> LiveTrust:
    """Make trust without a file, whose chance always says to audit."""
    return LiveTrust(policy, version, clock=VirtualClock(), chance=lambda: 0.0, **more)  # type: ignore[arg-type]


def label(
    pair: Pair = PAIR, confidence: float = 0.95, *, same: bool = True, source: Source = "audit", name: str = "n"
) -> Label:
    """Make a label of a hit."""
    return Label(name, pair, confidence, source != "exploration", same, source, 1.0)


def number(at: int) -> Pair:
    """Make one of many pairs."""
    return Pair(b"a%d" % at, b"b%d" % at)


async def opened(file: Path, policy: Policy = POLICY, version: str = "v1") -> LiveTrust:
    """Open what a file keeps."""
    journal = Journal(file)
    return LiveTrust(policy, version, journal, await journal.open(), budget=Budget(10_000), chance=lambda: 0.0)


def test_a_wrong_pair_is_refused_in_both_orders_and_others_need_more_confidence() -> None:
    """What was wrong once is never served again, nor its answer to a question that seems no nearer."""
    trust = made()
    assert trust.decide("n", PAIR, 0.95).serve
    trust.learn(label(same=False))
    assert trust.decide("n", PAIR, 0.99).reason == "refused-pair"
    assert trust.decide("n", Pair(PAIR.stored, PAIR.asked), 0.99).reason == "refused-pair"
    other = Pair(b"other", PAIR.stored)
    assert (trust.decide("n", other, 0.95).serve, trust.decide("n", other, 0.96).serve) == (False, True)


def test_a_preview_counts_nothing() -> None:
    """Whoever only asks what would be decided changes neither hits nor budget."""
    trust = made()
    for _ in range(5):
        assert trust.preview("n", PAIR, 0.95).serve
    (_, state), *_ = trust.states()
    assert (trust.counters.decided, state.ledgers[0].hits, trust.pending("n")) == ({}, 0, 0)


def test_the_budget_of_a_minute_bounds_what_is_served_uncertified() -> None:
    """Ten audits a minute at every second hit let twenty hits pass, and the next minute twenty more."""
    clock = VirtualClock()
    trust = LiveTrust(POLICY, "v1", budget=Budget(10), clock=clock, chance=lambda: 0.9)
    first = [trust.decide("n", number(at), 0.95).serve for at in range(50)]
    assert sum(first) == 20
    assert trust.decide("n", PAIR, 0.95).reason == "unaudited"
    clock.advance(60)
    assert sum(trust.decide("n", number(at), 0.95).serve for at in range(50)) == 20


def test_audits_that_end_without_a_label_are_no_longer_under_way() -> None:
    """Where they fail one after the other nothing uncertified is served; a label brings it back."""
    trust = made()
    for at in range(16):
        assert trust.decide("n", number(at), 0.95).audit
        trust.unanswered("n")
    assert trust.pending("n") == 0
    assert trust.decide("n", PAIR, 0.95).reason == "unaudited"
    trust.learn(label(source="exploration"))
    assert trust.decide("n", PAIR, 0.95).serve


def test_namespaces_and_judges_learn_apart() -> None:
    """What is closed in one namespace, or by one judge's confidences, is not closed in another."""
    trust = made()
    for at in range(3):
        trust.decide("n", number(at), 0.95)
        trust.learn(label(number(at), same=False))
    closed = {name: state.status for name, state in trust.states()}
    assert closed == {"n": "exact-only"}
    trust.adopt(POLICY, "v2", Budget())
    assert trust.decide("n", PAIR, 0.95).serve
    trust.adopt(POLICY, "v1", Budget())
    assert trust.decide("n", PAIR, 0.95).reason == "exact-only"


def test_a_closed_namespace_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the namespace and the reason, as a warning; it is counted."""
    trust = made()
    with caplog.at_level(logging.WARNING):
        for at in range(3):
            trust.decide("n", number(at), 0.95)
            trust.learn(label(number(at), same=False))
    assert any(record.message.startswith("n: exact-only") for record in caplog.records)
    assert trust.counters.degraded == 1


async def _learns_and_ends(file: Path) -> None:
    trust = await opened(file)
    for at in range(400):
        trust.decide("n", number(at), 0.95)
        trust.learn(label(number(at)))
    trust.learn(label(same=False, source="feedback"))
    await trust.close()


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    """States, labels and refused pairs are there again, under the same judge."""
    asyncio.run(_learns_and_ends(tmp_path / "trust.db"))

    async def look() -> None:
        trust = await opened(tmp_path / "trust.db")
        (name, state), *rest = trust.states()
        assert (name, rest, state.labels, state.ledgers[0].hits) == ("n", [], (400, 0, 1), 400)
        assert trust.decide("n", PAIR, 0.99).reason == "refused-pair"
        assert trust.refused == 1
        await trust.close()
        other = await opened(tmp_path / "trust.db", version="v2")
        assert not list(other.states())
        await other.close()

    asyncio.run(look())


def test_a_file_that_is_damaged_is_moved_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Trust begins anew, and says so; the damaged file stays for who wants to look."""
    file = tmp_path / "trust.db"
    file.write_bytes(b"this is no database, and never was" * 100)
    with caplog.at_level(logging.WARNING):
        asyncio.run(_learns_and_ends(file))
    assert "corrupt" in caplog.text
    assert (tmp_path / "trust.db.corrupt").exists()


def test_a_disk_that_fails_costs_what_was_to_be_kept_and_no_more(tmp_path: Path) -> None:
    """Where nothing can be written decisions go on, and a refusal says that it will not last."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way of a directory")

    async def run() -> None:
        trust = await opened(blocked / "trust.db")
        assert trust.decide("n", PAIR, 0.95).serve
        assert not await trust.refuse(Refused(PAIR, 0.95))
        assert trust.decide("n", PAIR, 0.99).reason == "refused-pair"
        await trust.close()

    asyncio.run(run())


def test_what_is_learned_after_the_end_is_lost_and_breaks_nothing(tmp_path: Path) -> None:
    """An audit that ends when the file is closed already is told to nobody."""

    async def run() -> None:
        trust = await opened(tmp_path / "trust.db")
        assert trust.decide("n", PAIR, 0.95).serve
        await trust.close()
        trust.learn(label(same=False))
        assert not await trust.refuse(Refused(PAIR, 0.95))
        assert trust.decide("n", PAIR, 0.95).reason == "refused-pair"

    asyncio.run(run())


_VICTIM = """
import asyncio, sys
from pathlib import Path
from tests.test_cache_trust_live import opened, number, label
from cache.trust.journal import Refused

async def main():
    trust = await opened(Path(sys.argv[1]))
    at = 0
    while True:
        trust.decide("n", number(at), 0.95)
        trust.learn(label(number(at)))
        if await trust.refuse(Refused(number(at), 0.95)):
            print(at, flush=True)
        at += 1

asyncio.run(main())
"""


def test_what_was_refused_survives_a_kill(tmp_path: Path) -> None:
    """Every pair whose refusal was confirmed is refused after the process was killed in the midst of others."""
    file = tmp_path / "trust.db"
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _VICTIM, str(file)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        ) as victim:
            assert victim.stdout is not None
            confirmed = [int(victim.stdout.readline()) for _ in range(30)]
            os.kill(victim.pid, signal.SIGKILL)
            confirmed += [int(line) for line in victim.stdout.read().splitlines() if line]

        async def look(known: list[int]) -> None:
            trust = await opened(file)
            assert all(trust.is_refused(number(at)) for at in known)
            await trust.close()

        asyncio.run(look(confirmed))
