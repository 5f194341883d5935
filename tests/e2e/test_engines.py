"""Servers of other people behind the running program: started by it, or reached as an upstream; and what stands in."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import openai
import pytest

from scripts.replay import outcome_of
from scripts.running_gateway import ROOT, RunningGateway, stop
from tests.e2e.program import SERVER, call, chat, chat_body, metric, serving, text_of, until

# `fails` can never start; `spare` is what stands in for it.
FAILS = f'  fails: {{task: chat, command: {{run: "{SERVER} --fail"}}}}'
SPARE = f'  spare: {{task: chat, command: {{run: "{SERVER}"}}}}'


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def upstream_on(port: int) -> Iterator[None]:
    """Run an upstream in a process of its own."""
    command = [sys.executable, str(ROOT / "tests/openai_server.py"), "--port", str(port)]
    with subprocess.Popen(command) as process:
        try:
            until(lambda: listens(port), "the upstream listens")
            yield
        finally:
            stop(process)


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


PORT = free_port()
ROUTES = "{mixed: {candidates: [far], fallback: [spare]}, doomed: {candidates: [fails], fallback: [spare]}}"


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve an upstream, a command that cannot start, and one that stands in for both."""
    far = f"  far: {{task: chat, http: {{url: http://127.0.0.1:{PORT}/v1, model: echo}}}}"
    with serving(far, FAILS, SPARE, routes=ROUTES) as running:
        yield running


def test_upstream(house: RunningGateway) -> None:
    """An upstream's answers come streamed and whole, are cached, and its own refusals keep their words and status."""
    with upstream_on(PORT), openai.OpenAI(base_url=f"{house.url}/v1", api_key="x", max_retries=0) as client:
        chunks = client.chat.completions.create(
            model="far", messages=[{"role": "user", "content": "how far"}], stream=True
        )
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "echo: how far"
        again = chat(house.url, "far", "how far")
        assert (text_of(again), outcome_of(again.headers["cache-status"])) == ("echo: how far", "exact")
        assert client.completions.create(model="far", prompt="once").choices[0].text == "echo: once"
        assert text_of(chat(house.url, "mixed", "near or far")) == "echo: near or far"
        with pytest.raises(openai.BadRequestError, match="told to refuse with 400"):
            client.chat.completions.create(model="far", messages=[{"role": "user", "content": "status-400"}])


@pytest.mark.parametrize("way", ["cut", "garbage", "break"])
def test_upstream_that_breaks_in_a_stream(house: RunningGateway, way: str) -> None:
    """A stream that an upstream breaks off ends with an error, never as if it were whole, and is not remembered."""
    with upstream_on(PORT):
        for _ in range(2):
            asked = chat_body("far", f"{way} please", stream=True)
            answered = call(house.url, "POST", "/v1/chat/completions", asked)
            assert "fwd=miss" in answered.headers["cache-status"]
            *_, last = answered.body.split(b"data: ")
            assert json.loads(last)["error"]["code"] == "upstream_failed"


def test_fallback_when_an_upstream_is_gone(house: RunningGateway) -> None:
    """With nobody at the upstream's address, the model itself is a 502, and the route's fallback answers instead."""
    refused = chat(house.url, "far", "anybody")
    assert (refused.status, refused.error["code"]) == (502, "upstream_failed")

    answered = chat(house.url, "mixed", "anybody there")

    assert text_of(answered) == "echo: anybody there"
    assert answered.json()["model"] == "spare"
    assert metric(house.url, "warmgate_fallbacks_total", model="far", error="UpstreamFailed") >= 1


def test_fallback_when_a_model_cannot_start(house: RunningGateway) -> None:
    """A command that ends at once is a 503 with its last lines, and the route's fallback answers instead."""
    refused = chat(house.url, "fails", "hello")
    assert (refused.status, refused.error["code"]) == (503, "start_failed")
    assert "exited with 1" in refused.error["message"]
    assert "giving up" in refused.error["message"]
    assert int(refused.headers["retry-after"]) >= 1

    assert text_of(chat(house.url, "doomed", "hello again")) == "echo: hello again"


def test_command_embeddings() -> None:
    """A server that we start gives embeddings too."""
    vectors = f'  vectors: {{task: embed, command: {{run: "{SERVER}"}}}}'
    with serving(vectors) as running:
        body = {"model": "vectors", "input": ["abc", "a"], "encoding_format": "float"}
        answered = call(running.url, "POST", "/v1/embeddings", body).json()
        rows = sorted(answered["data"], key=lambda row: row["index"])  # they come in the server's own order
        assert [row["embedding"] for row in rows] == [[3, 0, 1], [1, 1, 1]]
