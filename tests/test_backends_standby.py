"""Workers that stand by on a device: whether that is worth it, handing one over, and each way in which one goes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import psutil
import pytest

from backends import standby as rules
from backends.contract import Job, Task
from backends.devices.gpus import Gpus, load_nvml
from backends.graphs import Graphs
from backends.onnx import OnnxEngine
from backends.standby import Standby, patience_s
from backends.warmers import Warmers
from tests import toys

CPU = ("CPUExecutionProvider",)
KEY = ((0,), CPU)
JOB = Job(Task.EMBED, inputs=("w1 w2",))


@pytest.fixture(name="standby")
async def _standby(fork_server) -> AsyncIterator[Standby]:
    standby = Standby()
    await standby.use(fork_server)
    yield standby
    await standby.close()
    assert not standby._ready
    assert not standby._tending


async def until(what: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(30.0):
        while not what():  # noqa: ASYNC110 - real processes raise no event
            await asyncio.sleep(0.01)


def test_nobody_stands_by_where_a_device_is_ready_at_once():
    """It stands by for as long as it spares more than it holds, which on a processor is not at all."""
    assert patience_s(0.0) == patience_s(0.05) == 0.0
    assert 600.0 < patience_s(0.5) < patience_s(2.0)


async def test_a_processor_has_no_standby_and_its_starts_cost_no_more(fork_server, standby, tmp_path):
    """A start without GPUs touches no device beforehand, and teaches nothing that would keep a worker standing by."""
    engine = await OnnxEngine.open(
        toys.embedder(tmp_path), fork_server, threads=1, warmers=Warmers(Graphs(lambda: 1e12), standby)
    )
    backend = await engine.start()
    assert backend.timings_s["device"] == 0.0
    await backend.close()
    assert not standby._tending


async def test_who_stands_by_is_handed_to_the_next_start_and_another_takes_its_place(fork_server, standby, tmp_path):
    """The process that stood by serves the model; by then its device was ready. Another stands by soon."""
    warmers = Warmers(Graphs(lambda: 1e12), standby)
    engine = await OnnxEngine.open(toys.embedder(tmp_path), fork_server, threads=1, warmers=warmers)
    standby.learn(*KEY, 2.0)
    await until(lambda: standby._ready)
    (first,) = [each.child.pid for each in standby._ready.values()]
    assert warmers.transient_bytes() == standby.held_bytes() > 2**20

    backend = await engine.on((0,)).start()
    assert backend.worker._child.pid == first
    assert backend.timings_s["device"] > 0.0
    assert [event async for event in backend.stream(JOB)]
    await until(lambda: standby._ready)
    assert standby._ready[KEY].child.pid != first
    assert standby.outcomes == {"taken": 1}
    await backend.close()
    assert not psutil.pid_exists(first)


async def test_a_standby_that_dies_is_replaced_after_a_pause(fork_server, standby, tmp_path):
    """It is counted, the next start does without it, and another comes."""
    standby.learn(*KEY, 2.0)
    await until(lambda: standby._ready)
    first = standby._ready[KEY]
    first.child.signal(signal.SIGKILL)
    await first.child.wait()
    engine = await OnnxEngine.open(
        toys.embedder(tmp_path), fork_server, threads=1, warmers=Warmers(Graphs(lambda: 1e12), standby)
    )
    await (await engine.on((0,)).start()).close()

    await until(lambda: standby._ready and standby._ready[KEY] is not first)
    assert standby.outcomes == {"died": 1}


async def test_it_goes_first_where_memory_is_short(standby):
    """All are sent away at once, and for a while there is none."""
    standby.learn(*KEY, 2.0)
    await until(lambda: standby._ready)
    pid = standby._ready[KEY].child.pid
    standby.give_way()

    assert standby.held_bytes() == 0
    await until(lambda: standby.outcomes and not psutil.pid_exists(pid))
    assert standby.outcomes == {"sent_away": 1}
    assert standby._tending


async def test_it_goes_when_nobody_starts_for_long(standby, monkeypatch):
    """Once it has cost what it may spare it ends, until a start teaches again that it is worth it."""
    monkeypatch.setattr(rules, "WAIT_VALUE", 0.01)
    standby.learn(*KEY, 2.0)
    await until(lambda: standby.outcomes["expired"])
    await until(lambda: not standby._tending)


async def test_a_fork_server_that_dies_takes_it_along_and_the_next_has_another(fork_server, standby):
    """Whoever stood by went with its fork server; another is forked from the next."""
    standby.learn(*KEY, 2.0)
    await until(lambda: standby._ready)
    first = standby._ready[KEY].child.pid
    os.kill(fork_server.pid, signal.SIGKILL)

    await until(lambda: standby._ready and standby._ready[KEY].child.pid != first)


@pytest.mark.gpu
async def test_a_gpu_s_context_is_made_beforehand(fork_server, standby, tmp_path):
    """On a GPU a start teaches that its context takes long, and the next start finds it made."""
    if Gpus.find(None, {}, load_nvml) is None:
        pytest.skip("no GPU here: NVML finds none")
    warmers = Warmers(Graphs(lambda: 1e12), standby)
    providers = ("CUDAExecutionProvider", *CPU)
    engine = await OnnxEngine.open(
        toys.embedder(tmp_path), fork_server, threads=1, providers=providers, warmers=warmers
    )
    cold = await engine.on((0,)).start()
    await until(lambda: standby._ready)
    warm = await engine.on((0,)).start()
    assert standby.outcomes["taken"] == 1
    assert warm.timings_s["all"] < cold.timings_s["all"]
    await cold.close()
    await warm.close()
