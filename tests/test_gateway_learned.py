"""What pools learned outlives a restart: a full disk, a spoilt file and a clock that jumps cost nothing else."""

import asyncio
import time
from pathlib import Path

import pytest

from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.pool import Pool, PoolLimits
from backends.warmth.ladder import Level
from gateway.learned import Learned, kept, load
from tests.fakes import FakeEngine

MIB = 2**20


def pool(version: str = "1") -> Pool:
    """Make a pool that knows nothing yet."""
    engine = FakeEngine()
    engine.version = version
    return Pool(
        "m",
        engine,
        PoolLimits(),
        costs=ModelCosts(CostSeed()),
        demand=Demand(time.monotonic()),
        clock=time.monotonic,
        wake_keeper=lambda: None,
    )


def taught() -> Pool:
    """Make a pool that has learned what each level costs, and of one idle time."""
    known = pool()
    known.costs.learn_start(30.0)
    known.costs.learn_start_memory(100 * MIB)
    known.costs.learn_sleeps(can=True)
    known.costs.learn_wake(2.0)
    known.costs.learn_asleep_memory(7 * MIB)
    known.costs.learn_device_memory(Level.WARM, 900 * MIB)
    now = time.monotonic()
    known.demand.record(now)
    known.demand.rest(now)
    known.demand.record(now + 5.0)
    return known


async def save(file: Path, known: Pool) -> None:
    """Save as the end of the program does."""
    async with kept(lambda: Learned(file, {"m": known})):
        pass


def test_costs_of_each_level_are_kept_over_a_restart(tmp_path):
    """A new process begins with them, and with the ladder that follows; another version of the model does not."""

    async def run() -> None:
        known, again, other = taught(), pool(), pool("2")
        await save(tmp_path / "learned.json", known)
        await load(tmp_path / "learned.json", {"m": again})
        assert again.costs.levels == known.costs.levels
        assert again.demand.keeping.ladder.levels == (Level.WARM, Level.ASLEEP, Level.ABSENT)
        await load(tmp_path / "learned.json", {"m": other})
        assert other.costs.dump() == pool().costs.dump()

    asyncio.run(run())


def test_a_full_disk_costs_what_is_new_alone(tmp_path, caplog):
    """What was saved before stays whole, and the program goes on; with room again it is saved."""
    file = tmp_path / "learned.json"

    async def run() -> None:
        await save(file, pool())
        before = file.read_bytes()
        full = file.with_suffix(".new")
        full.symlink_to("/dev/full")
        await save(file, taught())
        assert file.read_bytes() == before
        assert "cannot be saved" in caplog.text
        full.unlink()
        await save(file, taught())
        assert file.read_bytes() != before

    asyncio.run(run())


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"m": 5}', b'{"m": {"keeping": {}}}', b'{"m": {"version": "1"', b"\xff"]
)
def test_a_spoilt_file_is_learned_anew(tmp_path, content):
    """It is no reason not to start."""
    (tmp_path / "learned.json").write_bytes(content)
    fresh = pool()
    asyncio.run(load(tmp_path / "learned.json", {"m": fresh}))
    assert fresh.costs.dump() == pool().costs.dump()


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400.0, 10 * 365 * 86400.0])
def test_a_clock_that_jumped_between_two_runs_spoils_no_figure(tmp_path, monkeypatch, jump_s):
    """Whatever the wall clock says, costs are as they were, and rates are sound."""

    async def run() -> None:
        again = pool()
        await save(tmp_path / "learned.json", taught())
        wall_s = time.time()
        monkeypatch.setattr(time, "time", lambda: wall_s + jump_s)
        await load(tmp_path / "learned.json", {"m": again})
        assert again.costs.levels == taught().costs.levels
        assert 0.0 <= again.demand.rate_per_s(time.monotonic()) < 1.0

    asyncio.run(run())
