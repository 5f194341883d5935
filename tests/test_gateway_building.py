"""What the gateway is built from, a room at a time: what is taken over, and what is opened anew."""

from pathlib import Path
from typing import Any

from config.load import parse
from gateway.building.caches import adjust, open_caches


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
    assert stricter.semantic.threshold == 0.99
    other = await open_caches(cache(), "v2", stricter)
    assert other.semantic is not None
    assert other.semantic is not stricter.semantic
    assert (other.exact, other.disk) == (first.exact, first.disk)
    await stricter.close(other)
    await other.close(None)
