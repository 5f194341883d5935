"""What a changed key does to a gateway that runs: one line for each key of the file. Knows no values of settings."""

from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a change of these keys does; `added` and `removed` where that is other words than `words`.

    In `keys`, `*` stands for any one step, and `**` at the end for any steps or none.
    """

    keys: str
    effect: Effect
    words: str
    added: str | None = None
    removed: str | None = None


_AT_ONCE = "takes effect at once, for new requests"
_NOT_YET_READ = "takes effect at once, for inputs that were not read yet"
_RESIZED = "takes effect at once; answers that do not fit any more are dropped"
_ANEW = "restarts the replicas of {name}; the old ones serve until the new ones are ready"
_UPSTREAM = "sends new requests for {name} to the changed upstream; those in flight end at the old one"

# The first that fits counts.
_RULES = (
    _Rule("server.listen", Effect.LISTEN, "listens there, and at the old address no more; open connections stay"),
    _Rule("server.hosts", Effect.NOW, _AT_ONCE),
    _Rule("server.grpc", Effect.GRPC, "moves the listener of gRPC", "listens for gRPC", "listens for gRPC no more"),
    _Rule("server.tls", Effect.TLS, "", "new connections must be HTTPS", "new connections are not encrypted"),
    _Rule("server.tls.**", Effect.TLS, "counts for new connections"),
    _Rule("server.max_body", Effect.NOW, _AT_ONCE),
    _Rule("server.max_connections", Effect.NOW, "takes effect at once; connections that are open stay"),
    _Rule("server.request_timeout", Effect.NOW, _AT_ONCE),
    _Rule("server.shutdown_timeout", Effect.NOW, "counts for the next stop"),
    _Rule("server.access_log", Effect.NOW, "takes effect at once, for requests that end from now on"),
    _Rule("server.keys", Effect.KEYS, _AT_ONCE),
    _Rule("server.keys.*", Effect.KEYS, "", "may call as soon as the edit is in force", "is refused at once"),
    _Rule("server.keys.**", Effect.KEYS, _AT_ONCE),
    _Rule("cache", Effect.STORES, "", "opens the caches", "closes the caches; what is on disk stays there"),
    _Rule("cache.directory", Effect.STORES, "opens the caches there; what is in the old directory stays"),
    _Rule("cache.graphs", Effect.NOW, "takes effect at once; the oldest graphs that do not fit are dropped"),
    _Rule("cache.exact.memory", Effect.CACHE, _RESIZED),
    _Rule("cache.exact.disk", Effect.CACHE, _RESIZED),
    _Rule("cache.exact.ttl", Effect.CACHE, "takes effect at once; a longer one for new answers alone"),
    _Rule("cache.exact.jitter", Effect.CACHE, "takes effect at once, for new answers"),
    _Rule("cache.exact.max_stale", Effect.CACHE, "takes effect at once; answers are kept so much longer from now on"),
    _Rule("cache.shared", Effect.STORES, "", "opens the shared tier", "closes the shared tier; what is there stays"),
    _Rule("cache.shared.url", Effect.STORES, "opens the shared tier there; what is in the old one stays"),
    _Rule("cache.shared.**", Effect.CACHE, _AT_ONCE),
    _Rule("cache.semantic", Effect.MEANINGS, "", "opens the semantic cache", "closes the semantic cache"),
    _Rule("cache.semantic.embedder", Effect.MEANINGS, "opens the semantic cache anew, for other vectors"),
    _Rule("cache.semantic.verifier", Effect.CACHE, "takes effect at once; what was learned of hits is learned anew"),
    _Rule("cache.semantic.ttl", Effect.CACHE, "takes effect at once; a longer one for new answers alone"),
    _Rule("cache.semantic.threshold", Effect.CACHE, _AT_ONCE),
    _Rule("cache.semantic.max_wrong_hits", Effect.CACHE, "takes effect at once; what was learned stays"),
    _Rule("cache.semantic.audit.**", Effect.CACHE, "takes effect at once; what was learned stays"),
    _Rule("cache.semantic.budget", Effect.CACHE, _AT_ONCE),
    _Rule(
        "cache.semantic.memory", Effect.CACHE, "takes effect at once; the oldest vectors that do not fit are dropped"
    ),
    _Rule("devices.gpus", Effect.GPUS, "restarts every replica on this machine; the old ones serve until then"),
    _Rule("devices.gpu_memory", Effect.NOW, "takes effect at once, for replicas that start"),
    _Rule("devices.hint_memory", Effect.NOW, "takes effect at once; hints that were granted stay"),
    _Rule("devices.host_memory", Effect.NOW, "takes effect at once; idle replicas that exceed it are stopped"),
    _Rule(
        "models.*",
        Effect.ENGINE,
        "",
        "serves {name} as soon as its engine is sound",
        "takes no new requests for {name}; those in flight end first",
    ),
    _Rule("models.*.task", Effect.ENGINE, _ANEW),
    _Rule("models.*.onnx.**", Effect.ENGINE, _ANEW),
    _Rule("models.*.command.**", Effect.ENGINE, _ANEW),
    _Rule("models.*.http.**", Effect.ENGINE, _UPSTREAM),
    _Rule("models.*.pool.**", Effect.POOL, "takes effect at once, without a restart"),
    _Rule("routes.*", Effect.ROUTES, "", "may be called at once", "takes no new requests; those in flight end first"),
    _Rule("routes.**", Effect.ROUTES, _AT_ONCE),
    _Rule("batch", Effect.QUEUE, "", "opens the queue", "closes the queue; what waits stays in its directory"),
    _Rule("batch.directory", Effect.QUEUE, "opens the queue there; what waits in the old directory stays"),
    _Rule("batch.max_items", Effect.NOW, "takes effect at once, for new batches"),
    _Rule("batch.max_bytes", Effect.NOW, "takes effect at once, for new batches"),
    _Rule("batch.concurrency", Effect.NOW, "takes effect at once"),
    _Rule("batch.keep", Effect.NOW, "takes effect at once"),
    _Rule("batch.file_roots", Effect.NOW, _NOT_YET_READ),
    _Rule("batch.s3_buckets", Effect.NOW, _NOT_YET_READ),
    _Rule("batch.callback_secret", Effect.NOW, "takes effect at once, for callbacks to come"),
    _Rule("batch.allow_private", Effect.NOW, "takes effect at once, for inputs and callbacks to come"),
    _Rule("batch.s3_endpoint", Effect.NOW, _NOT_YET_READ),
)


def effect_of(path: Path, old: Any, new: Any) -> tuple[Effect, str]:
    """Return what a change at this path does, and in words; `old` or `new` is None where the key is not written."""
    steps = [str(step) for step in path]
    rule = next((rule for rule in _RULES if _fits(rule.keys.split("."), steps)), None)
    if rule is None:
        return Effect.UNKNOWN, "is not known to this version of warmgate"
    if rule.keys == "models.*":
        effect = Effect.MODEL_ADDED if old is None else Effect.MODEL_REMOVED
    elif rule.keys == "cache.exact.disk" and "0B" in (old, new):
        return Effect.STORES, "opens the caches anew, with or without a disk"
    else:
        effect = rule.effect
    words = (old is None and rule.added) or (new is None and rule.removed) or rule.words
    return effect, words.format(name=steps[1] if len(steps) > 1 else "")


def _fits(pattern: list[str], steps: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern, steps = pattern[:-1], steps[: len(pattern) - 1]
    return len(pattern) == len(steps) and all(
        wanted in ("*", step) for wanted, step in zip(pattern, steps, strict=True)
    )
