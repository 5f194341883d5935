"""A process that accepts and works on batches is killed again and again: no item is lost, no callback loses its key."""

import collections
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from gateway.batch.ledger import Ledger
from tests.batch_process import inputs

ROOT = Path(__file__).parent.parent
KILLS = int(os.environ.get("WARMGATE_KILLS", "5"))


class Receiver(ThreadingHTTPServer):
    """Notes the callbacks by their keys, and fails every third until the last life has begun."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
        self.signed: list[tuple[bytes, str]] = []
        self.asked = 0
        self.failing = True

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.signed.append((raw, self.headers["X-Warmgate-Signature"]))
        self.server.got[self.headers["Idempotency-Key"]].append(json.loads(raw))
        self.server.asked += 1
        self.send_response(500 if self.server.failing and self.server.asked % 3 == 0 else 204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver."""
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()


@contextmanager
def living(directory: Path, url: str, first: int, life: int) -> Iterator[subprocess.Popen[str]]:
    """Run one life; its clock is two hours ahead of the last one's, so that it tries all callbacks again at once."""
    command = [sys.executable, "-m", "tests.batch_process", str(directory), url, str(first), str(life * 7200)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.timeout(300 + 10 * KILLS)
def test_no_kill_loses_an_item_or_a_callbacks_key(tmp_path):
    """Whatever the moment: what was accepted is done once it can be, and each batch is told of under its own key."""
    chance = random.Random()
    accepted: dict[int, str] = {}
    number = 0
    with receiving() as receiver:
        for life in range(KILLS + 1):
            receiver.failing = life < KILLS
            with living(tmp_path, receiver.url, number, life) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                lines_left = chance.randrange(1, 120) if life < KILLS else 10
                for line in process.stdout:
                    event, *words = line.split()
                    if event == "ordering":
                        number = int(words[0])
                    elif event == "accepted":
                        # A repeat after a kill that came between acceptance and reply is the same batch.
                        assert accepted.setdefault(int(words[0]), words[1]) == words[1]
                    lines_left -= 1
                    if lines_left == 0 and life < KILLS:
                        threading.Event().wait(chance.random() / 50)  # not always right after a line
                        process.send_signal(signal.SIGKILL)
                        break
                    if lines_left == 0:
                        process.stdin.write("enough\n")
                        process.stdin.flush()
                if life == KILLS:
                    assert event == "over"

    ledger = Ledger(tmp_path)
    try:
        for order, batch_id in accepted.items():
            batch = ledger.find(batch_id, "")
            assert batch is not None
            assert (batch.status, batch.done) == ("done", len(inputs(order)))
            outputs = [json.loads(row.body)["text"] for row in _rows(ledger, batch.number)]
            assert outputs == [text.upper() for text in inputs(order)]
            told = receiver.got.pop(batch_id)
            assert {json.dumps(body) for body in told} == {json.dumps(told[0])}
            assert (told[0]["batch_id"], told[0]["status"], told[0]["done"]) == (batch_id, "done", batch.done)
    finally:
        ledger.close()
    assert receiver.got == {}, "callbacks of batches that nobody was told of"
    assert sorted(accepted) == list(range(len(accepted)))


def _rows(ledger: Ledger, number: int) -> Iterator[Any]:
    place = 0
    while page := ledger.rows(number, place, 1000):
        yield from page
        place += len(page)
