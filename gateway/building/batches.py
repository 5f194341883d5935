"""The queue of batches as the settings want it: opened, taken over from the last generation, or none."""

from collections.abc import Callable, Mapping

from backends.contract import Task
from config.settings import BatchSettings, Settings
from gateway.batch.contract import BatchPolicy
from gateway.batch.pages import PAGES, BatchPages
from gateway.batch.service import Batches
from gateway.callers.auth import Gatekeeper
from gateway.errors import UnknownPath
from gateway.front import Page
from gateway.pipeline import Pipeline
from gateway.request import Caller
from gateway.routes import Routes
from gateway.surfaces.wire import Call, Reply


async def open_batches(
    settings: BatchSettings | None,
    former: Batches | None,
    former_settings: BatchSettings | None,
    *,
    pipeline: Callable[[], Pipeline],
    caller_of: Callable[[str], Caller | None],
) -> Batches | None:
    """Return the queue of these settings: the former one where it lies in the same directory. Raises `OSError`.

    It does no work before `start`; a former one goes on as it was until `adjust`.
    """
    if settings is None:
        return None
    if former is not None and former_settings is not None and former_settings.directory == settings.directory:
        return former
    batches = Batches(settings.directory, policy_of(settings), pipeline=pipeline, caller_of=caller_of)
    try:
        await batches.open()
    except BaseException:
        await batches.close(0.0)
        raise
    return batches


def policy_of(settings: BatchSettings) -> BatchPolicy:
    """Return what these settings allow."""
    secret = settings.callback_secret
    return BatchPolicy(
        max_items=settings.max_items,
        max_bytes=settings.max_bytes,
        concurrency=settings.concurrency,
        keep_s=settings.keep_s,
        file_roots=settings.file_roots,
        s3_buckets=settings.s3_buckets,
        s3_endpoint=settings.s3_endpoint,
        callback_secret=None if secret is None else secret.get_secret_value().encode(),
        allow_private=settings.allow_private,
    )


def batch_table(
    batches: Batches | None, settings: Settings, routes: Routes, gatekeeper: Gatekeeper
) -> Mapping[tuple[str, str], Page]:
    """Return the pages of the queue; where there is none they say so."""
    if batches is None:
        return dict.fromkeys(PAGES, _off)

    def task_of(name: str, caller: Caller) -> Task:
        return Task(settings.models[routes.resolve(name, caller).candidates[0]].task)

    return BatchPages(batches, gatekeeper, task_of).table()


async def _off(call: Call) -> Reply:
    del call
    raise UnknownPath("batches are off: the config has no section 'batch'")
