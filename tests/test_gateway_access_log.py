"""The access log: what a line tells, what it never tells, and what becomes of lines that find no room."""

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from backends.contract import BadJob
from gateway.batch.contract import Batch, Ended, Item
from gateway.batch.work import Work
from gateway.callers.auth import Gatekeeper
from gateway.counting.access_log import AccessLog
from gateway.front import Front
from gateway.request import Caller
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call
from tests.fakes import FakeEngine
from tests.test_gateway_pipeline import house

SECRET = "the words of the prompt"


def lines(file: Path) -> list[dict[str, Any]]:
    """Read a log."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def body(model: str) -> bytes:
    """Write a request."""
    return json.dumps({"model": model, "messages": [{"role": "user", "content": SECRET}]}).encode()


async def test_each_request_is_one_line_without_its_text(tmp_path: Path) -> None:
    """A miss, a hit of the cache and a refused request are told of with model, cache, status and times alone."""
    async with house({"a": FakeEngine()}) as built:
        log = built.telemetry.access
        log.file = tmp_path / "deep" / "access.jsonl"
        front = Front((OpenAISurface(),), {}, built.pipeline, Gatekeeper([]), built.telemetry)
        for model in ("a", "a", "nobody"):
            headers = {"authorization": "Bearer sk-secret"}
            reply = await front.serve(Call("POST", "/v1/chat/completions", headers, body(model), "127.0.0.1"))
            assert reply.status == (404 if model == "nobody" else 200)
        await log.write()

    told = lines(log.file)
    assert [(line["model"], line["cache"], line["status"]) for line in told] == [
        ("a", "miss", 200),
        ("a", "exact", 200),
        ("nobody", "none", 404),
    ]
    assert all(set(line) == {"timestamp_s", "model", "service_s", "cache", "status", "wait_s"} for line in told)
    assert told[1]["service_s"] == 0.0
    written = log.file.read_text()
    assert SECRET not in written
    assert "sk-" not in written
    assert (log.written, log.dropped) == (3, 0)


async def test_what_failed_at_a_model_tells_how_it_came_there(tmp_path: Path) -> None:
    """A start that fails is a wait, and a miss as its reply's Cache-Status says; of a batch it has a line too."""
    refusing = FakeEngine((BadJob("too long", "prompt"),))
    async with house({"a": FakeEngine(failures=99), "b": refusing}) as built:
        log = built.telemetry.access
        log.file = tmp_path / "log"
        front = Front((OpenAISurface(),), {}, built.pipeline, Gatekeeper([]), built.telemetry)
        reply = await front.serve(Call("POST", "/v1/chat/completions", {}, body("a"), "127.0.0.1"))
        assert reply.headers["Cache-Status"].startswith("warmgate; fwd=miss")
        work = Work(lambda: built.pipeline, lambda _: Caller(scope=""))
        batch = Batch(1, "b", "", "b", "generate", {}, None, "open", 2, 0, 0, 0.0, None)
        for place, item in enumerate((b'"hello"', b'{"model": "other"}')):
            assert isinstance(await work.do(batch, Item(1, place, item), 0), Ended)
        await log.write()

    failed, bad, refused = lines(log.file)
    assert (failed["model"], failed["cache"], failed["status"], failed["service_s"]) == ("a", "miss", 503, 0.0)
    assert failed["wait_s"] > 0
    assert (bad["model"], bad["cache"], bad["status"]) == ("b", "miss", 400)
    assert (refused["model"], refused["cache"], refused["status"], refused["service_s"]) == ("b", "none", 400, 0.0)


async def test_what_the_wait_is_and_what_the_work(tmp_path: Path) -> None:
    """The time of arrival counts back from the end; what the model took is the total without the rest."""
    log = AccessLog(wall_clock=lambda: 1000.0)
    log.file = tmp_path / "log"
    log.note("a", total_s=10.0, cache="miss", status=200, away_s=4.0, wait_s=3.0)
    await log.write()

    assert lines(log.file) == [
        {"timestamp_s": 990.0, "model": "a", "service_s": 6.0, "cache": "miss", "status": 200, "wait_s": 3.0}
    ]


