"""What a changed key does to a gateway that runs: one line for each key of the file. Knows no values of settings."""

from enum import Enum
from typing import Any

from config.problems import Path


class Effect(Enum):
    """What has to be done for a change to take effect."""

    NOW = "now"  # a number or a switch that the next request sees
    LISTEN = "listen"
    GRPC = "grpc"
    TLS = "tls"
    KEYS = "keys"
    STORES = "stores"  # the caches are opened anew
    CACHE = "cache"  # the caches in use are adjusted
    MEANINGS = "meanings"  # the index of the semantic cache is built anew
    GPUS = "gpus"  # every replica on this machine is replaced
    MODEL_ADDED = "model added"
    MODEL_REMOVED = "model removed"
    ENGINE = "engine"  # the model's replicas are replaced
    POOL = "pool"  # the limits of the model's pool alone
    ROUTES = "routes"
    QUEUE = "queue"  # the queue of batches is opened, closed or opened elsewhere
    UNKNOWN = "unknown"  # a key that only another version of this program knows


_AT_ONCE = "takes effect at once, for new requests"
_ANEW = "restarts the replicas of {name}; the old ones serve until the new ones are ready"
_UPSTREAM = "sends new requests for {name} to the changed upstream; those in flight end at the old one"
_STORES = "opens the caches anew"

# The first that fits counts. `*` stands for any one step, and `**` at the end for any steps or none.
_RULES: tuple[tuple[str, Effect, str], ...] = (
    ("server.listen", Effect.LISTEN, "listens there, and at the old address no more; connections that are open stay"),
    ("server.grpc", Effect.GRPC, "opens, moves or closes the listener of gRPC"),
    ("server.tls.**", Effect.TLS, "counts for new connections"),
    ("server.max_body", Effect.NOW, _AT_ONCE),
    ("server.request_timeout", Effect.NOW, _AT_ONCE),
    ("server.shutdown_timeout", Effect.NOW, "counts for the next stop"),
    ("server.keys.**", Effect.KEYS, _AT_ONCE),
    ("cache", Effect.STORES, "opens or closes the caches"),
    ("cache.directory", Effect.STORES, "opens the caches in another directory; what is in the old one stays there"),
    ("cache.exact.memory", Effect.CACHE, "takes effect at once; answers that do not fit any more are dropped"),
    ("cache.exact.disk", Effect.CACHE, "takes effect at once; answers that do not fit any more are dropped"),
    ("cache.exact.ttl", Effect.CACHE, "takes effect at once, for new answers"),
    ("cache.semantic", Effect.MEANINGS, "opens or closes the semantic cache"),
    ("cache.semantic.embedder", Effect.MEANINGS, "opens the semantic cache anew, for the new embedder's vectors"),
    ("cache.semantic.ttl", Effect.CACHE, "takes effect at once, for new answers"),
    ("cache.semantic.threshold", Effect.CACHE, _AT_ONCE),
    ("devices.gpus", Effect.GPUS, "restarts every replica on this machine; the old ones serve until then"),
    ("devices.host_memory", Effect.NOW, "takes effect at once; replicas above it are stopped when they are idle"),
    ("models.*.task", Effect.ENGINE, _ANEW),
    ("models.*.onnx.**", Effect.ENGINE, _ANEW),
    ("models.*.command.**", Effect.ENGINE, _ANEW),
    ("models.*.http.**", Effect.ENGINE, _UPSTREAM),
    ("models.*.pool.**", Effect.POOL, "takes effect at once, without a restart"),
    ("routes.**", Effect.ROUTES, _AT_ONCE),
    ("batch", Effect.QUEUE, "opens or closes the queue; what waits stays in its directory"),
    ("batch.directory", Effect.QUEUE, "opens the queue in another directory; what waits in the old one stays there"),
    ("batch.max_items", Effect.NOW, "takes effect at once, for new batches"),
    ("batch.max_bytes", Effect.NOW, "takes effect at once, for new batches"),
    ("batch.concurrency", Effect.NOW, "takes effect at once"),
    ("batch.keep", Effect.NOW, "takes effect at once"),
    ("batch.file_roots", Effect.NOW, "takes effect at once, for inputs that were not read yet"),
    ("batch.callback_secret", Effect.NOW, "signs the callbacks from now on"),
    ("batch.allow_private", Effect.NOW, "takes effect at once, for inputs and callbacks to come"),
    ("batch.s3_endpoint", Effect.NOW, "takes effect at once, for inputs that were not read yet"),
)


def effect_of(path: Path, old: Any, new: Any) -> tuple[Effect, str]:
    """Return what a change at this path does, and in words; `old` or `new` is None where the key is not written."""
    steps = [str(step) for step in path]
    name = steps[1] if len(steps) > 1 else ""
    if steps[0] == "models" and len(steps) == 2:  # noqa: PLR2004 - a model's entry itself
        if old is None:
            return Effect.MODEL_ADDED, f"serves {name} as soon as its engine is sound"
        return Effect.MODEL_REMOVED, f"takes no new requests for {name}; its streams end first"
    if steps == ["cache", "exact", "disk"] and "0B" in (old, new):
        return Effect.STORES, f"{_STORES}, with or without a disk"
    for pattern, effect, words in _RULES:
        if _fits(pattern.split("."), steps):
            return effect, words.format(name=name)
    return Effect.UNKNOWN, "is not known to this version of warmgate"


def _fits(pattern: list[str], steps: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern, steps = pattern[:-1], steps[: len(pattern) - 1]
    return len(pattern) == len(steps) and all(
        wanted in ("*", step) for wanted, step in zip(pattern, steps, strict=True)
    )
