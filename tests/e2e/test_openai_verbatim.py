"""A recorded exchange with an upstream passes through byte for byte; what is cached of it says the same."""

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from scripts.replay import outcome_of
from scripts.running_gateway import RunningGateway
from tests.e2e.program import SERVER, Stream, call, chat, chat_body, serving, text_of

SLICE_BYTES = 11

# As an OpenAI-compatible server sent it: spaces, fields that nobody documents, comments, and two ways to end a line.
STREAM = (
    b": welcome\n\n"
    b'data: {"id":"chatcmpl-9", "object":"chat.completion.chunk","created":1730000000,"model":"far-2024",'
    b'"service_tier":"default","system_fingerprint":"fp_1","obfuscation":"a1","choices":[{"index":0,"delta":'
    b'{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
    b'data:{"id":"chatcmpl-9","object":"chat.completion.chunk","created":1730000000,"model":"far-2024","choices":'
    b'[{"index":0,"delta":{"content":"Sn\\u00f6"},"finish_reason":null,"content_filter_results":{"hate":{}}}]}\r\n\r\n'
    b": OPENROUTER PROCESSING\n\n"
    b"event: message\nid: 7\n"
    b'data:   {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1730000000,"model":"far-2024","choices":'
    b'[{"index":0,"delta":{"content":" falls."},"finish_reason":null}]}\n\n'
    b'data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1730000000,"model":"far-2024","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"usage":{"queue_time":0.02}}}\n\n'
    b'data: {"id":"chatcmpl-9","object":"chat.completion.chunk","created":1730000000,"model":"far-2024","choices":[],'
    b'"usage":{"prompt_tokens":9,"completion_tokens":3,"total_tokens":12,"prompt_tokens_details":{"cached_tokens":4}}}\n\n'
    b"data: [DONE]\n\n"
)
WHOLE = (
    b'{\n  "id": "chatcmpl-9",  "object" : "chat.completion",\n  "created":1730000000, "model":"far-2024",\n'
    b'  "choices":[ {"index":0,"message":{"role":"assistant","content":"Sn\\u00f6 falls.","annotations":[],'
    b'"refusal":null},"logprobs":null,"finish_reason":"stop"} ],\r\n\t"usage":{"prompt_tokens":9,'
    b'"completion_tokens":3,"total_tokens":12,"completion_tokens_details":{"audio_tokens":0}},'
    b'"service_tier":"default", "x": [1.0, 1e3]\n}\n'
)  # fmt: skip


@dataclass
class Recording:
    """An upstream that reads one request after another and answers with recorded bytes, a few at a time."""

    listener: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    seen: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base URL of the server."""
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}/v1"

    def serve(self) -> None:
        """Serve one connection after another until the listener is shut."""
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as lines:
                length = 0
                while (line := lines.readline().strip().lower()) not in (b"", None):
                    length = int(line.split(b":")[1]) if line.startswith(b"content-length") else length
                self.seen.append(lines.read(length))
                streamed = json.loads(self.seen[-1]).get("stream")
                body, content_type = (STREAM, b"text/event-stream") if streamed else (WHOLE, b"application/json; v=1")
                head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nConnection: close\r\n\r\n" % content_type
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sendall(head)
                for begin in range(0, len(body), SLICE_BYTES):
                    connection.sendall(body[begin : begin + SLICE_BYTES])


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    """Serve the recording."""
    made = Recording()
    thread = threading.Thread(target=made.serve)
    thread.start()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()
    thread.join()


@pytest.fixture(scope="module")
def house(recording: Recording) -> Iterator[RunningGateway]:
    """Serve the recording as an upstream, and the test's own server."""
    far = f"  far: {{task: chat, http: {{url: {recording.url}}}}}"
    echo = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 4}}, pool: {{min: 1}}}}'
    with serving(far, echo) as running:
        yield running


def request_of(streamed: str, text: str) -> bytes:
    """Write a request as nobody's serialiser would."""
    question = json.dumps(text)
    return (
        f'{{ "messages" :[{{"content":{question},"role":"user", "cache_control":{{"type":"x"}}}}],\n\t"model":"far" ,'
        f'"temperature": 0.0,"top_k":4E0, "stream" : {streamed}, "logit_bias":{{}},"na\\u00efve": "\\ud83d\\ude00" }}\n'
    ).encode()


