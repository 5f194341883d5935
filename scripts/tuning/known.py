"""What the gateway has learned of its models' costs, or what is believed instead. Knows no trace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from backends.costs import ModelCosts
from backends.warmth.ladder import Level, two_rungs
from config.settings import Settings
from scripts.tuning.policies import Ladders
from scripts.tuning.replay import Sizes

START_S = 5.0
"""How long a start takes where none was learned."""
_UNKNOWN_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Known:
    """Each model's ladder, and what its replicas hold on each level; of `unknown_sizes` that was never measured."""

    ladders: Ladders
    sizes: Sizes
    unknown_sizes: Sequence[str]


def known_of(settings: Settings, start_s: float | None) -> Known:
    """Return what is known of the models of these settings; `start_s` stands for every start where it is given."""
    costs = _learned(settings)
    believed = START_S if start_s is None else start_s
    ladders = {
        model: two_rungs(believed) if start_s is not None or model not in costs else costs[model].ladder
        for model in settings.models
    }

    def size(model: str, level: Level) -> int:
        if level is Level.ABSENT:
            return 0
        held = next((cost for cost in costs[model].levels if cost.level is level), None) if model in costs else None
        return held.memory_bytes + held.device_bytes if held and held.memory_bytes else _UNKNOWN_BYTES

    unknown = [model for model in settings.models if model not in costs or not costs[model].memory_bytes]
    return Known(ladders.__getitem__, size, unknown)


def _learned(settings: Settings) -> Mapping[str, ModelCosts]:
    file = None if settings.cache is None else settings.cache.directory / "learned.json"
    known = orjson.loads(file.read_bytes()) if file is not None and file.exists() else {}
    learned: dict[str, ModelCosts] = {}
    for model, record in known.items():
        learned[model] = ModelCosts()
        learned[model].load(record["costs"])
    return learned
