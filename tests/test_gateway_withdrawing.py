"""What an edit takes from keys is in force before its slow parts, and where these fail."""

import asyncio
import hashlib
import http.client
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from config import watch
from config.load import parse
from config.settings import ServerSettings
from config.watch import digest_at
from gateway.app import Gateway
from gateway.building.keys import Withdrawn, withdrawn
from gateway.building.reload import ConfigFile
from gateway.callers.auth import Gatekeeper, Key, by_name, narrowed
from gateway.errors import Unauthorized
from gateway.request import Limits
from tests.generation_house import Engines, running, settings, text, until, without_processes

SERVED = "  a: {task: chat, command: {run: '%s {port}'}, pool: {min: 1}}"


def sha256(key: str) -> str:
    """Return what settings have of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def keys(*names: str, **more: str) -> str:
    """Write keys, each the name itself; `more` has what else is said of some."""
    said = [f"{{name: {name}, sha256: {sha256(name)}{more.get(name, '')}}}" for name in names]
    return f"keys: [{', '.join(said)}]"


def known(gatekeeper: Gatekeeper, *presented: str) -> list[str]:
    """Return which of the keys open anything."""
    found = []
    for key in presented:
        with suppress(Unauthorized):
            gatekeeper.identify({"x-api-key": key}, "127.0.0.1")
            found.append(key)
    return found


@pytest.mark.parametrize(
    ("models", "newer", "both"),
    [
        (["*"], ["*"], ("*",)),
        (["*"], ["a"], ("a",)),
        (["a"], ["b", "*"], ("a",)),
        (["a", "b"], ["b", "c"], ("b",)),
        (["a"], ["b"], ()),
    ],
)
def test_a_key_opens_what_both_open(models: Sequence[str], newer: Sequence[str], both: Sequence[str]) -> None:
    """Fewer models and lower limits count, more and higher ones do not yet."""
    old = Key("k", "00", tuple(models), Limits(10, None, 3))
    new = Key("k", "01", tuple(newer), Limits(20, 7, 2))
    assert narrowed([old], [new], by_name) == (Key("k", "00", tuple(both), Limits(10, 7, 2)),)


def test_keys_that_newer_ones_lack_are_refused_until_they_have_them() -> None:
    """Neither removed keys nor old digests open anything, new ones do not yet; loopback needs a key to the last."""
    one, two = (Key(name, sha256(name)) for name in ("one", "two"))
    gatekeeper = Gatekeeper([one, two])
    gatekeeper.narrow([Key("one", sha256("other")), two, Key("three", sha256("three"))])
    assert known(gatekeeper, "one", "other", "two", "three") == ["two"]
    assert gatekeeper.of_scope("key:one") is not None  # what it has left behind goes on: its tenant has a new key

    gatekeeper.narrow([])
    assert gatekeeper.keyed
    assert gatekeeper.of_scope("key:one") is gatekeeper.of_scope("") is None
    for headers in ({}, {"x-api-key": "one"}):
        with pytest.raises(Unauthorized):
            gatekeeper.identify(headers, "127.0.0.1")

    gatekeeper.narrow([one])
    assert known(gatekeeper, "one", "two") == ["one"]


def test_the_first_keys_come_with_the_edit() -> None:
    """A gateway without keys serves loopback until it has some."""
    gatekeeper = Gatekeeper([])
    gatekeeper.narrow([Key("one", sha256("one"))])
    assert gatekeeper.identify({}, "127.0.0.1").scope == ""


def test_who_lacks_something_is_told() -> None:
    """Names of keys that are removed or have another digest, and of those that may do less."""

    def server(more: str) -> ServerSettings:
        models = "models: {a: {task: chat, command: {run: 'x {port}'}}}"
        return parse(f"server: {{{more}}}\n{models}", {}, source="f").server

    old = server(keys("one", "two", "three", "four", three=", requests_per_minute: 5"))
    new = server(keys("five", "four", "three", "two", two=", models: [a]").replace(sha256("four"), sha256("4")))
    assert withdrawn(old, new) == Withdrawn(("one", "four"), ("two",))
    assert str(withdrawn(old, new)) == "server.keys: refused 'one', 'four'; narrowed 'two'"
    assert not withdrawn(old, old)
    assert not withdrawn(server(""), old)


@pytest.fixture(name="engines")
def _engines(monkeypatch: pytest.MonkeyPatch) -> Engines:
    monkeypatch.setattr(watch.Watch.__init__, "__kwdefaults__", {"look": None, "every_s": 0.005})
    return without_processes(monkeypatch)


class House:
    """A gateway that follows its file."""

    def __init__(self, directory: Path, gateway: Gateway, config: ConfigFile) -> None:
        self.directory = directory
        self.gateway = gateway
        self.config = config

    def save(self, *names: str, engine: str = "one", **more: str) -> None:
        """Save a file with these keys and this engine."""
        made = text(
            self.directory, listen="127.0.0.1:0", server=keys(*names, **more), models=SERVED % engine, cache=True
        )
        (self.directory / "f.yaml").write_text(made, encoding="utf-8")

    def known(self) -> list[str]:
        """Return which keys open anything now."""
        return known(self.gateway.generation.gatekeeper, "one", "two")


@asynccontextmanager
async def following_its_file(directory: Path) -> AsyncIterator[House]:
    """Run one that looks at its file all the time."""
    first, file = settings(directory, server=keys("one", "two")), directory / "f.yaml"
    async with running(first) as gateway:
        config = ConfigFile(file, first, digest_at(file))
        following = asyncio.create_task(config.follow(gateway))
        try:
            yield House(directory, gateway, config)
        finally:
            following.cancel()
            await asyncio.wait([following])
    assert following.cancelled()


async def test_a_removed_key_waits_for_no_engine(engines: Engines, tmp_path: Path) -> None:
    """It is refused while new replicas start, and one of a later edit while that waits; the page tells of both."""
    del engines
    async with following_its_file(tmp_path) as house:
        before = house.gateway.generation
        house.save("two", engine="slow")
        await until(lambda: house.config.state()["applying_since"])
        assert house.known() == ["two"]
        state = house.config.state()
        assert (state["generation"], state["waiting_since"], state["refused_keys"]) == (1, None, ("one",))

        house.save("one", engine="slower")
        await until(lambda: house.config.state()["waiting_since"])
        assert house.known() == ["one"]  # it was put back where it is still in force
        assert house.config.state()["refused_keys"] == ("two",)
        assert house.config.state()["applying_since"] == state["applying_since"]

        (house.directory / "f.yaml").write_text("models: {", encoding="utf-8")
        await until(lambda: house.config.state()["faults"])
        assert house.known() == ["one"]
        assert house.config.state()["waiting_since"]
        assert house.gateway.generation is before


async def test_a_removed_key_stays_refused_where_the_rest_fails(
    engines: Engines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was in force serves on without it; log and page say so, until a sound file has it again."""
    del engines
    async with following_its_file(tmp_path) as house:
        house.save("two", engine="fails", two=", concurrency: 1")
        await until(lambda: house.config.state()["faults"])
        state = house.config.state()
        assert house.known() == ["two"]
        assert (state["generation"], state["refused_keys"], state["narrowed_keys"]) == (1, ("one",), ("two",))
        assert state["applying_since"] is None
        assert "what was in force before stays, but for server.keys: refused 'one'; narrowed 'two'" in caplog.text

        house.save("one", "two")
        await until(lambda: house.config.state()["generation"] == 2)
        assert house.known() == ["one", "two"]
        assert (house.config.state()["faults"], house.config.state()["refused_keys"]) == ([], ())