async def test_lines_beyond_the_bound_are_dropped_and_counted(tmp_path: Path) -> None:
    """A log that cannot keep up costs lines, not memory."""
    log = AccessLog(most_waiting=2)
    log.file = tmp_path / "log"
    for _ in range(5):
        log.note("a", total_s=1.0, cache="miss", status=200)
    await log.write()

    assert (len(lines(log.file)), log.written, log.dropped) == (2, 2, 3)


async def test_a_file_that_cannot_be_written_costs_only_lines(tmp_path: Path) -> None:
    """The lines are counted as dropped, and the next ones are tried anew."""
    log = AccessLog()
    log.file = tmp_path  # a directory
    log.note("a", total_s=1.0, cache="miss", status=200)
    await log.write()
    assert (log.written, log.dropped) == (0, 1)

    log.file = tmp_path / "log"
    log.note("a", total_s=1.0, cache="miss", status=200)
    await log.write()
    assert (log.written, log.dropped) == (1, 1)


async def test_a_pipe_that_nobody_reads_costs_only_lines(tmp_path: Path) -> None:
    """It is an error at once; what is written once somebody reads arrives."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    log = AccessLog()
    log.file = pipe
    async with log.kept():
        log.note("a", total_s=1.0, cache="miss", status=200)
        await log.write()
        assert (log.written, log.dropped) == (0, 1)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        log.note("a", total_s=1.0, cache="miss", status=200)
        await log.write()
        assert os.read(reader, 1000).count(b"\n") == log.written == 1
        os.close(reader)


@contextmanager
def full_pipe(pipe: Path) -> Iterator[tuple[AccessLog, int]]:
    """Make a log on a pipe that takes nothing more, until its reader reads."""
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    full = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(full, bytes(4096))
    log = AccessLog(patience_s=0.05)
    log.file = pipe
    try:
        yield log, reader
    finally:
        for end in (full, reader):
            os.close(end)


async def test_a_file_that_hangs_holds_neither_a_stop_nor_the_next_file(tmp_path: Path) -> None:
    """A pipe that is full is given up in time, and its lines are counted; another file is written meanwhile."""
    with full_pipe(tmp_path / "pipe") as (log, _):
        async with log.kept():
            for file in (tmp_path / "pipe", tmp_path / "log"):
                log.file = file
                log.note("a", total_s=1.0, cache="miss", status=200)
                await log.write()
            assert (log.written, log.dropped, len(lines(tmp_path / "log"))) == (1, 1, 1)


async def test_lines_wait_while_the_file_hangs(tmp_path: Path) -> None:
    """One write hangs at a time, and what came meanwhile is written once it goes on."""
    with full_pipe(tmp_path / "pipe") as (log, reader):
        for _ in range(3):
            log.note("a", total_s=1.0, cache="miss", status=200)
            await log.write()
        assert (log.written, log.dropped) == (0, 1)
        os.read(reader, 2**20)
        async with asyncio.timeout(60):
            while not log.written:  # the thread that hung ends when it likes
                await log.write()
                await asyncio.sleep(0)
        assert (log.written, log.dropped) == (2, 1)
        assert os.read(reader, 2**20).count(b"\n") == 3


async def test_what_is_noted_last_is_written_at_the_end(tmp_path: Path) -> None:
    """Nothing that was noted is lost when the gateway stops."""
    log = AccessLog()
    log.file = tmp_path / "log"
    async with log.kept():
        log.note("a", total_s=1.0, cache="miss", status=200)

    assert log.written == len(lines(log.file)) == 1


def test_without_a_file_nothing_is_kept() -> None:
    """It is off by default."""
    log = AccessLog(most_waiting=1)
    log.note("a", total_s=1.0, cache="miss", status=200)
    log.note("a", total_s=1.0, cache="miss", status=200)

    assert log.dropped == 0
