"""What a worker is told when it is forked, in a form that crosses the fork server. Knows nothing of how it is used."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from backends.contract import Task, TensorSpec
from backends.manifest import Manifest, Prompt


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A model's directory and manifest (read once, by the gateway), threads for one operator, execution providers.

    `devices` are the GPUs that it sees; empty: those of the fork server.
    """

    directory: Path
    manifest: Manifest
    threads: int = 1
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    devices: tuple[int, ...] = ()

    def to_order(self) -> dict[str, Any]:
        """Return it as plain msgpack values."""
        return {
            "directory": os.fspath(self.directory),
            "manifest": asdict(self.manifest),
            "threads": self.threads,
            "providers": self.providers,
            "devices": self.devices,
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
    return WorkerSpec(Path(order["directory"]), manifest, order["threads"], providers, devices)


def _specs(found: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(each["name"], each["datatype"], tuple(each["shape"])) for each in found)
