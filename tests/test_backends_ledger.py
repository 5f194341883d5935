"""The accounts: what idle replicas held, what requests were spared, and what would have kept a cold one warm."""

from dataclasses import replace

import pytest

from backends.demand import Demand
from backends.ledger import Departure, Ledger, Remedy
from backends.snapshot import LevelCost, PoolSnapshot, ReplicaSnapshot, ReplicaState
from backends.warmth.ladder import Level

GIB = 2**30
COSTS = (
    LevelCost(Level.ABSENT, 40.0, 50.0, 0),
    LevelCost(Level.ASLEEP, 3.0, 4.0, GIB),
    LevelCost(Level.WARM, 0.0, 0.0, 2 * GIB),
)
UP = ReplicaSnapshot("m-1", ReplicaState.READY, 0, 0.0, 0.0, 0.0, 2 * GIB)
BUSY = replace(UP, in_flight=1)
ASLEEP = replace(UP, state=ReplicaState.ASLEEP, level=Level.ASLEEP, memory_bytes=GIB)


def pool(*replicas: ReplicaSnapshot) -> PoolSnapshot:
    """Return a pool with these replicas, whose start takes 40 s."""
    return PoolSnapshot("m", 0, 1, 1, replicas, 0, 1, 0.0, 0.0, None, 40.0, 1.0, 2 * GIB, costs=COSTS)


def test_what_idle_replicas_held_is_counted_by_level() -> None:
    """Time counts with the state that it began in; busy replicas and absent ones cost nothing."""
    ledger = Ledger()
    for now, replicas in ((0.0, (UP,)), (10.0, (BUSY,)), (15.0, (ASLEEP,)), (25.0, ()), (99.0, ())):
        ledger.look(now, pool(*replicas), 0, None)

    assert ledger.idle_s == {Level.WARM: 10.0, Level.ASLEEP: 10.0}
    assert ledger.idle_byte_s == {Level.WARM: 20.0 * GIB, Level.ASLEEP: 10.0 * GIB}


@pytest.mark.parametrize(
    ("standing", "spared", "cold"),
    [(UP, {Level.WARM: 40.0}, 0), (ASLEEP, {Level.ASLEEP: 37.0}, 1)],
)
def test_a_request_that_finds_a_replica_is_spared_its_start(
    standing: ReplicaSnapshot, spared: dict[Level, float], cold: int
) -> None:
    """One that is warm spares the whole start, one that sleeps what waking takes less."""
    ledger = Ledger()
    ledger.look(0.0, pool(standing), 0, None)
    ledger.look(1.0, pool(BUSY), 1, 300.0)

    assert ledger.spared_s == spared
    assert sum(ledger.cold.values()) == cold


@pytest.mark.parametrize(
    ("departure", "idle_s", "remedy", "words"),
    [
        (Departure(0), 700.0, Remedy.TIME, "warm with a time to live of 11.7 min"),
        (Departure(0), 9000.0, Remedy.TIME, "warm with a time to live of 2.5 h"),
        (Departure(2 * GIB), 700.0, Remedy.MEMORY, "warm with 2 GiB more"),
        (None, 700.0, Remedy.NEVER, "never"),
        (None, None, Remedy.NEVER, "never"),
    ],
)
def test_a_cold_start_tells_what_would_have_spared_it(
    departure: Departure | None, idle_s: float | None, remedy: Remedy, words: str
) -> None:
    """It had given way to another, or it had gone because nobody came, or nothing would have helped."""
    ledger = Ledger()
    ledger.look(0.0, pool(UP), 0, None)
    if departure is not None:
        ledger.left(departure)
    ledger.look(1.0, pool(), 0, None)
    ledger.look(700.0, pool(), 1, idle_s)

    assert ledger.cold == {**dict.fromkeys(Remedy, 0), remedy: 1}
    (cold,) = ledger.last_cold
    assert (cold.words(), cold.start_s, cold.level) == (words, 40.0, Level.ABSENT)


def test_why_a_replica_went_is_forgotten_when_another_is_up() -> None:
    """A replica that came back and then failed is not told to have gone for memory."""
    ledger = Ledger()
    ledger.left(Departure(GIB))
    ledger.look(0.0, pool(UP), 0, None)
    ledger.look(1.0, pool(), 0, None)
    ledger.look(2.0, pool(), 1, 5.0)

    assert ledger.cold[Remedy.NEVER] == 1


def test_demand_tells_of_each_request_that_found_nobody_there() -> None:
    """The first of all, and each after an idle time; none that came while others were here."""
    demand = Demand(0.0)
    assert demand.met == (0, None)
    demand.record(10.0)
    demand.record(10.5)
    assert demand.met == (1, None)
    demand.rest(20.0)
    demand.record(50.0)
    assert demand.met == (2, 30.0)