@pytest.mark.parametrize(("engine", "generation"), [("two", 2), ("missing", 1)])
async def test_of_edits_in_a_row_the_fault_of_the_last_is_told(
    engines: Engines, tmp_path: Path, engine: str, generation: int
) -> None:
    """Where an edit comes into force, or fails, after a newer one was refused, the newer one's fault stands."""
    del engines
    async with following_its_file(tmp_path) as house:
        held = asyncio.Event()
        apply = house.gateway.apply

        async def later(coming: object) -> None:
            await held.wait()
            await apply(coming)  # type: ignore[arg-type]

        house.gateway.apply = later  # type: ignore[method-assign]
        house.save("one", "two", engine=engine)
        await until(lambda: house.config.state()["applying_since"])
        (house.directory / "f.yaml").write_text("models: {", encoding="utf-8")
        await until(lambda: house.config.state()["faults"])
        held.set()
        await until(lambda: house.config.state()["applying_since"] is None)
        assert house.config.state()["generation"] == generation
        assert house.config.state()["faults"][0]["line"] == 1


async def test_an_edit_under_way_brings_no_key_that_a_newer_one_lacks(engines: Engines, tmp_path: Path) -> None:
    """What comes into force lacks it from its first request on."""
    del engines
    async with running(settings(tmp_path, server=keys("one"))) as gateway:
        gateway.withdraw(settings(tmp_path, server=keys("two")))
        await gateway.apply(settings(tmp_path, server=keys("one", "two")))
        assert known(gateway.generation.gatekeeper, "one", "two") == ["two"]


async def test_a_head_that_is_known_is_refused_with_its_key(engines: Engines, tmp_path: Path) -> None:
    """On a connection that is kept, also where the bytes alone were enough to answer before."""
    del engines
    body = json.dumps({"model": "a", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}).encode()

    def ask(kept: socket.socket, key: str) -> int:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n"
        # In one piece: what comes in two the lane does not take.
        kept.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        with closing(http.client.HTTPResponse(kept)) as response:
            response.begin()
            response.read()
            return response.status

    async with running(settings(tmp_path, server=keys("one", "two"))) as gateway:
        hits = gateway.generation.lane.heads
        with socket.create_connection(gateway.listeners.http_address, timeout=90) as kept:
            for _ in range(4):
                assert await asyncio.to_thread(ask, kept, "one") == 200
            assert any(group.prepared for group in hits._groups.values())
            gateway.withdraw(settings(tmp_path, server=keys("two")))
            assert await asyncio.to_thread(ask, kept, "one") == 401
            assert await asyncio.to_thread(ask, kept, "two") == 200
