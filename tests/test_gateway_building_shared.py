"""The shared tier over edits of the file: taken over, opened elsewhere, closed."""

from pathlib import Path
from typing import Any

from config.load import parse
from gateway.building.caches import adjust, open_caches
from tests.redis_server import RedisServer
from tests.shared_tier import make_entry, name_of


async def test_an_edit_takes_the_tier_over_moves_it_or_closes_it(tmp_path: Path, make_redis: Any) -> None:
    """Another time limit changes in place, another URL opens another tier; the answers in memory stay throughout."""
    servers: list[RedisServer] = [make_redis(), make_redis()]
    text = "models: {e: {task: chat, command: {run: 'x {port}'}}}\ncache: {directory: %s%s}"

    def cache(more: str = "") -> Any:
        return parse(text % (tmp_path, more), {}, source="f.yaml").cache

    def shared(server: RedisServer, more: str = "") -> Any:
        return cache(f', shared: {{url: "{server.url}"{more}}}')

    first = await open_caches(shared(servers[0]), None, None)
    await adjust(first)
    assert first.shared is not None
    first.exact.keep(make_entry(1))
    same = await open_caches(shared(servers[0], ", single_flight: false, timeout: 1s"), None, first)
    await adjust(same)
    assert same.shared is first.shared is same.exact.shared
    assert not same.shared.leads
    await first.close(same)

    moved = await open_caches(shared(servers[1]), None, same)
    assert moved.shared is not same.shared
    # Until the edit takes over, what serves goes on with what it had; where it is refused this is all there was.
    assert moved.exact.shared is same.shared
    await adjust(moved)
    await same.close(moved)
    assert moved.exact is first.exact
    assert moved.exact.peek(make_entry(1).key) is not None
    moved.exact.keep(make_entry(2))

    none = await open_caches(cache(), None, moved)
    await adjust(none)
    await moved.close(none)
    assert none.exact.shared is None
    assert none.exact.peek(make_entry(2).key) is not None
    await none.close(None)
    for n, server in enumerate(servers, 1):
        assert server.command("EXISTS", name_of(make_entry(n).key)) == b":1\r\n"
        assert b"connected_clients:1\r\n" in server.command("INFO", "clients")
