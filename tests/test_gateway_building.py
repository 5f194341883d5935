"""What the gateway is built from, a room at a time: what is taken over, and what is opened anew."""

import asyncio
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from backends.keeper import Keeper
from cache.contract import Entry, Meaning
from cache.trust.contract import Pair
from config import watch
from config.load import load, parse
from config.settings import Settings
from config.watch import digest_at
from gateway.building.caches import adjust, open_caches
from gateway.building.engines import pool_of
from gateway.building.faults import CannotServe
from gateway.building.reload import ConfigFile
from tests.fakes import FakeEngine


async def test_other_vectors_have_an_index_of_their_own(tmp_path: Path) -> None:
    """With another embedder the index is made anew, and the answers stay; a threshold alone changes in place."""
    text = "models: {e: {task: embed, command: {run: 'x {port}'}}}\ncache: {directory: %s, semantic: {embedder: e%s}}"

    def cache(more: str = "") -> Any:
        return parse(text % (tmp_path, more), {}, source="f.yaml").cache

    first = await open_caches(cache(), "v1", None)
    stricter = await open_caches(cache(", threshold: 0.99"), "v1", first)
    await adjust(stricter)
    assert stricter.semantic is first.semantic
    assert stricter.semantic is not None
    assert stricter.semantic.trust.preview("a", Pair(b"a", b"b"), 0.98).threshold == 0.99
    other = await open_caches(cache(), "v2", stricter)
    assert other.semantic is not None
    assert other.semantic is not stricter.semantic
    assert (other.exact, other.disk) == (first.exact, first.disk)
    await stricter.close(other)
    await other.close(None)


async def test_what_a_purge_ends_leaves_the_index_too(tmp_path: Path) -> None:
    """Nobody asks for it any more, and yet it neither takes memory nor hides what is as near."""
    text = "models: {e: {task: embed, command: {run: 'x {port}'}}}\ncache: {directory: %s, semantic: {embedder: e}}"
    caches = await open_caches(parse(text % tmp_path, {}, source="f.yaml").cache, "v1", None)
    assert caches.semantic is not None
    await adjust(caches)
    for number, group in enumerate(("old", "new")):
        meaning = Meaning(b"p" * 32, group, struct.pack("<2f", 1 - number, number))
        entry = Entry(bytes([number]) * 32, b"", time.time(), time.time() + 60, meaning, groups=(group,))
        caches.exact.keep(entry)
        caches.semantic.add(entry)
    await caches.exact.purge("old")
    await caches.exact.sweeper.wait()
    assert caches.semantic.entries == 1
    await caches.close(None)


def test_another_engine_takes_the_hints_over() -> None:
    """What was paid for and promised stays in force when an edit gives a model another engine."""
    settings = parse("models: {a: {task: chat, command: {run: 'x {port}'}}}", {}, source="f.yaml")
    keeper, now = Keeper(None, time.monotonic), time.monotonic()
    old = pool_of("a", settings, FakeEngine(), keeper, None)
    old.hints.give("key", 1, until=now + 300)
    other = FakeEngine()
    other.version = "fake-2"

    new = pool_of("a", settings, other, keeper, old)

    assert new.snapshot(now).hinted == 1
    assert new.hints.until("key", 1, now) == now + 300
    assert new.costs is not old.costs


async def test_a_directory_is_for_one_gateway(tmp_path: Path) -> None:
    """A second cache in a directory is refused until the first is closed, or handed over by an edit."""
    text = "cache: {directory: %s}\nmodels: {e: {task: embed, command: {run: 'x {port}'}}}"
    settings = parse(text % tmp_path, {}, source="f.yaml").cache
    assert settings is not None
    first = await open_caches(settings, None, None)
    with pytest.raises(OSError, match="another warmgate uses it"):
        await open_caches(settings, None, None)
    edited = await open_caches(settings, None, first)
    await first.close(edited)
    with pytest.raises(OSError, match="another warmgate uses it"):
        await open_caches(settings, None, None)
    await edited.close(None)
    again = await open_caches(settings, None, None)
    await again.close(None)


async def test_whatever_an_edit_runs_into_the_next_one_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Faults of ours are told and counted like those of the file, with their lines; the file is followed on."""
    monkeypatch.setattr(watch.Watch.__init__, "__kwdefaults__", {"look": None, "every_s": 0.005})
    file = tmp_path / "f.yaml"
    model = "models:\n  a: {task: chat, command: {run: 'x {port}'}}\n"
    file.write_text(model, encoding="utf-8")
    caplog.set_level("INFO")
    troubles: list[Exception | None] = [RuntimeError("a bug"), CannotServe(("models", "a"), "it is not there"), None]
    tried = asyncio.Event()

    class Gateway:
        """Has these troubles, one after the other."""

        def withdraw(self, newest: Settings) -> None:
            """Have nothing to take."""

        async def apply(self, settings: Settings) -> None:
            del settings
            tried.set()
            if (trouble := troubles.pop(0)) is not None:
                raise trouble

    config = ConfigFile(file, load(file, {}), digest_at(file))
    following = asyncio.create_task(config.follow(Gateway()))
    told = []
    for number in range(3):
        tried.clear()
        file.write_text(f"{model}# {number}\n", encoding="utf-8")
        async with asyncio.timeout(90):
            await tried.wait()
            while config._refused + config.state()["generation"] < number + 2:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.005)
        told.append([(fault["line"], fault["key"], fault["message"]) for fault in config.state()["faults"]])
    following.cancel()

    assert told == [
        [(None, "", "an internal error: RuntimeError('a bug')")],
        [(2, "models.a", "models.a: it is not there")],
        [],
    ]
    assert config.state()["generation"] == 2
    assert f"{file}:2: models.a: it is not there; what was in force before stays" in caplog.text
    assert caplog.messages[-1] == f"{file} is sound again: what it says is in force"
