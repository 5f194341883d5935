"""What the end-to-end tests share: configs, plain HTTP calls to the running program, and a look at its processes."""

import http.client
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from scripts.running_gateway import ROOT, RunningGateway, running, stop

R = TypeVar("R")
DEADLINE_S = 90.0
MARKER = "WARMGATE_TEST"

SERVER = f"{sys.executable} {ROOT / 'tests/openai_server.py'} --port {{port}}"
MINILM = f"  minilm: {{task: embed, onnx: {{path: {ROOT / 'var/models/minilm'}}}, pool: {{min: 1}}}}"
INTENTS = f"  intents: {{task: predict, onnx: {{path: {ROOT / 'var/models/intents'}}}}}"
ATLAS = f"  atlas: {{task: chat, onnx: {{path: {ROOT / 'var/models/atlas'}}}, pool: {{max: 2}}}}"
# Takes two requests at a time, and one more in its queue.
ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 2}}, pool: {{max: 1, queue: 1}}}}'


def needs(*models: str) -> None:
    """Skip where scripts/setup has not left one of these models."""
    missing = [model for model in models if not (ROOT / "var/models" / model / "model.onnx").exists()]
    if missing:
        pytest.skip(f"var/models lacks {', '.join(missing)}: run scripts/setup")


def config(
    directory: Path, *models: str, server: str = "", semantic: bool = False, cache: str | None = None, routes: str = ""
) -> str:
    """Write a config: a free port, a cache in `directory`, these models; `server` and `routes` as inner YAML."""
    lines = [
        f"server: {{listen: 127.0.0.1:0, shutdown_timeout: 10s{server and ', '}{server}}}",
        "cache:",
        f"  directory: {cache or directory / 'cache'}",
        "  graphs: 0",  # no process makes any beside those that a test counts
        "  exact: {memory: 16MiB, disk: 64MiB, ttl: 1h}",
        "  semantic: {embedder: minilm, ttl: 1h, budget: 2s}" if semantic else "",
        "models:",
        *models,
        f"routes: {routes}" if routes else "",
    ]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Answered:
    """A response that was read to its end; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value."""
        return json.loads(self.body)

    @property
    def error(self) -> Mapping[str, Any]:
        """The error that an OpenAI-shaped body tells of."""
        error: Mapping[str, Any] = self.json()["error"]
        return error


def connect(url: str) -> http.client.HTTPConnection:
    """Open a connection of one's own."""
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=DEADLINE_S)


def call(url: str, method: str, path: str, body: object = None, **headers: str) -> Answered:
    """Make one call; a body that is a plain value is sent as JSON, an iterator of bytes in chunks."""
    connection = connect(url)
    sent: Any = json.dumps(body) if isinstance(body, dict | list | str) else body
    try:
        connection.request(method, path, sent, headers)
        response = connection.getresponse()
        return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


def chat_body(model: str, text: str, **more: object) -> dict[str, object]:
    """Make the body of a chat with one message."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


def chat(url: str, model: str, text: str, **more: object) -> Answered:
    """Ask one question."""
    return call(url, "POST", "/v1/chat/completions", chat_body(model, text, **more))


def text_of(answered: Answered) -> str:
    """Return what a whole chat answer says."""
    assert answered.status == 200, answered.body
    text: str = answered.json()["choices"][0]["message"]["content"]
    return text


class Stream:
    """A streamed chat, read event by event on a connection of its own that ends with the context."""

    def __init__(self, url: str, model: str, text: str, **more: object) -> None:
        self._connection = connect(url)
        body = json.dumps(chat_body(model, text, stream=True, **more))
        self._connection.request("POST", "/v1/chat/completions", body)
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.cache_status = self._response.headers["Cache-Status"]

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.leave()

    def __iter__(self) -> Iterator[Any]:
        """Yield each event's JSON value, `[DONE]` as that string."""
        for line in self._response:
            if line.startswith(b"data: "):
                data = line.removeprefix(b"data: ").strip()
                yield "[DONE]" if data == b"[DONE]" else json.loads(data)

    def texts(self) -> Iterator[str]:
        """Yield the pieces of text."""
        for event in self:
            if event != "[DONE]" and event["choices"] and (piece := event["choices"][0]["delta"].get("content")):
                yield piece

    def leave(self) -> None:
        """Close the connection, wherever the stream is."""
        self._response.close()
        self._connection.close()


def until(look: Callable[[], R | None], what: str) -> R:
    """Return what `look` finds, once it finds something; fail where it never does."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.01)
    pytest.fail(f"waited {DEADLINE_S:g} s until {what}")


def pool(url: str, model: str) -> dict[str, Any]:
    """Return what a pool looks like."""
    found: dict[str, Any] = call(url, "GET", "/admin/pools").json()["pools"][model]
    return found


def in_flight(url: str, model: str) -> int:
    """Return how many jobs a pool's replicas hold."""
    return sum(replica["in_flight"] for replica in pool(url, model)["replicas"])


def metrics(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Return every sample by its name and its sorted labels."""
    families = text_string_to_metric_families(call(url, "GET", "/metrics").body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def metric(url: str, name: str, **labels: str) -> float:
    """Return one sample; 0 where it has not been counted yet."""
    return metrics(url).get((name, tuple(sorted(labels.items()))), 0.0)


def workers(gateway: RunningGateway) -> set[psutil.Process]:
    """Return the processes that serve models: those below the fork server."""
    found = set()
    for fork_server in psutil.Process(gateway.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # a child that is no fork server, and that has just ended
            found.update(fork_server.children())
    return found


def marked(mark: str) -> list[psutil.Process]:
    """Return every process of the machine that carries the mark of a test in its environment."""
    return [process for process in psutil.process_iter() if _carries(process, mark)]


def lives(process: psutil.Process) -> bool:
    """Tell whether a process runs; one that has ended and that nobody waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return lives(process) and process.environ().get(MARKER) == mark
    except psutil.Error:
        return False


@dataclass(frozen=True, slots=True)
class Family:
    """A mark that a gateway and all its descendants carry, in whatever session they live."""

    mark: str

    @property
    def environ(self) -> dict[str, str]:
        """The environment to start the gateway with."""
        return {**os.environ, MARKER: self.mark}

    def is_gone(self) -> bool:
        """Tell whether no process of it lives."""
        return not marked(self.mark)

    def wait_gone(self) -> None:
        """Wait until no process of it lives."""
        until(self.is_gone, f"no process is left of {self.mark}: {marked(self.mark)}")


@contextmanager
def started(
    text: str, directory: Path, wait_for: str = "/readyz", log_level: str = "info"
) -> Iterator[tuple[RunningGateway, Family]]:
    """Serve a config, for a test that ends the gateway its own way; whatever is left of it dies in the end."""
    family = Family(uuid.uuid4().hex)
    try:
        with running(text, directory, environ=family.environ, wait_for=wait_for, log_level=log_level) as gateway:
            yield gateway, family
    finally:
        for process in marked(family.mark):
            with suppress(psutil.NoSuchProcess):  # it may have ended since
                process.kill()


@contextmanager
def serving(*models: str, **options: Any) -> Iterator[RunningGateway]:
    """Serve these models from a directory of their own, and check at the end that no process is left behind."""
    with tempfile.TemporaryDirectory(prefix="warmgate-e2e-") as name:
        directory = Path(name)
        with started(config(directory, *models, **options), directory) as (gateway, family):
            yield gateway
            stop(gateway.process)
            assert gateway.process.returncode == 0, gateway.log_text()
            family.wait_gone()
