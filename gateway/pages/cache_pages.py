"""`/admin/cache` and `/admin/cache/purge`: what the caches hold, and ending what they should not. Knows no server."""

import dataclasses
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple

import orjson

from cache.contract import Entry
from cache.exact import ExactCache
from cache.purges import ALL, of_model, of_route, of_scope, of_tag, of_version
from gateway.errors import InvalidRequest, PurgeNotSaved, UnknownPath
from gateway.fields import flag, number, parse_object, refuse, said, shown
from gateway.front import Page
from gateway.pages.loopback import only_loopback
from gateway.surfaces.wire import JSON, Call, Reply

STATS_PATH = "/admin/cache"
PURGE_PATH = "/admin/cache/purge"
# As long as any life of an answer may be.
_MOST_SECONDS = 10 * 365 * 86400.0
_KEY_BYTES = 32
_GROUPS: Mapping[str, Callable[[str], str]] = {
    "model": of_model,
    "version": of_version,
    "route": of_route,
    "tag": of_tag,
}
CHOICES = ("all", *_GROUPS, "scope", "key", "older_than_s")


class Purge(NamedTuple):
    """What a call wants to end: how to do so, and which entries that would be."""

    act: Callable[[ExactCache], Awaitable[bool]]
    concerns: Callable[[Entry], bool]


class CachePages:
    """The pages by method and path; without caches they say that there are none. `models` are those of the config."""

    def __init__(
        self,
        exact: ExactCache | None,
        more: Callable[[], Mapping[str, Any]] = dict,
        *,
        models: Collection[str],
        clock: Callable[[], float],
    ) -> None:
        self._exact = exact
        self._more = more
        self._models = models
        self._clock = clock

    def table(self) -> dict[tuple[str, str], Page]:
        """Return the pages by (method, path)."""
        return {("GET", STATS_PATH): self._stats, ("POST", PURGE_PATH): self._purge}

    async def _stats(self, call: Call) -> Reply:
        """Tell what each tier holds and what happened in it; with `by=model` also whose answers are alive."""
        only_loopback(call)
        exact = self._cache()
        memory, disk = exact.memory, exact.disk
        tiers: dict[str, Any] = {
            "memory": {
                "entries": len(memory),
                "bytes": memory.used_bytes,
                "budget": memory.max_bytes,
                **_counted(memory.counters),
            }
        }
        if disk is not None:
            volume = await disk.volume()
            entries, used = volume or (None, None)
            tiers["disk"] = {"entries": entries, "bytes": used, "budget": disk.max_bytes, **_counted(disk.counters)}
        told = {
            "tiers": {**tiers, **self._more()},
            "purges": {
                "asked": exact.purges.count,
                "marks": exact.purges.in_force,
                "cleared_away": exact.sweeper.removed,
                **dataclasses.asdict(exact.counters),
            },
        }
        if call.query == "by=model":
            told["models"] = await _by_model(exact)
        elif call.query:
            raise InvalidRequest(f"the query may be 'by=model', got {shown(call.query)}", "by")
        return _json(told)

    async def _purge(self, call: Call) -> Reply:
        """End what the body names, or with `dry_run` tell how much that would be."""
        only_loopback(call)
        exact = self._cache()
        body = parse_object(call.body)
        dry_run, purge = flag(body, "dry_run"), purge_of(body, self._clock())
        model = body.get("model")
        # It may be one that was served before; or it is misspelt.
        unknown = {} if model is None or model in self._models else {"unknown_model": model}
        if dry_run:
            census = await exact.census(purge.concerns)
            return _json({"dry_run": True, "entries": census.entries, "bytes": census.value_bytes, **unknown})
        if not await purge.act(exact):
            raise PurgeNotSaved(
                "the purge is in force, but the disk did not take it: it is tried again with each write,"
                " and until then a restart may undo it"
            )
        return _json({"dry_run": False, "entries": None, "bytes": None, **unknown})

    def _cache(self) -> ExactCache:
        if self._exact is None:
            raise UnknownPath("nothing is cached: the config has no section 'cache'")
        return self._exact


def purge_of(body: Mapping[str, Any], now: float) -> Purge:
    """Read what is to be purged. Raises `InvalidRequest` unless exactly one thing is named."""
    named = [name for name in CHOICES if not (body.get(name) is None or body[name] is False)]
    unknown = next((name for name in body if name not in (*CHOICES, "dry_run")), None)
    if unknown is not None:
        raise InvalidRequest(f"'{unknown}' is unknown here: give one of {', '.join(CHOICES)}, and 'dry_run'", unknown)
    if len(named) != 1:
        raise InvalidRequest(f"give exactly one of {', '.join(CHOICES)}; got {', '.join(named) or 'none'}")
    return _READERS[named[0]](body, named[0], now)


def _all(body: Mapping[str, Any], name: str, _: float) -> Purge:
    flag(body, name)
    return Purge(lambda exact: exact.purge(ALL), lambda _: True)


def _group(body: Mapping[str, Any], name: str, _: float) -> Purge:
    word = said(body, name)
    if not word:
        raise refuse(name, word, "a non-empty string")
    return _of_group(_GROUPS[name](word))


def _scope(body: Mapping[str, Any], name: str, _: float) -> Purge:
    key_name = said(body, name)
    return _of_group(of_scope(f"key:{key_name}" if key_name else ""))


def _key(body: Mapping[str, Any], name: str, _: float) -> Purge:
    try:
        key = bytes.fromhex(said(body, name) or "")
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise refuse(name, body[name], f"{2 * _KEY_BYTES} hexadecimal digits")
    return Purge(lambda exact: exact.purge_key(key), lambda entry: entry.key == key)


def _age(body: Mapping[str, Any], name: str, now: float) -> Purge:
    age_s = number(body, name, 0, _MOST_SECONDS)
    assert age_s is not None, "it is named"
    return Purge(
        lambda exact: exact.purge_stored_by(now - age_s),
        lambda entry: entry.stored_at <= now - age_s,
    )


def _of_group(group: str) -> Purge:
    return Purge(lambda exact: exact.purge(group), lambda entry: group in entry.groups)


_READERS: Mapping[str, Callable[[Mapping[str, Any], str, float], Purge]] = {
    "all": _all,
    **dict.fromkeys(_GROUPS, _group),
    "scope": _scope,
    "key": _key,
    "older_than_s": _age,
}


def _counted(counters: Any) -> dict[str, Any]:
    told = dataclasses.asdict(counters)
    asked = counters.hits + counters.misses
    return {**told, "hit_ratio": round(counters.hits / asked, 4) if asked else None}


async def _by_model(exact: ExactCache) -> dict[str, dict[str, dict[str, int]]]:
    """Count the living answers by the model that gave them, and by its version."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    seen: set[bytes] = set()
    async for batch in exact.entries():
        for entry in batch:
            if entry.key in seen:
                continue
            seen.add(entry.key)
            versions = found.setdefault(_named(entry, "model:"), {})
            told = versions.setdefault(_named(entry, "version:"), {"entries": 0, "bytes": 0})
            told["entries"] += 1
            told["bytes"] += len(entry.value)
    return found


def _named(entry: Entry, kind: str) -> str:
    return next((group.removeprefix(kind) for group in entry.groups if group.startswith(kind)), "")


def _json(value: Any) -> Reply:
    return Reply(200, {"Content-Type": JSON}, orjson.dumps(value))
