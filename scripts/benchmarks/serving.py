"""Starts the gateway as it is measured: keys, both caches, metrics and real models; and asks it single questions."""

import hashlib
import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from scripts.benchmarks.load import Post
from scripts.benchmarks.programs import LOCALHOST

KEY = "benchmark-key"
CHAT = "/v1/chat/completions"
PREDICT = "/api/v1/predict"

_NEVER_REACHED = 1_000_000_000
LIMITS = f"requests_per_minute: {_NEVER_REACHED}, tokens_per_minute: {_NEVER_REACHED}"
"""Limits of a key, so that they are looked at, which no load comes to."""

_DEADLINE_S = 60.0
_HEADERS = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One reply, and the seconds until it was complete. Header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: str
    seconds: float


def config(directory: Path, models: Path) -> str:
    """Return the gateway's configuration; `models` is the directory of ours."""
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    return f"""\
server:
  listen: {LOCALHOST}:0
  keys: [{{name: bench, sha256: "{digest}", {LIMITS}}}]
cache:
  directory: {directory}/cache
  exact: {{memory: 64MiB, disk: 256MiB, ttl: 1h}}
  semantic: {{embedder: minilm, verifier: verifier, ttl: 1h, budget: 2s}}
models:
  minilm: {{task: embed, onnx: {{path: {models}/minilm}}, pool: {{min: 1, max: 1}}}}
  verifier: {{task: infer, onnx: {{path: {models}/verifier}}, pool: {{min: 1, max: 1}}}}
  atlas: {{task: chat, onnx: {{path: {models}/atlas}}, pool: {{min: 1, max: 1}}}}
  intents: {{task: predict, onnx: {{path: {models}/intents}}, pool: {{keep_warm: 1s}}}}
"""


def chat(model: str, question: str, *, headers: Mapping[str, str] | None = None, **more: object) -> Post:
    """Return a chat request, with `more` fields."""
    fields = {"model": model, "messages": [{"role": "user", "content": question}], **more}
    return Post(CHAT, {**_HEADERS, **(headers or {})}, json.dumps(fields))


def predict(text: str) -> Post:
    """Return a request for a prediction that no cache answers."""
    return Post(PREDICT, {**_HEADERS, "Cache-Control": "no-store"}, json.dumps({"model": "intents", "input": text}))


def ask(url: str, post: Post) -> Answer:
    """Send one request. Raises `RuntimeError` for a reply that is not 200."""
    return _exchange(url, "POST", post.path, post.headers, post.body)


def metric(url: str, name: str, **labels: str) -> float:
    """Return the sum of a metric's values that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    lines = _exchange(url, "GET", "/metrics", _HEADERS).body.splitlines()
    found = [line for line in lines if line.startswith(name) and all(label in line for label in wanted)]
    return sum(float(line.rsplit(" ", 1)[1]) for line in found)


def replicas(url: str, model: str) -> int:
    """Return how many replicas of a model there are, whatever their state."""
    pools = json.loads(_exchange(url, "GET", "/admin/pools", _HEADERS).body)["pools"]
    return len(pools[model]["replicas"])


def _exchange(url: str, method: str, path: str, headers: Mapping[str, str], body: str | None = None) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_DEADLINE_S)
    try:
        connection.connect()
        began = time.perf_counter()
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        text = response.read().decode()
        seconds = time.perf_counter() - began
    finally:
        connection.close()
    if response.status != 200:
        raise RuntimeError(f"{method} {url}{path} answered {response.status}: {text}")
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, text, seconds)
