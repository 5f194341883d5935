"""The catalog: what models are, in which state, and what loading and unloading does to their pools."""

import asyncio

import pytest

from backends.contract import Event, Job, StartFailed, Task, TensorSpec
from backends.pool import Pool
from gateway.catalog import Catalog, ModelState, Standing
from gateway.errors import InvalidRequest, UnknownModel
from tests.fakes import FakeEngine
from tests.oip_house import simple
from tests.test_gateway_pipeline import House, house, virtual


def catalog(built: House, task: Task = Task.CHAT, **routes: tuple[str, ...]) -> Catalog:
    """Make the catalog of a house."""
    clock = asyncio.get_running_loop().time
    return Catalog(built.pools, dict.fromkeys(built.pools, task), routes, cached=False, clock=clock)


async def settled() -> None:
    """Let everybody do what they can do now."""
    await asyncio.sleep(0.001)


@virtual
async def test_a_cold_model_is_ready():
    """A request starts it, so a client may send one; nothing is started to tell so."""
    async with house({"a": FakeEngine()}) as built:
        info = catalog(built).find("a")

        assert info is not None
        assert (catalog(built).state("a").state, info.max_batch) == (ModelState.READY, 0)
        assert info.inputs == (TensorSpec("text_input", "BYTES", (1,)),)
        assert built.engines["a"].starts == 0


@virtual
async def test_an_engine_tells_of_its_tensors():
    """What the engine says stands, else what every model of its task has."""
    async with house({"a": simple(), "b": FakeEngine()}) as built:
        tensors = catalog(built, Task.INFER)
        (a, _), (b, _) = tensors.index()

    assert [spec.name for spec in a.outputs] == ["OUTPUT0", "OUTPUT1"]
    assert (tensors.max_batch("a"), tensors.max_batch("b"), tensors.max_batch("nobody")) == (8, 0, 0)
    assert b.inputs == ()


@virtual
async def test_load_waits_until_a_replica_is_up():
    """A load returns when the model would answer at once, and starts nothing where it does already."""
    async with house({"a": FakeEngine(start_s=5.0)}) as built:
        loaded = catalog(built)
        loop = asyncio.get_running_loop()
        began = loop.time()
        await loaded.load("a")

        assert loop.time() - began >= 5.0
        assert len(built.pools["a"].snapshot(loop.time()).ready) == 1
        await loaded.load("a")
        assert built.engines["a"].starts == 1


@virtual
async def test_a_load_that_fails_says_why():
    """The reason of the start that failed is the load's."""
    async with house({"a": FakeEngine(failures=100)}) as built:
        with pytest.raises(StartFailed, match="told to fail"):
            await catalog(built).load("a")


@virtual
async def test_unload_ends_the_replicas_and_starts_none():
    """An unloaded model is unknown, takes nothing, and is not started by what its settings promise."""
    async with house({"a": FakeEngine()}) as built:
        unloading = catalog(built, route=("a",))
        pool = built.pools["a"]
        pool.limits = type(pool.limits)(min_replicas=1)
        await unloading.load("a")
        backend = built.engines["a"].backends[0]
        unloading.unload("a")
        await settled()

        assert backend.closed
        assert unloading.find("a") is unloading.find("route") is None
        for name in ("a", "route"):
            with pytest.raises(UnknownModel, match=f"Request for unknown model: '{name}' is not found"):
                unloading.check(name)
        assert unloading.state("a") == unloading.state("route") == Standing(ModelState.UNAVAILABLE, "unloaded")
        await asyncio.sleep(100.0)
        assert built.engines["a"].starts == 1

        await unloading.load("a")
        unloading.check("a")
        assert built.engines["a"].starts == 2


@virtual
async def test_unload_lets_a_job_end_and_refuses_who_waits():
    """What a replica does is finished; what has none yet fails at once."""
    gate = asyncio.Event()
    async with house({"a": FakeEngine((gate, *FakeEngine().script))}) as built:
        unloading = catalog(built)
        pool = built.pools["a"]
        job = asyncio.ensure_future(_all(pool))
        await settled()
        waiting = asyncio.ensure_future(_all(pool))
        await settled()
        unloading.unload("a")

        with pytest.raises(StartFailed, match="unloaded"):
            await waiting
        assert unloading.state("a").state is ModelState.UNLOADING
        gate.set()
        assert len(await job) == 4


@virtual
async def test_what_the_semantic_cache_needs_stays():
    """Without its embedder and its verifier no question could be compared."""
    async with house({"a": FakeEngine(), "b": FakeEngine()}) as built:
        tasks = {"a": Task.EMBED, "b": Task.INFER}
        kept = Catalog(built.pools, tasks, {}, cached=True, needed={"a", "b"})
        for model in tasks:
            with pytest.raises(InvalidRequest, match=f"failed to unload '{model}', the semantic cache needs it"):
                kept.unload(model)

            assert not kept.unloaded(model)


async def _all(pool: Pool) -> list[Event]:
    return [event async for event in pool.stream(Job(Task.CHAT))]


@virtual
async def test_names_that_nobody_has():
    """An unknown name is none of the catalog's to refuse in a request, and cannot be loaded or unloaded."""
    async with house({"a": FakeEngine()}) as built:
        empty = catalog(built)
        empty.check("nobody")

        assert empty.find("nobody") is None
        assert not empty.state("nobody").ready
        with pytest.raises(UnknownModel, match="failed to load 'nobody'"):
            await empty.load("nobody")
        with pytest.raises(UnknownModel, match="failed to unload 'nobody'"):
            empty.unload("nobody")


@virtual
async def test_ready_is_what_the_settings_promise():
    """The server is ready when every model has its minimum of replicas up."""
    async with house({"a": FakeEngine(start_s=5.0), "b": FakeEngine()}) as built:
        both = catalog(built)
        assert both.missing() == []
        built.pools["a"].limits = type(built.pools["a"].limits)(min_replicas=1)
        assert both.missing() == ["a"]
        built.keeper.wake()
        await settled()
        assert both.state("a").state is ModelState.LOADING
        await asyncio.sleep(6.0)
        assert both.missing() == []
        both.unload("a")
        assert both.missing() == ["a"]
