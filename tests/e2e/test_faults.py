"""Processes that die: a worker, the fork server, the gateway itself; and how the program ends when it is told to."""

import itertools
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil
import pytest

from scripts.replay import outcome_of
from scripts.running_gateway import RunningGateway, stop
from tests.e2e.program import (
    ATLAS,
    DEADLINE_S,
    MINILM,
    SERVER,
    Stream,
    chat,
    config,
    in_flight,
    lives,
    metric,
    needs,
    pool,
    serving,
    started,
    text_of,
    until,
    workers,
)

SOME = 5
ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}"}}}}'
NEVER_UP = f'  never: {{task: chat, command: {{run: "{SERVER} --start-s 1000"}}, pool: {{start_timeout: 10m}}}}'


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve atlas, on one replica, and the test's own server, to be killed."""
    needs("atlas")
    with serving(ATLAS.replace("max: 2", "max: 1"), ECHO) as running:
        yield running


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a directory for a gateway that a test starts itself."""
    with tempfile.TemporaryDirectory(prefix="warmgate-e2e-") as name:
        yield Path(name)


def atlas_worker(house: RunningGateway, question: str) -> psutil.Process:
    """Have atlas answer, and return its process: the one that is no command."""
    text_of(chat(house.url, "atlas", question))
    (worker,) = [worker for worker in workers(house) if "openai_server" not in " ".join(worker.cmdline())]
    return worker


def test_worker_killed_in_a_stream_is_a_clean_error(house: RunningGateway) -> None:
    """The client gets what was made, then an error in the stream's shape; a new worker serves the next request."""
    worker = atlas_worker(house, "What is the capital of Peru?")
    with Stream(house.url, "atlas", "Describe Brazil.") as stream:
        assert next(stream.texts())
        worker.suspend()
        worker.kill()
        *_, last = stream

    assert last["error"]["code"] == "worker_died"
    again = chat(house.url, "atlas", "Describe Brazil.")
    assert outcome_of(again.headers["cache-status"]) == "miss"
    assert text_of(again)


def test_worker_killed_before_its_answer_began_is_not_noticed(house: RunningGateway) -> None:
    """A job of which nothing was sent yet runs once more on another worker."""
    worker = atlas_worker(house, "What is the capital of Chile?")
    worker.suspend()
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(chat, house.url, "atlas", "What is the capital of Cuba?")
        until(lambda: in_flight(house.url, "atlas") == 1, "the worker has the job")

        worker.kill()

        assert text_of(asked.result())


def test_fork_server_killed_takes_its_workers_and_comes_back(house: RunningGateway) -> None:
    """Without its fork server no worker lives on, and the next request brings up both."""
    worker = atlas_worker(house, "What is the capital of Fiji?")
    (fork_server,) = psutil.Process(house.process.pid).children()

    fork_server.kill()

    until(lambda: not lives(worker), "the worker is gone")
    assert text_of(chat(house.url, "atlas", "What is the capital of Togo?"))
    assert text_of(chat(house.url, "echo", "and you?")) == "echo: and you?"


def test_command_that_dies_in_a_stream_is_a_clean_error(house: RunningGateway) -> None:
    """A server of somebody else's that ends under a stream is told of like a worker of ours.

    What it printed may quote the requests of others: neither clients nor the log see it, the operator's page has it.
    """
    with Stream(house.url, "echo", "die now") as stream:
        *_, last = stream

    assert last["error"]["code"] == "worker_died"
    assert "exited with 3" in last["error"]["message"]
    assert "told to die" not in last["error"]["message"]
    until(lambda: "exited with 3" in house.log_text(), "the death is in the log")
    assert "told to die" not in house.log_text()
    assert text_of(chat(house.url, "echo", "once more")) == "echo: once more"


