"""How a gateway that is told to end looks to its clients and to who told it."""

import json
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from threading import Barrier

import pytest

from tests.e2e.program import DEADLINE_S, SERVER, Stream, chat_body, config, connect, started, until

CLIENTS = 12
ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}"}}}}'


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a directory for a gateway that a test starts itself."""
    with tempfile.TemporaryDirectory(prefix="warmgate-e2e-") as name:
        yield Path(name)


def test_a_second_signal_ends_it_at_once_with_one_line(directory: Path) -> None:
    """It does not wait for what is under way; the log ends with a line, and the status names the signal."""
    with started(config(directory, ECHO), directory) as (gateway, family):
        with Stream(gateway.url, "echo", "stall for ever") as stream:
            next(stream.texts())
            gateway.process.send_signal(signal.SIGINT)
            until(lambda: not listens(gateway.url), "it takes nothing new")
            gateway.process.send_signal(signal.SIGINT)
            gateway.process.wait(DEADLINE_S)
        family.wait_gone()

        assert gateway.process.returncode == -signal.SIGINT
        assert gateway.log_text().splitlines()[-1] == "warmgate: ended at once by a second signal (SIGINT)"
        assert "Traceback" not in gateway.log_text()


def test_no_client_that_goes_on_asking_is_cut_off_by_a_stop(directory: Path) -> None:
    """Each gets a reply to each request, the last of them with `Connection: close`; models or pages, it is the same."""
    asked = json.dumps(chat_body("echo", "hello"))
    ready = Barrier(CLIENTS + 1)

    def ask(number: int) -> int:
        connection, last, replies = connect(gateway.url), "", 0
        while last != "close":
            if number % 2:
                connection.request("POST", "/v1/chat/completions", asked)
            else:
                connection.request("GET", "/v1/models")
            reply = connection.getresponse()
            reply.read()
            assert reply.status == 200
            last, replies = reply.headers.get("Connection", ""), replies + 1
            if replies == 2:
                ready.wait(DEADLINE_S)
        return replies

    with started(config(directory, ECHO), directory) as (gateway, _), ThreadPoolExecutor(CLIENTS) as threads:
        asking = [threads.submit(ask, number) for number in range(CLIENTS)]
        ready.wait(DEADLINE_S)
        gateway.process.send_signal(signal.SIGINT)

        assert all(each.result(DEADLINE_S) >= 2 for each in asking)
        assert gateway.process.wait(DEADLINE_S) == 0, gateway.log_text()


def listens(url: str) -> bool:
    """Tell whether new connections are taken."""
    with closing(connect(url)) as connection, suppress(OSError):
        connection.connect()
        return True
    return False
