"""The queue of batches as the settings want it. Knows no page."""

from collections.abc import Callable

from config.settings import BatchSettings
from gateway.batch.contract import BatchPolicy
from gateway.batch.service import Batches
from gateway.building.generation import Generation
from gateway.request import Caller


def batches_of(settings: BatchSettings, working: Callable[[], Generation]) -> Batches:
    """Make the queue of a directory; all but the directory follows the generation that works when it is needed."""

    def caller_of(scope: str) -> Caller | None:
        return working().gatekeeper.of_scope(scope)

    return Batches(
        settings.directory,
        # What the last generation without a queue leaves behind ends under the settings that it began with.
        policy=lambda: _policy(working().settings.batch or settings),
        pipeline=lambda: working().pipeline,
        caller_of=caller_of,
    )


def _policy(settings: BatchSettings) -> BatchPolicy:
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