def test_gateway_killed_under_load_leaves_nothing_behind_and_forgets_nothing(directory: Path) -> None:
    """After kill -9 no process of it lives on, and a new gateway on the same directory serves what was remembered."""
    needs("minilm", "atlas")
    text = config(directory, MINILM, ATLAS, ECHO, semantic=True)
    known = "What is the capital of Canada?"
    with started(text, directory) as (gateway, family):
        answer = text_of(chat(gateway.url, "atlas", known))
        until(lambda: metric(gateway.url, "warmgate_cache_events_total", tier="disk", event="writes"), "it is on disk")
        with ThreadPoolExecutor(4) as threads, Stream(gateway.url, "echo", "stall") as stream:
            next(stream.texts())
            for number in range(4):
                threads.submit(ask_until_it_ends, gateway, number)
            until(
                lambda: metric(gateway.url, "warmgate_cache_entries") > SOME and in_flight(gateway.url, "atlas"), "load"
            )

            gateway.process.kill()

        family.wait_gone()

    with started(text, directory) as (gateway, family):
        again = chat(gateway.url, "atlas", known)
        assert (text_of(again), outcome_of(again.headers["cache-status"])) == (answer, "exact")
        until(lambda: metric(gateway.url, "warmgate_semantic_vectors"), "what is on disk is found by its meaning")
        alike = chat(gateway.url, "atlas", "Tell me the capital city of Canada")
        assert (text_of(alike), outcome_of(alike.headers["cache-status"])) == (answer, "semantic")
        stop(gateway.process)
        assert gateway.process.returncode == 0
        family.wait_gone()


def ask_until_it_ends(gateway: RunningGateway, number: int) -> None:
    """Ask new questions until nobody answers."""
    with suppress(OSError, HTTPException):
        for other in itertools.count():
            text_of(chat(gateway.url, "atlas", f"What is {number} plus {other}?"))


def test_gateway_killed_during_a_cold_start(directory: Path) -> None:
    """After kill -9 the model that was starting is gone as well."""
    with started(config(directory, NEVER_UP), directory) as (gateway, family), ThreadPoolExecutor() as threads:
        asked = threads.submit(chat, gateway.url, "never", "hello")
        until(lambda: workers(gateway), "the start is under way")

        gateway.process.kill()

        family.wait_gone()
        with pytest.raises((OSError, HTTPException)):
            asked.result()


def test_stop_during_a_cold_start(directory: Path) -> None:
    """Told to stop while a model is starting, it ends within its deadline: the start is undone, the client answered."""
    text = config(directory, NEVER_UP).replace("shutdown_timeout: 10s", "shutdown_timeout: 1s")
    with started(text, directory) as (gateway, family), ThreadPoolExecutor() as threads:
        asked = threads.submit(chat, gateway.url, "never", "hello")
        until(lambda: workers(gateway), "the start is under way")

        gateway.process.terminate()

        assert gateway.process.wait(DEADLINE_S) == 0, gateway.log_text()
        family.wait_gone()
        assert asked.result().status == 503
        assert asked.result().error["code"] == "draining"


def test_stop_while_the_first_replicas_start(directory: Path) -> None:
    """Told to stop as soon as it listens, before any model is up, it ends well too."""
    needs("minilm")
    with started(config(directory, MINILM, semantic=True), directory, wait_for="/healthz") as (gateway, family):
        gateway.process.terminate()

        assert gateway.process.wait(DEADLINE_S) == 0, gateway.log_text()
        family.wait_gone()


def test_stop_completes_the_streams(directory: Path) -> None:
    """Told to stop during a stream, it completes the stream, refuses what is new, and exits with 0."""
    with started(config(directory, ECHO), directory) as (gateway, family):
        with Stream(gateway.url, "echo", "slow " * 50) as stream:
            texts = [next(stream.texts())]
            gateway.process.send_signal(signal.SIGTERM)
            until(lambda: not answers(gateway), "nothing new is taken")
            texts += stream.texts()

        assert "".join(texts) == "echo: " + ("slow " * 50).rstrip()
        assert gateway.process.wait(DEADLINE_S) == 0, gateway.log_text()
        family.wait_gone()
        assert gateway.log_text().index("stopping: SIGTERM") < gateway.log_text().index("gateway.main: stopped")


def answers(gateway: RunningGateway) -> bool:
    """Tell whether a new connection is served."""
    with suppress(OSError, HTTPException):
        return chat(gateway.url, "echo", "slow down").status == 200
    return False


def test_stop_remembers_what_it_learned(directory: Path) -> None:
    """Answers and start-up times outlive a stop."""
    text = config(directory, ECHO)
    learned: list[Any] = []
    for expected in ("miss", "exact"):
        with started(text, directory) as (gateway, _):
            answered = chat(gateway.url, "echo", "remember me")
            assert outcome_of(answered.headers["cache-status"]) == expected
            learned.append(pool(gateway.url, "echo")["start_s"])
            stop(gateway.process)

    assert learned[0] == pytest.approx(learned[1])
