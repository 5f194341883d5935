"""What clients can say of the caches over HTTP, and what they are told: the real program before an upstream of ours."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import openai
import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import MINILM, Answered, call, chat_body, needs, started, text_of, until

CONFIG = """
server: {{listen: 127.0.0.1:0, shutdown_timeout: 10s}}
cache:
  directory: {directory}/cache
  exact: {{memory: 16MiB, disk: 64MiB, ttl: 1h, jitter: 0%, max_stale: 30m}}
models:
  far: {{task: chat, http: {{url: "{url}", model: there}}}}
  ranker: {{task: relay, http: {{url: "{url}", model: there}}}}
routes:
  brief: {{candidates: [far], cache: {{ttl: 1s, tags: [brief]}}}}
  obedient: {{candidates: [far], cache: {{obey_upstream: true}}}}
{more}"""


class Upstream(ThreadingHTTPServer):
    """Answers chats with `word` and rerankings with the lengths of the documents, or with the status `fails`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.word = "one"
        self.fails = 0
        self.asked: list[Any] = []

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """One request to the upstream."""

    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        """Answer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        if self.server.fails:
            self._reply(self.server.fails, {"error": {"message": "told to fail"}})
        elif self.path.endswith("/rerank"):
            found = [{"index": i, "relevance_score": len(text) / 100} for i, text in enumerate(body["documents"])]
            found.sort(key=lambda each: -each["relevance_score"])
            self._reply(200, {"id": "rr", "model": "there", "results": found, "usage": {"total_tokens": len(found)}})
        else:
            message = {"role": "assistant", "content": self.server.word}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
            self._reply(200, {"id": "far-1", "object": "chat.completion", "created": 1, "model": "there",
                              "choices": [choice], "usage": usage})  # fmt: skip

    def _reply(self, status: int, value: object) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "private, no-store")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def house(directory: Path, *models: str) -> Iterator[tuple[RunningGateway, Upstream]]:
    """Run the program before an upstream."""
    upstream = Upstream()
    thread = threading.Thread(target=upstream.serve_forever, args=(0.01,))
    thread.start()
    text = CONFIG.format(directory=directory, url=upstream.url, more="")
    text = text.replace("models:\n", "\n".join(["models:", *models, ""]))
    try:
        with started(text, directory) as (gateway, _):
            yield gateway, upstream
    finally:
        upstream.shutdown()
        thread.join()
        upstream.server_close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningGateway, Upstream]]:
    """Serve for all tests of this module, which ask different questions."""
    needs("minilm")
    with house(tmp_path_factory.mktemp("http"), MINILM) as made:
        yield made


def ask(gateway: RunningGateway, text: str, model: str = "far", **headers: str) -> Answered:
    """Ask a question."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(gateway.url, "POST", "/v1/chat/completions", chat_body(model, text), **named)


def status_of(answered: Answered) -> str:
    """Return what the caches did."""
    return answered.headers["cache-status"]


def test_stale_answers(served: tuple[RunningGateway, Upstream]) -> None:
    """They are served to who accepts them, renewed behind the client's back, and stand in where the upstream fails."""
    gateway, upstream = served
    upstream.word = "old"
    assert text_of(ask(gateway, "stale", "brief")) == "old"
    until(lambda: ask(gateway, "stale", "brief", cache_control="only-if-cached").status == 504, "it is stale")

    accepted = ask(gateway, "stale", "brief", cache_control="max-stale")
    assert text_of(accepted) == "old"
    assert "; hit; ttl=-" in status_of(accepted)
    assert int(accepted.headers["age"]) >= 1

    upstream.word = "new"
    at_once = ask(gateway, "stale", "brief", cache_control="stale-while-revalidate=600")
    assert text_of(at_once) == "old"
    until(
        lambda: text_of(ask(gateway, "stale", "brief", cache_control="max-stale, only-if-cached")) == "new",
        "it is renewed",
    )

    upstream.fails = 503
    try:
        until(lambda: ask(gateway, "stale", "brief", cache_control="only-if-cached").status == 504, "it is stale again")
        failed = ask(gateway, "stale", "brief")
        instead = ask(gateway, "stale", "brief", cache_control="stale-if-error=600")
    finally:
        upstream.fails = 0
    assert failed.status == 503
    assert status_of(failed) == "warmgate; fwd=miss; fwd-status=503"
    assert text_of(instead) == "new"
    assert status_of(instead).startswith("warmgate; fwd=stale; fwd-status=503; ttl=-")


def test_a_client_that_has_the_answer_is_told_so_without_it(served: tuple[RunningGateway, Upstream]) -> None:
    """The first reply has the tag of its repeats; a 304 has no body, and its connection goes on."""
    gateway, _ = served
    tag = ask(gateway, "tagged").headers["etag"]
    assert tag.startswith('W/"')
    assert ask(gateway, "tagged").headers["etag"] == tag
    assert ask(gateway, "tagged otherwise").headers["etag"] != tag

    connection = http.client.HTTPConnection(urlsplit(gateway.url).netloc, timeout=90)
    for known, status in ((tag, 304), ('"x", ' + tag, 304), ('"x"', 200), (tag, 304)):
        body = json.dumps(chat_body("far", "tagged"))
        connection.request("POST", "/v1/chat/completions", body, {"If-None-Match": known})
        response = connection.getresponse()
        assert (response.status, bool(response.read())) == (status, status == 200)
        assert response.headers["ETag"] == tag
        assert "; hit; " in response.headers["Cache-Status"]
        assert "Content-Length" not in response.headers or status == 200
    connection.close()


