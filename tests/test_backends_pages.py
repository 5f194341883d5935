"""Models that sleep with their files in the host's memory: what is kept, how they wake, and when it is not worth it."""

import asyncio
import ctypes
import mmap
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from backends import pages
from backends.contract import Job, StartFailed, Task, WorkerDied
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.graphs import Graphs
from backends.keeper import Keeper
from backends.onnx import OnnxEngine
from backends.onnx_sleep import SleepingOnnx
from backends.pool import Pool
from backends.pool_limits import PoolLimits
from backends.sleeping import PeakingBackend, SleepFailed, SleepingBackend
from backends.snapshot import ReplicaState
from backends.warmers import Warmers
from backends.warmth.ladder import Level
from tests import toys

JOB = Job(Task.EMBED, inputs=("w1 w2",))
PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(name="backend")
async def _backend(fork_server, tmp_path) -> AsyncIterator[SleepingOnnx]:
    warmers = Warmers(Graphs(lambda: 1e12))
    engine = await OnnxEngine.open(toys.embedder(tmp_path / "m"), fork_server, threads=1, warmers=warmers)
    backend = await engine.start()
    assert isinstance(backend, SleepingOnnx)
    yield backend
    await backend.close()


def resident(path: Path) -> int:
    """Return how many pages of a file are in memory."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as whole:
        told = (ctypes.c_ubyte * -(-len(whole) // PAGE))()
        values = np.frombuffer(whole, np.uint8)
        assert (
            ctypes.CDLL(None).mincore(ctypes.c_void_p(int(values.ctypes.data)), ctypes.c_size_t(len(whole)), told) == 0
        )
        del values
        return sum(each & 1 for each in told)


def drop(path: Path) -> None:
    """Have the system drop what it holds of a file, but for what is locked."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.parametrize("may_lock", [True, False])
async def test_files_are_brought_into_memory_and_kept(tmp_path, monkeypatch, may_lock):
    """A file that was on disk alone is in memory while it is held; where locks are allowed, nobody drops it."""
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(64 * PAGE))
    (tmp_path / "empty").touch()
    drop(file)
    if not may_lock:
        monkeypatch.setattr(pages, "_lock", lambda _: False)

    held = await pages.hold([file, tmp_path / "empty"])

    assert held.bytes == 64 * PAGE
    assert resident(file) == 64
    if held.locked:
        drop(file)
        assert resident(file) == 64
    await held.release()
    await held.release()
    assert held.bytes == 0


async def test_a_file_that_is_gone_keeps_nothing(tmp_path):
    """One missing file is an error, and what was held of the others is let go."""
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(FileNotFoundError):
        await pages.hold([tmp_path / "a", tmp_path / "b"])


async def test_it_sleeps_and_wakes_with_another_worker(backend):
    """Asleep there is no process, and its files are what it holds; woken, it answers as before."""
    assert isinstance(backend, SleepingBackend)
    assert isinstance(backend, PeakingBackend)
    before = [event async for event in backend.stream(JOB)]
    worker, warm_bytes = backend.worker, backend.memory_bytes()
    files = [Path(each) for each in worker.files]
    assert {each.name for each in files} == {"model.onnx", "tokenizer.json"}

    await backend.sleep()
    assert worker._child.returncode is not None
    assert backend.memory_bytes() == sum(each.stat().st_size for each in files) < warm_bytes
    with pytest.raises(WorkerDied):
        backend.stream(JOB)
    await backend.wake()

    assert backend.worker is not worker
    assert [event async for event in backend.stream(JOB)] == before


async def test_a_worker_that_dies_is_told_also_after_a_sleep(backend):
    """Going to sleep is no end; a kill is, before a sleep or after it."""
    await backend.sleep()
    await backend.wake()
    backend.worker._child.signal(signal.SIGKILL)

    assert "status -9" in await backend.wait_exit()


async def test_what_cannot_be_read_is_not_put_to_sleep(backend, tmp_path):
    """Where a file is gone it says that it does not fall asleep, and works on."""
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(SleepFailed, match=r"tokenizer\.json"):
        await backend.sleep()
    assert [event async for event in backend.stream(JOB)]


async def test_a_waking_that_fails_lets_its_files_go(backend, tmp_path):
    """Files that changed while it slept are a failed start, and at the end nothing is kept."""
    await backend.sleep()
    (tmp_path / "m" / "model.yaml").unlink()
    with pytest.raises(StartFailed):
        await backend.wake()
    await backend.close()
    assert backend.memory_bytes() == 0


async def test_a_fork_server_that_dies_while_it_sleeps_is_started_again(backend, fork_server):
    """Waking needs a fork server, and gets one."""
    await backend.sleep()
    os.kill(fork_server.pid, signal.SIGKILL)
    for _ in range(2):
        try:
            await backend.wake()
            break
        except StartFailed:
            continue
    assert [event async for event in backend.stream(JOB)]


def costs_of(start_s: float, wake_s: float) -> ModelCosts:
    """Return what was learned of a model whose files are 3 GiB, of 4 that it holds while it is up."""
    costs = ModelCosts(CostSeed(asleep_bytes=3 * 2**30))
    for _ in range(5):
        costs.learn_start(start_s)
        costs.learn_start_memory(4 * 2**30)
        costs.learn_wake(wake_s)
    costs.learn_sleeps(can=True)
    return costs


@pytest.mark.parametrize(("start_s", "wake_s", "sleeps"), [(60.0, 4.0, True), (4.0, 4.0, False), (3.9, 4.0, False)])
def test_nobody_sleeps_who_wakes_no_sooner_than_another_starts(start_s, wake_s, sleeps):
    """By what was measured from either level: where the page cache keeps the files anyway, sleep spares nothing."""
    costs = costs_of(start_s, wake_s)

    assert (Level.ASLEEP in costs.ladder.levels) is sleeps
    assert (Level.ASLEEP in [each.level for each in costs.levels]) is sleeps


async def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    while not what():  # noqa: ASYNC110 - real processes raise no event
        await asyncio.sleep(0.01)


async def test_the_keeper_puts_it_to_sleep_while_that_is_believed_to_pay(fork_server, tmp_path):
    """Believed to wake in no time it sleeps once and wakes for who asks; then it is measured that this is no gain.

    From then on an idle one ends, and nobody sleeps.
    """
    clock = asyncio.get_running_loop().time
    engine = await OnnxEngine.open(
        toys.embedder(tmp_path / "m"), fork_server, threads=1, warmers=Warmers(Graphs(lambda: 1e12))
    )
    keeper = Keeper(None, clock)
    pool = Pool(
        "m",
        engine,
        PoolLimits(keep_warm_s=0.0),
        costs=ModelCosts(CostSeed(start_s=60.0, wake_s=1e-4, asleep_bytes=1)),
        demand=Demand(clock()),
        clock=clock,
        wake_keeper=keeper.wake,
    )
    keeper.add(pool)
    keeper.start()
    try:
        async with asyncio.timeout(60.0):
            answered = await pool.answer(JOB, clock() + 30.0)
            await until(lambda: [each.state for each in pool.fleet.replicas] == [ReplicaState.ASLEEP])
            assert 0 < pool.snapshot(clock()).replicas[0].memory_bytes < 2**20
            again = await pool.answer(JOB, clock() + 30.0)
            assert again.events == answered.events
            for _ in range(5):
                pool.costs.learn_wake(pool.costs.start_s(0.9))
            pool.price()
            await until(lambda: not pool.fleet.replicas)
        kinds = [type(each.action).__name__ for each in keeper.decisions]
        assert kinds == ["Start", "Demote", "Wake", "Stop"]
    finally:
        await keeper.close()
