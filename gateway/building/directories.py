"""Looks at the files that settings name, before anything is started with them. Knows no engine that runs."""

from collections.abc import Collection, Iterator
from pathlib import Path

from backends.contract import Task
from backends.manifest import ManifestError, read_manifest
from backends.onnx import missing_file, tasks_served
from config.settings import Settings
from gateway.building.places import unwritable
from gateway.building.tls import TlsFilesError, load

Doubt = tuple[tuple[str, ...], str]


def doubts(settings: Settings) -> Iterator[Doubt]:
    """Yield what would keep these settings from being served on this machine, each with its key. Blocks."""
    tls = settings.server.tls
    if tls is not None:
        try:
            load(tls.certificate, tls.key)
        except TlsFilesError as error:
            yield ("server", "tls"), str(error)
    if settings.batch is not None and (why := unwritable(settings.batch.directory)) is not None:
        yield ("batch", "directory"), why
    for name, model in settings.models.items():
        if model.onnx is not None and (doubt := _doubt(model.onnx.path, Task(model.task))) is not None:
            yield ("models", name, "onnx", "path"), doubt


def _doubt(path: Path, task: Task) -> str | None:
    try:
        manifest = read_manifest(path)
    except ManifestError as error:
        return str(error)
    if (missing := missing_file(path, manifest)) is not None:
        return f"{missing} does not exist"
    return wrong_task(path, tasks_served(manifest), task)


def wrong_task(path: Path, able: Collection[Task], task: Task) -> str | None:
    """Return what to say where the model in a directory does something else, or None."""
    return None if task in able else f"the model in {path} does {', '.join(sorted(able))}, not {task}"
