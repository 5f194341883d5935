"""What the models are, as a client sees them: their tensors, their state, and bringing one up or taking it down.

Knows no wire; reads the pools, and tells them to rest or to start.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from backends.contract import Engine, Task, TensorSpec
from backends.pool import Pool
from gateway.errors import InvalidRequest, UnknownModel
from gateway.fields import cut

VERSION = "1"
"""The version that clients see: a model has one at a time. Its content has a name of its own, the engine's version."""

_PLATFORM = "onnxruntime_onnx"
_TEXT = (TensorSpec("text_input", "BYTES", (1,)),), (TensorSpec("text_output", "BYTES", (1,)),)
_TEXTS = (TensorSpec("text", "BYTES", (-1,)),)
_SPECS: Mapping[Task, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]] = {
    Task.CHAT: _TEXT,
    Task.COMPLETION: _TEXT,
    Task.EMBED: (_TEXTS, (TensorSpec("embedding", "FP32", (-1, -1)),)),
    Task.PREDICT: (_TEXTS, (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP32", (-1, -1)))),
}


class ModelState(StrEnum):
    """What a client may expect: READY answers, though the first answer may wait for a start."""

    READY = "READY"
    LOADING = "LOADING"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


_BEST = tuple(ModelState)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a model stands, and why it does not serve. One that nobody started yet is ready: a request starts it."""

    state: ModelState
    reason: str = ""

    @property
    def ready(self) -> bool:
        """Whether a client may send requests."""
        return self.state is ModelState.READY


_UNKNOWN = Standing(ModelState.UNAVAILABLE, "unknown")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model, or a route under its own name with the tensors of the first model behind it.

    `max_batch` is 0 where the first size of its tensors is no batch; `engine_version` names exactly what answers;
    `cached` says that answers may come from a cache.
    """

    name: str
    task: Task
    engine_version: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch: int
    cached: bool

    def has_version(self, version: str) -> bool:
        """Tell whether a client that asks for this version means this model."""
        return version in ("", VERSION, self.engine_version)


class Catalog:
    """All models and routes. `tasks` says what each model does, `routes` which models stand behind each name.

    `cached` says that answers are remembered; `needed` are the models that the semantic cache cannot do
    without.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        tasks: Mapping[str, Task],
        routes: Mapping[str, Sequence[str]],
        *,
        cached: bool,
        needed: Collection[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pools = pools
        self._needed = needed
        self._infos = {
            name: _describe(name, tasks[name], pool.engine, cached=cached)
            for name, pool in pools.items()
            if name in tasks
        }
        self._routes = {name: tuple(models) for name, models in routes.items() if name not in pools}
        self._clock = clock

    def find(self, name: str) -> ModelInfo | None:
        """Return what is known of a name that stands for a model; None where none does, or it is unloaded."""
        for model in self._behind(name):
            if not self._pools[model].resting:
                info = self._infos[model]
                return info if model == name else replace(info, name=name)
        return None

    def check(self, name: str) -> None:
        """Raise `UnknownModel` where all models behind a name are unloaded; a name that nobody knows is passed."""
        if self.unloaded(name):
            raise UnknownModel(f"Request for unknown model: '{cut(name)}' is not found", "model")

    def unloaded(self, name: str) -> bool:
        """Tell whether a name stands for models, and all of them are unloaded."""
        models = self._behind(name)
        return bool(models) and all(self._pools[model].resting for model in models)

    def max_batch(self, model: str) -> int:
        """Return how many rows one job may have; 0 where its tensors have no rows, or nobody knows the model."""
        info = self._infos.get(model)
        return 0 if info is None else info.max_batch

    def state(self, name: str) -> Standing:
        """Return how a model stands, or the best of those behind a route; an unknown one is unavailable."""
        now = self._clock()
        standings = [_standing(self._pools[model], now) for model in self._behind(name)]
        return min(standings, key=lambda standing: _BEST.index(standing.state), default=_UNKNOWN)

    def index(self) -> tuple[tuple[ModelInfo, Standing], ...]:
        """Return every model and how it stands, unloaded ones too."""
        return tuple([(info, self.state(model)) for model, info in self._infos.items()])

    def missing(self) -> list[str]:
        """Return the models with fewer replicas up than their settings promise, unloaded ones too."""
        now = self._clock()
        return [
            model for model, pool in self._pools.items() if len(pool.snapshot(now).ready) < pool.limits.min_replicas
        ]

    async def load(self, model: str) -> None:
        """Return when the model has a replica up. Raises `UnknownModel`, and `BackendError` where none comes up."""
        pool = self._known(model, "load")
        pool.rest(resting=False)
        await pool.warm_up(self._clock() + pool.limits.start_timeout_s)

    def unload(self, model: str) -> None:
        """Let the model's replicas end and refuse its requests until it is loaded.

        Raises `UnknownModel`, and `InvalidRequest` where the semantic cache needs it.
        """
        pool = self._known(model, "unload")
        if model in self._needed:
            raise InvalidRequest(f"failed to unload '{model}', the semantic cache needs it", "model")
        pool.rest(resting=True)

    def _known(self, model: str, verb: str) -> Pool:
        pool = self._pools.get(model)
        if pool is None:
            raise UnknownModel(f"failed to {verb} '{cut(model)}', the configuration has no such model", "model")
        return pool

    def _behind(self, name: str) -> tuple[str, ...]:
        return (name,) if name in self._pools else self._routes.get(name, ())


def _describe(name: str, task: Task, engine: Engine, *, cached: bool) -> ModelInfo:
    inputs, outputs = _specs(task, engine)
    return ModelInfo(
        name=name,
        task=task,
        engine_version=engine.version,
        platform=_PLATFORM if hasattr(engine, "inputs") else "",
        inputs=inputs,
        outputs=outputs,
        max_batch=_max_batch(task, engine),
        cached=cached,
    )


def _specs(task: Task, engine: Engine) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return what an engine says of its tensors, or what all models of the task have."""
    inputs, outputs = getattr(engine, "inputs", ()), getattr(engine, "outputs", ())
    return (inputs, outputs) if inputs else _SPECS.get(task, ((), ()))


def _max_batch(task: Task, engine: Engine) -> int:
    """Texts have no rows to count: a model of theirs cuts a long list into batches itself."""
    return int(getattr(engine, "max_batch", 0)) if task is Task.INFER else 0


def _standing(pool: Pool, now: float) -> Standing:
    state = pool.snapshot(now)
    if pool.resting:
        return Standing(ModelState.UNLOADING) if state.replicas else Standing(ModelState.UNAVAILABLE, "unloaded")
    if not state.alive and not state.asleep and state.failures:
        return Standing(ModelState.UNAVAILABLE, state.last_failure)
    if state.alive and not state.ready and state.min_replicas:
        return Standing(ModelState.LOADING)
    return Standing(ModelState.READY)
