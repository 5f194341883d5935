"""Keeps what pools learned of their models over a restart, in one JSON file. Knows not what was learned."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from backends.onnx import OnnxEngine
from backends.pool import Pool

_log = logging.getLogger(__name__)

_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Learned:
    """The pools that learn, and the file that keeps it; None where nothing is to be remembered."""

    file: Path | None
    pools: Mapping[str, Pool]


async def load(file: Path | None, pools: Mapping[str, Pool]) -> None:
    """Give these pools what is known of them; what was learned of another version of a model is left out."""
    if file is not None:
        _load(await asyncio.to_thread(_read, file), pools)


@asynccontextmanager
async def kept(learning: Callable[[], Learned]) -> AsyncIterator[None]:
    """Save what is learned now and then and at the end."""
    saving = asyncio.create_task(_save_often(learning), name="learned")
    try:
        yield
    finally:
        saving.cancel()
        with suppress(asyncio.CancelledError):
            await saving
        await _save(learning())


def _load(known: Mapping[str, Any], pools: Mapping[str, Pool]) -> None:
    for model, pool in pools.items():
        record = known.get(model)
        if not isinstance(record, dict):
            continue
        try:
            now = time.monotonic()
            pool.demand.keeping.habits.tell_time(now, time.time())
            pool.demand.keeping.restore(record["keeping"], now)
            if record["version"] == pool.engine.version:
                pool.costs.load(record["costs"])
                pool.price()
                if isinstance(pool.engine, OnnxEngine):
                    pool.engine.shapes.load(record.get("shapes", []))
            pool.demand.restore(record["demand"], now, time.time())
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("what was learned of %s cannot be read, and is learned anew: %s", model, error)


async def _save_often(learning: Callable[[], Learned]) -> None:
    while True:
        for pool in learning().pools.values():
            pool.demand.keeping.habits.tell_time(time.monotonic(), time.time())
        await asyncio.sleep(_EVERY_S)
        await _save(learning())


async def _save(learning: Learned) -> None:
    file, pools = learning.file, learning.pools
    if file is None:
        return
    known = {
        model: {
            "version": pool.engine.version,
            "costs": pool.costs.dump(),
            "shapes": pool.engine.shapes.dump() if isinstance(pool.engine, OnnxEngine) else [],
            "keeping": pool.demand.keeping.state(),
            "demand": pool.demand.state(time.monotonic(), time.time()),
        }
        for model, pool in pools.items()
    }
    try:
        await asyncio.to_thread(_write, file, orjson.dumps(known, option=orjson.OPT_INDENT_2))
    except OSError as error:
        _log.warning("what was learned cannot be saved: %s", error)


def _read(file: Path) -> dict[str, Any]:
    try:
        known = orjson.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, orjson.JSONDecodeError) as error:
        _log.warning("%s cannot be read, and is written anew: %s", file, error)
        return {}
    return known if isinstance(known, dict) else {}


def _write(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(file)
