"""The files of a model directory as a gateway reads them: its version, whether they are still the same. No worker's."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from backends.contract import Task
from backends.manifest import Manifest, read_manifest

GRAPH = "model.onnx"
_TOKENIZER = "tokenizer.json"
_FILES = ("model.yaml", _TOKENIZER, GRAPH)

_WEIGHTS = ("model.onnx.data", "model.onnx_data")
"""Where exporters put the weights that are not in the graph's own file."""


def tasks_served(manifest: Manifest) -> frozenset[Task]:
    """Return the tasks of the jobs that a model can do."""
    return frozenset({Task.CHAT, Task.COMPLETION} if manifest.task is Task.CHAT else {manifest.task})


def missing_file(path: Path, manifest: Manifest) -> Path | None:
    """Return the first file that a model directory lacks, or None. Blocks."""
    wanted = (path / name for name in _FILES if name != _TOKENIZER or manifest.task is not Task.INFER)
    return next((file for file in wanted if not file.is_file()), None)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The model's files as they were read: the version made from their content, and (size, mtime) of each."""

    version: str
    stamps: tuple[tuple[int, int], ...]


def stamps_of(path: Path) -> tuple[tuple[int, int], ...]:
    """Return size and time of each file; a model of tensors has no tokenizer, and few have weights apart."""
    wanted = [name for name in _FILES if name != _TOKENIZER or (path / name).exists()]
    return tuple(_stamp(path / name) for name in (*wanted, *_apart(path)))


def _apart(path: Path) -> list[str]:
    return [name for name in _WEIGHTS if (path / name).exists()]


def _stamp(file: Path) -> tuple[int, int]:
    stat = file.stat()
    return stat.st_size, stat.st_mtime_ns


def examine(path: Path) -> tuple[Manifest, ModelFiles]:
    """Read and digest a model directory. Raises OSError and ManifestError. Blocks."""
    stamps = stamps_of(path)
    manifest = read_manifest(path)
    digest = hashlib.sha256()
    for name in (*_FILES, *_apart(path)):
        if name == _TOKENIZER and manifest.task is Task.INFER:
            continue
        with (path / name).open("rb") as file:
            digest.update(f"{name} ".encode())
            digest.update(hashlib.file_digest(file, "sha256").digest())
    digest.update("\n".join(manifest.labels).encode())
    return manifest, ModelFiles(f"sha256:{digest.hexdigest()[:16]}", stamps)
