"""Makes engines and pools out of the models' settings, and tells which of them an edit leaves as they are."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from backends.anthropic_wire import AnthropicWire
from backends.command import CommandEngine
from backends.contract import Engine, StartFailed, Task
from backends.costs import CostSeed, ModelCosts
from backends.demand import Demand
from backends.devices.gpus import Gpus as FoundGpus
from backends.forkserver.client import ForkServer
from backends.keeper import Keeper
from backends.onnx import WORKER_BYTES, OnnxEngine
from backends.pool import Pool, PoolLimits
from backends.upstream import HttpEngine
from backends.upstream_wire import OpenAIWire
from backends.warmers import Warmers
from backends.warmth.keeping import Keeping
from backends.warmth.schedule import Shift
from backends.wire import Wire
from config.fields import Gpus
from config.settings import Api, DeviceSettings, ModelSettings, PoolSettings, Settings
from gateway.building.directories import wrong_task

_WIRES: Mapping[Api, Callable[[], Wire]] = {"openai": OpenAIWire, "anthropic": AnthropicWire}


def fork_server(gpus: Gpus) -> ForkServer:
    """Make the fork server whose workers see these GPUs; a worker uses the first of them."""
    environment = dict(os.environ)
    if gpus != "all":
        environment["CUDA_VISIBLE_DEVICES"] = "" if gpus == "none" else ",".join(str(index) for index in gpus)
    return ForkServer(environment)


def gpus_of(devices: DeviceSettings) -> FoundGpus | None:
    """Find the GPUs that models may use; None where there are none, or no driver. Blocks."""
    if devices.gpus == "none":
        return None
    found = FoundGpus.find(None if devices.gpus == "all" else devices.gpus, os.environ)
    if found is not None:
        found.budget_of = devices.gpu_memory.of
    return found


def same_settings(name: str, old: Settings, new: Settings) -> bool:
    """Tell whether nothing in the settings is changed that the replicas of a model were started from."""
    before, after = old.models.get(name), new.models[name]
    if before is None:
        return False
    on_devices = after.http is None
    return _engine_part(before) == _engine_part(after) and (not on_devices or old.devices.gpus == new.devices.gpus)


async def same_files(engine: Engine) -> bool:
    """Tell whether the files are still those that an engine was made from, where it has any."""
    return not isinstance(engine, OnnxEngine) or await engine.is_current()


def _engine_part(model: ModelSettings) -> tuple[object, ...]:
    return (model.task, model.onnx, model.command, model.http)


async def engine_of(
    name: str, model: ModelSettings, forks: ForkServer, gpus: Gpus, warmers: Warmers | None = None
) -> Engine:
    """Make a model's engine. Raises `StartFailed` where its files are missing, wrong or for another task."""
    if model.onnx is not None:
        onnx = model.onnx
        engine = await OnnxEngine.open(
            onnx.path, forks, threads=onnx.threads, providers=_providers(gpus), warmers=warmers
        )
        if (wrong := wrong_task(onnx.path, engine.tasks, Task(model.task))) is not None:
            raise StartFailed(wrong)
        return engine
    if model.command is not None:
        command = model.command
        return CommandEngine(
            command.run,
            fork_server=forks,
            ready=command.ready,
            model=command.model or name,
            env={key: value.get_secret_value() for key, value in command.env.items()},
            concurrency=command.concurrency,
            task=Task(model.task),
            sleep_level=command.sleep,
        )
    assert model.http is not None, "the config room allows exactly one engine"
    http = model.http
    return HttpEngine(
        http.url,
        http.model or name,
        key=None if http.key is None else http.key.get_secret_value(),
        concurrency=http.concurrency,
        wire=_WIRES[http.api](),
    )


def pool_of(name: str, settings: Settings, engine: Engine, keeper: Keeper, former: Pool | None) -> Pool:
    """Make the pool of a model's replicas; none is started yet.

    What is known of who asks for the model stays known, and what its replicas cost where the same answers. Hints were
    paid for, and stay in force.
    """
    same = former is not None and former.engine.version == engine.version
    if former is not None and same and isinstance(engine, OnnxEngine) and isinstance(former.engine, OnnxEngine):
        engine.shapes = former.engine.shapes
    return Pool(
        name,
        engine,
        limits_of(name, settings),
        costs=former.costs if former is not None and same else ModelCosts(seed_of(settings.models[name])),
        demand=former.demand if former is not None else Demand(time.monotonic(), Keeping(keeper.habits)),
        clock=time.monotonic,
        wake_keeper=keeper.wake,
        hints=former.hints if former is not None else None,
    )


def limits_of(name: str, settings: Settings) -> PoolLimits:
    """Return how far a model's pool may go."""
    model = settings.models[name]
    pool: PoolSettings = model.pool
    # An upstream is not started by us: its pool has the one replica that stands for it.
    upstream = model.http is not None
    return PoolLimits(
        min_replicas=1 if upstream else max(pool.min, int(_is_always_needed(settings, name))),
        max_replicas=1 if upstream else pool.max,
        queue=pool.queue,
        start_timeout_s=pool.start_timeout_s,
        start_wait_s=pool.start_wait_s,
        keep_warm_s=pool.keep_warm_s,
        schedule=tuple(Shift(frozenset(each.days), *each.hours, each.min, each.time_zone) for each in pool.schedule),
        gpus=0 if upstream or (pool.gpus is None and settings.devices.gpus == "none") else pool.gpus,
        is_upstream=upstream,
    )


def _providers(gpus: Gpus) -> tuple[str, ...]:
    """Return the execution providers of our workers, best first; the runtime takes the first that works."""
    return ("CPUExecutionProvider",) if gpus == "none" else ("CUDAExecutionProvider", "CPUExecutionProvider")


def seed_of(model: ModelSettings) -> CostSeed:
    """Return what to believe of a model before it was measured: what is written, else what its files tell."""
    pool = model.pool
    found = CostSeed() if model.onnx is None else _seed_of_graph(model.onnx.path / "model.onnx")
    if pool.host_memory_bytes is not None:
        found = replace(found, memory_bytes=pool.host_memory_bytes, beyond_bytes=0)
    start_s = found.start_s if pool.start_time_s is None else pool.start_time_s
    return replace(found, start_s=start_s, wake_s=pool.wake_time_s, device_bytes=pool.gpu_memory_bytes or 0)


def _seed_of_graph(file: Path) -> CostSeed:
    """Return what a graph tells: a session holds at least that. Where it is not there any more, a start will tell.

    Asleep its files are kept in memory.
    """
    try:
        size = file.stat().st_size
    except OSError:
        size = 0
    return CostSeed(memory_bytes=size, beyond_bytes=WORKER_BYTES, asleep_bytes=size)


def _is_always_needed(settings: Settings, name: str) -> bool:
    """Tell whether the semantic cache asks this model on every miss: then one replica always runs."""
    cache = settings.cache
    return (
        cache is not None and cache.semantic is not None and name in (cache.semantic.embedder, cache.semantic.verifier)
    )
