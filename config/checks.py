"""What settings must hold between each other and on this machine, once each is well formed. Knows nothing of lines."""

import ipaddress
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from config.problems import Path, suggestion
from config.settings import BatchSettings, ModelSettings, PoolSettings, RouteSettings, ServerSettings, Settings

ENGINES = ("onnx", "command", "http")
_MOST_WRONG_HITS = 0.5
# What an upstream's client puts behind the base URL by itself.
_REQUEST_PATHS = ("/chat/completions", "/completions", "/embeddings", "/messages", "/models")


@dataclass(frozen=True, slots=True)
class Conflict:
    """A value that the rest of the settings forbids; `value` is None where the fault is not in one value.

    `because` has the other places that the fault rests on: where one of them cannot be read, there may be no fault.
    """

    path: Path
    value: object | None
    message: str
    because: tuple[Path, ...] = ()


def conflicts(settings: Settings) -> Iterator[Conflict]:
    """Yield every conflict of the settings."""
    if not settings.models:
        yield Conflict(("models",), None, "there is none: name at least one model")
    yield from _of_server(settings.server)
    yield from _of_keys(settings)
    yield from _of_helpers(settings)
    yield from _of_audit(settings)
    for name, model in settings.models.items():
        yield from _of_model(("models", name), model)
    for name, route in settings.routes.items():
        yield from _of_route(name, route, settings)
    if settings.batch is not None:
        yield from _of_file_roots(settings.batch)