@pytest.mark.parametrize(
    ("body", "headers", "status", "expected"),
    [
        (b"{", {}, 400, "warmgate; detail=invalid_request_error"),
        (b'{"model": "far", "model": "far"}', {}, 400, "warmgate; detail=invalid_request_error"),
        (chat_body("none", "x"), {}, 404, "warmgate; detail=model_not_found"),
        (chat_body("far", "x"), {"Cache-Control": "max-stale=soon"}, 400, "warmgate; detail=invalid_request_error"),
        (chat_body("far", "x"), {"X-Warmgate-Tags": "a b"}, 400, "warmgate; detail=invalid_request_error"),
        (chat_body("far", "new here"), {"Cache-Control": "only-if-cached"}, 504, "warmgate; detail=not_cached"),
        (
            chat_body("far", "x", temperature=1),
            {"Cache-Control": "no-store"},
            200,
            "warmgate; fwd=bypass; detail=no-store",
        ),
    ],
)
def test_every_answer_tells_what_the_cache_did(
    served: tuple[RunningGateway, Upstream], body: Any, headers: dict[str, str], status: int, expected: str
) -> None:
    """Also where there is none."""
    answered = call(served[0].url, "POST", "/v1/chat/completions", body, **headers)

    assert (answered.status, status_of(answered)) == (status, expected)


def test_tags_purge_what_bears_them(served: tuple[RunningGateway, Upstream]) -> None:
    """A client's own and its route's."""
    gateway, _ = served
    for text, tags in (("eu one", "news, eu"), ("us one", "news")):
        assert "stored" in status_of(ask(gateway, text, x_warmgate_tags=tags))
    call(gateway.url, "POST", "/admin/cache/purge", {"tag": "eu"})
    assert ["hit" in status_of(ask(gateway, text)) for text in ("eu one", "us one")] == [False, True]


def test_no_store_of_the_upstream(served: tuple[RunningGateway, Upstream]) -> None:
    """It counts on the route that says so, streamed and whole, and on no other."""
    gateway, _ = served
    for model, hits in (("far", True), ("obedient", False)):
        ask(gateway, f"whose store is {model}", model)
        assert ("hit" in status_of(ask(gateway, f"whose store is {model}", model))) is hits


def test_embeddings_are_cached_by_input(served: tuple[RunningGateway, Upstream]) -> None:
    """Over the official client: the same vectors alone and in lists, as numbers and as base64."""
    gateway, _ = served
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="none needed", max_retries=0) as client:

        def embed(*texts: str, **more: Any) -> tuple[list[list[float]], str, int]:
            raw = client.embeddings.with_raw_response.create(model="minilm", input=list(texts), **more)
            made = raw.parse()
            return [each.embedding for each in made.data], raw.headers["Cache-Status"], made.usage.prompt_tokens

        first, stored, tokens = embed("a red fox", "a grey wolf")
        second, partial, _ = embed("a grey wolf", "a brown bear", "a red fox")
        third, hit, again = embed("a red fox", "a grey wolf", encoding_format="float")
        alone, single, _ = embed("a brown bear")

    assert stored == "warmgate; fwd=miss; stored; hits=0; items=2"
    assert partial == "warmgate; fwd=partial; stored; hits=2; items=3"
    assert hit.startswith("warmgate; hit; ttl=")
    assert hit.endswith("; hits=2; items=2; detail=exact")
    assert "; hit; " in single
    assert second == [first[1], alone[0], first[0]]
    assert np.allclose(third, first)
    assert again == tokens > 0


def test_rerankings_are_cached_by_document(served: tuple[RunningGateway, Upstream]) -> None:
    """Only documents that were not ranked for the query yet go to the upstream."""
    gateway, upstream = served

    def rank(*documents: str, **more: object) -> Answered:
        body = {"model": "ranker", "query": "q", "documents": documents, **more}
        return call(gateway.url, "POST", "/v1/rerank", body)

    assert rank("a", "bbb").json()["id"] == "rr"
    before = len(upstream.asked)
    made = rank("cc", "bbb", "a", top_n=2)
    hit = rank("bbb", "cc")

    assert [asked["documents"] for asked in upstream.asked[before:]] == [["cc"]]
    assert made.json()["results"] == [{"index": 1, "relevance_score": 0.03}, {"index": 0, "relevance_score": 0.02}]
    assert made.json()["usage"] == {"total_tokens": 3}
    assert status_of(made) == "warmgate; fwd=partial; stored; hits=2; items=3"
    assert hit.json()["results"] == [{"index": 0, "relevance_score": 0.03}, {"index": 1, "relevance_score": 0.02}]
    assert "; hit; " in status_of(hit)
