"""What a worker is told when it is forked, in a form that crosses the fork server. Knows nothing of how it is used."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.contract import Task, TensorSpec
from backends.manifest import Manifest, Prompt


@dataclass(frozen=True, slots=True)
class KeptGraphs:
    """Where optimised graphs are kept, `limit_bytes` of them at most. `identity`: the model's version, the machine."""

    directory: Path
    identity: str
    limit_bytes: int


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A model's directory and manifest (read once, by the gateway), threads for one operator, execution providers.

    `devices` are the GPUs that it sees; empty: those of the fork server. `graphs`: where an optimised graph may be;
    `makes_graph`: it makes that, and ends. `shapes`
    are run once each before it is ready.
    """

    directory: Path
    manifest: Manifest
    threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    devices: tuple[int, ...] = ()
    graphs: KeptGraphs | None = None
    makes_graph: bool = False
    shapes: tuple[tuple[int, ...], ...] = ()

    def to_order(self) -> dict[str, Any]:
        """Return it as plain msgpack values."""
        return {
            "directory": os.fspath(self.directory),
            "manifest": asdict(self.manifest),
            "threads": self.threads,
            "providers": self.providers,
            "devices": self.devices,
            "graphs": self.graphs and [os.fspath(self.graphs.directory), self.graphs.identity, self.graphs.limit_bytes],
            "makes_graph": self.makes_graph,
            "shapes": self.shapes,
        }


def read_order(order: Mapping[str, Any]) -> WorkerSpec:
    """Return what `to_order` was made from."""
    found = order["manifest"]
    prompt = found["prompt"]
    manifest = Manifest(
        **found
        | {
            "task": Task(found["task"]),
            "labels": tuple(found["labels"]),
            "prompt": Prompt(**prompt) if prompt is not None else None,
            "takes": _specs(found["takes"]),
            "gives": _specs(found["gives"]),
        }
    )
    providers, devices = tuple(order["providers"]), tuple(order["devices"])
    graphs = None
    if order["graphs"] is not None:
        directory, identity, limit_bytes = order["graphs"]
        graphs = KeptGraphs(Path(directory), identity, limit_bytes)
    shapes = tuple(tuple(shape) for shape in order["shapes"])
    makes, threads = order["makes_graph"], order["threads"]
    return WorkerSpec(Path(order["directory"]), manifest, threads, providers, devices, graphs, makes, shapes)


def _specs(found: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each["name"], each["datatype"], tuple(each["shape"])) for each in found)
