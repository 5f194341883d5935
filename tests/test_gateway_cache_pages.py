"""`/admin/cache` and `/admin/cache/purge` as pages: what may be asked, who may ask, and what cannot be promised."""

from typing import Any

import orjson
import pytest

from cache.contract import Entry
from cache.exact import ExactCache
from cache.memory import MemoryStore
from cache.purges import Purges
from gateway.errors import Forbidden, InvalidRequest, PurgeNotSaved, UnknownPath, fault
from gateway.pages.cache_pages import CachePages, purge_of
from gateway.surfaces.wire import Call

KEY = bytes(range(32))


def entry(number: int = 0, *groups: str, stored_at: float = 1000.0, stamp: int = 0) -> Entry:
    """Return an entry of these groups."""
    return Entry(number.to_bytes(32), b"v" * 10, stored_at, 4e9, groups=groups, stamp=stamp)


def call(path: str, body: object = None, *, peer: str | None = "127.0.0.1", query: str = "", **headers: str) -> Call:
    """Make a call."""
    method = "GET" if body is None else "POST"
    return Call(method, path, headers, b"" if body is None else orjson.dumps(body), peer, query)


def pages(exact: ExactCache | None) -> Any:
    """Return the pages of this cache by their path."""
    table = CachePages(exact, models={"m": None}, clock=lambda: 2000.0).table()
    return {path: page for (_, path), page in table.items()}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "exactly one of all, model, version, route, tag, scope, key, older_than_s; got none"),
        ({"all": False}, "got none"),
        ({"all": True, "model": "m"}, "got all, model"),
        ({"all": "yes"}, "'all' must be true or false"),
        ({"model": ""}, "'model' is missing|'model' must be a non-empty string"),
        ({"model": 5}, "'model' must be a string"),
        ({"key": "abc"}, "'key' must be 64 hexadecimal digits"),
        ({"key": "zz" * 32}, "'key' must be 64 hexadecimal digits"),
        ({"older_than_s": -1}, "'older_than_s' must be a number from 0"),
        ({"models": "m", "all": True}, "'models' is unknown here"),
    ],
)
def test_what_makes_no_sense_is_refused_and_purges_nothing(body, said):
    """Each refusal names the field, what was given and what is allowed."""
    with pytest.raises(InvalidRequest, match=said):
        purge_of(body, 2000.0)


@pytest.mark.parametrize(
    ("body", "ended"),
    [
        ({"all": True}, entry()),
        ({"model": "m"}, entry(0, "model:m")),
        ({"version": "v1"}, entry(0, "version:v1")),
        ({"route": "chat"}, entry(0, "route:chat")),
        ({"tag": "news"}, entry(0, "tag:news")),
        ({"scope": ""}, entry(0, "scope:")),
        ({"scope": "team-a"}, entry(0, "scope:key:team-a")),
        ({"key": KEY.hex()}, Entry(KEY, b"v" * 10, 1000.0, 4e9)),
        ({"older_than_s": 500}, entry(0, stored_at=1400.0)),
    ],
)
async def test_what_a_dry_run_counts_is_what_the_purge_ends(body, ended):
    """The named entry and no other is counted, and then gone."""
    exact = ExactCache(MemoryStore(1 << 20), None, Purges(lambda: 2000.0))
    other = entry(7, "model:other", "version:v2", "route:r", "tag:t", "scope:key:team-b", stored_at=1900.0)
    for each in (ended, other):
        exact.keep(each)
    page = pages(exact)["/admin/cache/purge"]

    told = orjson.loads((await page(call("/admin/cache/purge", {**body, "dry_run": True}))).body)
    assert told == {"dry_run": True, "entries": 2 if "all" in body else 1, "bytes": 20 if "all" in body else 10}
    assert exact.peek(ended.key) is ended

    await page(call("/admin/cache/purge", body))
    assert exact.peek(ended.key) is None
    assert (exact.peek(other.key) is None) == ("all" in body)
    await exact.close()


async def test_the_pages_are_for_this_machine_alone():
    """Another machine, and a page of another site in a browser here, may neither look nor purge."""
    table = pages(ExactCache(MemoryStore(1 << 20), None))
    for path, body in (("/admin/cache", None), ("/admin/cache/purge", {"all": True})):
        with pytest.raises(Forbidden):
            await table[path](call(path, body, peer="192.0.2.1"))
        with pytest.raises(Forbidden):
            await table[path](call(path, body, origin="http://elsewhere.example", host="127.0.0.1"))


async def test_a_purge_that_may_not_outlast_the_process_is_an_error_that_says_so():
    """It is in force all the same; the status tells that it is worth asking again."""
    exact = ExactCache(MemoryStore(1 << 20), None)
    exact.keep(entry(1, "tag:x"))

    async def failing() -> bool:
        return False

    exact._save = failing  # type: ignore[method-assign]
    with pytest.raises(PurgeNotSaved, match="in force") as raised:
        await pages(exact)["/admin/cache/purge"](call("/admin/cache/purge", {"tag": "x"}))

    assert (fault(raised.value).status, fault(raised.value).retry) == (503, True)
    assert exact.peek(entry(1).key) is None


async def test_statistics_tell_of_each_tier_and_of_models_where_asked():
    """Entries, bytes, budget and hit ratio are there; another query than `by=model` is refused."""
    exact = ExactCache(MemoryStore(1 << 20), None)
    for number in range(3):
        exact.keep(entry(number, "model:m", f"version:v{number % 2}"))
    await exact.get(entry(1).key)
    await exact.get(entry(9).key)
    page = pages(exact)["/admin/cache"]

    told = orjson.loads((await page(call("/admin/cache", query="by=model"))).body)

    memory = told["tiers"]["memory"]
    assert (memory["entries"], memory["budget"], memory["hit_ratio"]) == (3, 1 << 20, 0.5)
    assert told["models"] == {"m": {"v0": {"entries": 2, "bytes": 20}, "v1": {"entries": 1, "bytes": 10}}}
    with pytest.raises(InvalidRequest, match="by=model"):
        await page(call("/admin/cache", query="by=tag"))


async def test_without_caches_the_pages_say_so():
    """Nothing to tell and nothing to purge is no internal error."""
    for path, body in (("/admin/cache", None), ("/admin/cache/purge", {"all": True})):
        with pytest.raises(UnknownPath, match="no section 'cache'"):
            await pages(None)[path](call(path, body))


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_model_that_is_in_no_config_is_told_and_purged_all_the_same(dry_run):
    """It may have been served before the last edit, or be misspelt: the operator is to see which."""
    page = pages(ExactCache(MemoryStore(1 << 20), None))["/admin/cache/purge"]

    async def told(body: dict[str, object]) -> object:
        return orjson.loads((await page(call("/admin/cache/purge", {**body, "dry_run": dry_run}))).body)

    counted = {"dry_run": dry_run, "entries": 0 if dry_run else None, "bytes": 0 if dry_run else None}
    assert await told({"model": "m"}) == counted
    assert await told({"tag": "other"}) == counted
    assert await told({"model": "other"}) == {**counted, "unknown_model": "other"}