def test_a_whole_exchange_passes_byte_for_byte(house: RunningGateway, recording: Recording) -> None:
    """The upstream sees the client's bytes, and the client the upstream's, with their type."""
    sent = request_of("false", "whole")

    answered = call(house.url, "POST", "/v1/chat/completions", sent)

    assert answered.status == 200, answered.body
    assert recording.seen[-1] == sent
    assert answered.body == WHOLE
    assert answered.headers["content-type"] == "application/json; v=1"


def test_a_streamed_exchange_passes_byte_for_byte(house: RunningGateway, recording: Recording) -> None:
    """So does a stream, comments and all."""
    sent = request_of("true", "streamed")

    answered = call(house.url, "POST", "/v1/chat/completions", sent)

    assert recording.seen[-1] == sent
    assert answered.body == STREAM
    assert answered.headers["content-type"] == "text/event-stream"


def test_what_is_cached_is_told_again_byte_for_byte(house: RunningGateway, recording: Recording) -> None:
    """A repeat in the same form is what the upstream sent, comments and all, with an id of its own."""
    for streamed, sent in (("true", STREAM), ("false", WHOLE)):
        call(house.url, "POST", "/v1/chat/completions", request_of(streamed, f"again {streamed}"))
        asked = len(recording.seen)

        again = call(house.url, "POST", "/v1/chat/completions", request_of(streamed, f"again {streamed}"))

        assert len(recording.seen) == asked
        assert outcome_of(again.headers["cache-status"]) == "exact"
        own = f"chatcmpl-{again.headers['x-request-id']}".encode()
        assert again.body == sent.replace(b"chatcmpl-9", own) != sent
        assert again.headers["content-type"] == ("text/event-stream" if streamed == "true" else "application/json; v=1")


def test_what_is_cached_says_the_same_in_another_form(house: RunningGateway, recording: Recording) -> None:
    """A repeat in another form is in our own words: the same text and usage, whole, streamed, and in another wire."""
    call(house.url, "POST", "/v1/chat/completions", request_of("true", "kept"))
    call(house.url, "POST", "/v1/chat/completions", request_of("false", "kept whole"))
    asked = len(recording.seen)

    whole = call(house.url, "POST", "/v1/chat/completions", request_of("false", "kept"))
    streamed = call(house.url, "POST", "/v1/chat/completions", request_of("true", "kept whole"))

    assert len(recording.seen) == asked
    assert outcome_of(whole.headers["cache-status"]) == outcome_of(streamed.headers["cache-status"]) == "exact"
    assert whole.json()["choices"][0]["message"]["content"] == "Snö falls."
    assert whole.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    chunks = [json.loads(line[6:]) for line in streamed.body.decode().split("\n\n")[:-2]]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "Snö falls."


def test_odd_pieces_and_comments_pass(house: RunningGateway) -> None:
    """A stream that comes in pieces of a few bytes, with comments between, is passed on as it is."""
    body = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": "an odd stream"}]}

    answered = call(house.url, "POST", "/v1/chat/completions", body)

    assert answered.body.count(b": a comment\r\n\r\ndata: ") == answered.body.count(b"data: ") > 3
    assert answered.body.endswith(b"data: [DONE]\n\n")


def test_followers_are_answered_in_their_own_mode(house: RunningGateway) -> None:
    """Who joins a stream that is passed on, and wants it whole or with its usage, is given the same in those words."""
    text = "slow " * 30
    with Stream(house.url, "echo", text) as leader, ThreadPoolExecutor(2) as followers:
        pieces = [next(texts := leader.texts())]
        whole = followers.submit(chat, house.url, "echo", text)
        body = chat_body("echo", text, stream=True, stream_options={"include_usage": True})
        counted = followers.submit(call, house.url, "POST", "/v1/chat/completions", body)
        pieces += texts

    assert "collapsed" in whole.result().headers["cache-status"]
    assert text_of(whole.result()) == "".join(pieces)
    *chunks, _ = [line.removeprefix(b"data: ") for line in counted.result().body.split(b"\n\n") if line]
    assert json.loads(chunks[-1])["choices"] == []
    assert "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == "".join(
        pieces
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_sees_the_stream_grow(house: RunningGateway) -> None:
    """`curl -N` prints each word as it comes, long before the stream ends."""
    body = json.dumps({"model": "echo", "stream": True, "messages": [{"role": "user", "content": "slow " * 20}]})
    command = ["curl", "-sSN", f"{house.url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", body]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        first = curl.stdout.readline()
        still_running = curl.poll() is None
        rest = curl.stdout.read()

    assert json.loads(first.removeprefix(b"data: "))["choices"][0]["delta"]["content"] == "echo:"
    assert still_running
    assert rest.endswith(b"data: [DONE]\n\n")
    assert curl.returncode == 0
