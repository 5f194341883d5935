"""Batches with the real program: inputs from a file, live traffic beside, kills in the midst, signed callbacks."""

import hashlib
import hmac
import json
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import ECHO, call, chat, config, metric, started, text_of, until
from tests.test_gateway_batch_kill import Receiver, receiving

SECRET = "a secret of the test"


def settings(directory: Path, **more: object) -> str:
    """Write a config with a queue in the directory."""
    batch = {
        "directory": str(directory / "queue"),
        "file_roots": [str(directory)],
        "callback_secret": SECRET,
        "concurrency": 2,
        **more,
    }
    return config(directory, ECHO) + f"batch: {json.dumps(batch)}\n"


@pytest.fixture
def directory() -> Iterator[Path]:
    """Make a directory that outlives the program."""
    with tempfile.TemporaryDirectory(prefix="warmgate-e2e-") as name:
        yield Path(name).resolve()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Receive callbacks."""
    with receiving() as receiver:
        receiver.failing = False
        yield receiver


def order(gateway: RunningGateway, inputs: object, **more: object) -> str:
    """Order a batch and return its id."""
    answered = call(gateway.url, "POST", "/api/v1/batch", {"model": "echo", "inputs": inputs, **more})
    assert answered.status == 202, answered.body
    batch_id: str = answered.json()["batch_id"]
    return batch_id


def look(gateway: RunningGateway, batch_id: str, query: str = "") -> Any:
    """Look at a batch."""
    answered = call(gateway.url, "GET", f"/api/v1/batch/{batch_id}{query}")
    assert answered.status == 200, answered.body
    return answered.json()


def ended(gateway: RunningGateway, batch_id: str) -> Any:
    """Wait until a batch has ended, and return it with its results."""

    def over() -> Any:
        found = look(gateway, batch_id, "?limit=1000")
        return None if found["status"] in ("queued", "running") else found

    return until(over, f"{batch_id} has ended")


def test_a_batch_of_a_file_beside_live_traffic(directory: Path, receiver: Receiver) -> None:
    """Its results are those that a client would have got, who is served meanwhile; the callback comes."""
    texts = [f"slow batch {number}" for number in range(30)]
    (directory / "inputs.txt").write_text("\n".join(texts))
    with started(settings(directory, allow_private=True), directory) as (gateway, _):
        batch_id = order(gateway, f"file://{directory}/inputs.txt", callback_url=receiver.url)
        live = [text_of(chat(gateway.url, "echo", f"live {number}")) for number in range(5)]
        found = ended(gateway, batch_id)
        told = until(lambda: receiver.got.get(batch_id), "the callback has come")

        assert live == [f"echo: live {number}" for number in range(5)]
        assert (found["status"], found["done"], found["failed"]) == ("done", 30, 0)
        assert [row["output"]["text"] for row in found["results"]] == [f"echo: {text}" for text in texts]
        assert told[0]["done"] == 30
        assert metric(gateway.url, "warmgate_batch_items_waiting") == 0


def test_a_killed_gateway_goes_on_with_its_batches(directory: Path, receiver: Receiver) -> None:
    """The next process does what the last one has not, and both batches are told of, each under its key."""
    texts = [f"slow item {number}" for number in range(40)]
    batches = []
    for life in range(3):
        with started(settings(directory, allow_private=True), directory) as (gateway, family):
            batches.append(order(gateway, texts, callback_url=receiver.url, parameters={"seed": life}))
            until(lambda: look(gateway, batches[-1], "?limit=0")["done"] > 1, "some items are done")
            gateway.process.send_signal(signal.SIGKILL)
            gateway.process.wait()
            family.wait_gone()
    with started(settings(directory, allow_private=True), directory) as (gateway, _):
        for batch_id in batches:
            found = ended(gateway, batch_id)
            assert (found["status"], found["done"]) == ("done", 40)
            assert [row["output"]["text"] for row in found["results"]] == [f"echo: {text}" for text in texts]
            until(lambda: receiver.got.get(batch_id), "the callback has come")  # noqa: B023 - used at once
    assert sorted(receiver.got) == sorted(batches)


def test_nothing_inside_is_reached_for_a_client(directory: Path, receiver: Receiver) -> None:
    """With the defaults, neither inputs nor callbacks lead to this machine; files outside the roots are not there."""
    inputs = [
        f"https://127.0.0.1:{receiver.server_address[1]}/",
        "https://localhost/",
        "file:///etc/passwd",
        "s3://b/k",
    ]
    with started(settings(directory), directory) as (gateway, _):
        for reference in [*inputs, f"file://{directory}/../{directory.name}-2/x", "http://169.254.169.254/"]:
            body = {"model": "echo", "inputs": reference}
            answered = call(gateway.url, "POST", "/api/v1/batch", body)
            assert (answered.status, answered.error["param"]) == (400, "inputs")
        for url in (receiver.url, "http://localhost/", "http://[::ffff:127.0.0.1]/", "http://0x7f000001/"):
            body = {"model": "echo", "inputs": ["x"], "callback_url": url}
            answered = call(gateway.url, "POST", "/api/v1/batch", body)
            assert (answered.status, answered.error["param"]) == (400, "callback_url")
    assert receiver.asked == 0


def test_the_signature_of_a_callback(directory: Path) -> None:
    """It is made with the operator's secret over the time and the body, as the documentation says."""
    with receiving() as receiver, started(settings(directory, allow_private=True), directory) as (gateway, _):
        receiver.failing = False
        batch_id = order(gateway, ["x"], callback_url=receiver.url)
        until(lambda: receiver.got.get(batch_id), "the callback has come")

    (raw, signed), *_ = receiver.signed
    at, _, mark = signed.removeprefix("t=").partition(",v1=")
    assert mark == hmac.new(SECRET.encode(), at.encode() + b"." + raw, hashlib.sha256).hexdigest()