def cautions(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what can be served and is hardly what the operator means, each with its key."""
    server = settings.server
    for field, address in (("listen", server.listen), ("grpc", server.grpc)):
        if not server.keys and address is not None and not _is_loopback(address.host):
            yield (
                ("server", field),
                f"other machines reach {address}, and are refused: without 'server.keys' only this machine is served",
            )
    for name, model in settings.models.items():
        if model.http is not None and (caution := _about_url(model.http.url)) is not None:
            yield ("models", name, "http", "url"), caution


def _about_url(url: str) -> str | None:
    """Return what is odd about an upstream's base URL, or None."""
    path = urlsplit(url).path
    ending = next((ending for ending in _REQUEST_PATHS if path.endswith(ending)), None)
    if ending is not None:
        base = url.removesuffix(ending)
        return f"{url} is the address of one kind of request: those paths are put behind it, so write {base}"
    if not path:
        return f"{url} has no path, so that requests go to {url}/…: most upstreams want {url}/v1"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _of_server(server: ServerSettings) -> Iterator[Conflict]:
    if server.grpc is not None and server.grpc.port and server.grpc == server.listen:
        message = "is server.listen too: give each its own port"
        yield Conflict(("server", "grpc"), server.grpc, message, (("server", "listen"),))
    if server.tls is not None:
        for field, file in (("certificate", server.tls.certificate), ("key", server.tls.key)):
            fault = None if file.is_file() else "is not a file"
            if fault or not os.access(file, os.R_OK):
                yield Conflict(("server", "tls", field), file, fault or "may not be read")


def _of_keys(settings: Settings) -> Iterator[Conflict]:
    callable_names = {*settings.models, *settings.routes}
    names: set[str] = set()
    digests: dict[str, str] = {}
    for index, key in enumerate(settings.server.keys):
        path: Path = ("server", "keys", index)
        if key.name in names:
            yield Conflict((*path, "name"), key.name, "names two keys: give each its own name")
        names.add(key.name)
        if key.sha256 in digests:
            message = f"is the digest of {digests[key.sha256]} too: give each client its own key"
            yield Conflict((*path, "sha256"), None, message)
        digests[key.sha256] = key.name
        for position, model in enumerate(key.models):
            if model != "*" and model not in callable_names:
                yield _unknown((*path, "models", position), model, callable_names, "a model or route")


def _of_helpers(settings: Settings) -> Iterator[Conflict]:
    """Look whether the models that the semantic cache asks can do what it asks of them."""
    if settings.cache is None or settings.cache.semantic is None:
        return
    semantic = settings.cache.semantic
    for role, name, task in (("embedder", semantic.embedder, "embed"), ("verifier", semantic.verifier, "infer")):
        path: Path = ("cache", "semantic", role)
        able = {each for each, model in settings.models.items() if model.task == task}
        if name is not None and name not in settings.models:
            yield _unknown(path, name, able, f"a model of task {task}")
        elif name is not None and name not in able:
            found = settings.models[name].task
            yield Conflict(path, name, f"has the task {found}: the {role} needs one of task {task}")


def _of_audit(settings: Settings) -> Iterator[Conflict]:
    if settings.cache is None or settings.cache.semantic is None:
        return
    path: Path = ("cache", "semantic", "audit")
    audit = settings.cache.semantic.audit
    judges = {name for name, model in settings.models.items() if model.task == "chat"}
    wrong = settings.cache.semantic.max_wrong_hits
    if wrong is not None and not 0 < wrong <= _MOST_WRONG_HITS:
        place = ("cache", "semantic", "max_wrong_hits")
        yield Conflict(place, wrong, "is not above 0% and at most 50%: to serve no other wording leave semantic out")
    if not audit.share:
        yield Conflict((*path, "share"), audit.share, "is 0%: what nobody checks cannot be promised")
    if audit.start_share < audit.share:
        message = f"is less than audit.share, which is {audit.share:g}"
        yield Conflict((*path, "start_share"), audit.start_share, message, ((*path, "share"),))
    if audit.compare == "judge" and audit.judge is None:
        yield Conflict((*path, "compare"), audit.compare, "needs audit.judge: name a model of task chat", (path,))
    elif audit.judge is not None and audit.judge not in judges:
        yield _unknown((*path, "judge"), audit.judge, judges, "a model of task chat")


def _of_model(path: Path, model: ModelSettings) -> Iterator[Conflict]:
    engines = [engine for engine in ENGINES if getattr(model, engine) is not None]
    if not engines:
        yield Conflict(path, None, f"has no engine: give it one of {', '.join(ENGINES)}")
    elif len(engines) > 1:
        yield Conflict(path, None, f"has the engines {' and '.join(engines)}: keep one")
    pool = model.pool
    if pool.min > pool.max:
        message = f"is more than pool.max, which is {pool.max}"
        yield Conflict((*path, "pool", "min"), pool.min, message, ((*path, "pool", "max"),))
    for index, hours in enumerate(pool.schedule):
        if hours.min > pool.max:
            message = f"is more than pool.max, which is {pool.max}"
            yield Conflict((*path, "pool", "schedule", index, "min"), hours.min, message, ((*path, "pool", "max"),))
    yield from _of_task(path, model)
    if engines == ["http"]:
        for field in sorted(pool.model_fields_set - {"queue"}):
            key = PoolSettings.model_fields[field].alias or field
            yield Conflict((*path, "pool", key), None, "an http upstream has no replicas of ours: remove it")


def _of_task(path: Path, model: ModelSettings) -> Iterator[Conflict]:
    path = (*path, "task")
    if model.task == "infer" and model.onnx is None:
        yield Conflict(path, model.task, "needs the engine onnx: nothing else takes tensors", (path[:-1],))
    elif model.task == "relay" and model.onnx is not None:
        yield Conflict(path, model.task, "needs the engine command or http: onnx has nothing to pass through to")
    elif model.http is not None and model.http.api == "anthropic" and model.task != "chat":
        yield Conflict(path, model.task, "is not chat, which is all that an upstream with the api anthropic does")


def _of_file_roots(batch: BatchSettings) -> Iterator[Conflict]:
    for index, root in enumerate(batch.file_roots):
        if not root.is_absolute():
            yield Conflict(("batch", "file_roots", index), root, "is not an absolute path")
        elif not root.is_dir():
            yield Conflict(("batch", "file_roots", index), root, "is not a directory")


def _of_route(name: str, route: RouteSettings, settings: Settings) -> Iterator[Conflict]:
    path: Path = ("routes", name)
    if name in settings.models:
        yield Conflict(path, None, "is the name of a model too: rename one")
    if (route.split is None) == (route.candidates is None):
        yield Conflict(path, None, "needs exactly one of split and candidates")
    elif not (route.split or route.candidates):
        yield Conflict(path, None, "names no model")
    seen: dict[str, str] = {}
    for place, model in _members(path, route):
        if model not in settings.models:
            yield _unknown(place, model, settings.models, "a model")
        elif model in seen:
            yield Conflict(place, model, "is named twice in this route")
        else:
            seen[model] = settings.models[model].task
            first = next(iter(seen))
            if seen[model] != seen[first]:
                message = f"has the task {seen[model]}, and {first} has {seen[first]}: a route has one task"
                yield Conflict(place, model, message)


def _members(path: Path, route: RouteSettings) -> Iterator[tuple[Path, str]]:
    """Yield every model that a route names, with the place where it does."""
    for name in route.split or {}:
        yield (*path, "split", name), name
    for field, names in (("candidates", route.candidates or ()), ("fallback", route.fallback)):
        for index, name in enumerate(names):
            yield (*path, field, index), name


def _unknown(path: Path, name: str, known: Iterable[str], kind: str) -> Conflict:
    names = sorted(known)
    known_words = f"there are {', '.join(names)}" if names else "there is none"
    message = f"is not {kind}{suggestion(name, names)} ({known_words})"
    return Conflict(path, name, message, (("models", name), ("routes", name)))
