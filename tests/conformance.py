"""What the conformance tests ask: a running gateway from outside, in front of an upstream that counts its calls."""

import hashlib
import http.client
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.program import Answered, Family, call, config, metric, started
from tests.e2e.shared_house import Upstream, upstream

KEYS = {"one": "sk-one", "other": "sk-other", "few": "sk-few"}
PATH = "/v1/chat/completions"
BASE: Mapping[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hello"}], "temperature": 0}


@dataclass(frozen=True, slots=True)
class Subject:
    """The gateway under test."""

    url: str
    upstream: Upstream
    family: Family

    def ask(self, body: Mapping[str, Any] | bytes, key: str = "one", path: str = PATH, **headers: str) -> Answered:
        """Ask as the holder of a key."""
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        return call(self.url, "POST", path, sent, Authorization=f"Bearer {KEYS[key]}", **headers)

    def ask_anyway(self, body: Mapping[str, Any]) -> Answered | None:
        """Ask; None where the reply was broken off."""
        try:
            return self.ask(body)
        except (http.client.HTTPException, ConnectionError):
            return None

    def calls(self, *asked: Mapping[str, Any] | bytes, **how: str) -> int:
        """Return how many calls to the model these requests came to, one after the other."""
        before = self.upstream.asked()
        for body in asked:
            answered = self.ask(body, **how)
            assert answered.status == 200, answered.body
            assert "warmgate" in answered.headers["cache-status"]
        return self.upstream.asked() - before

    def counted(self, name: str, **labels: str) -> float:
        """Return a metric."""
        return metric(self.url, name, **labels)


def about(text: str, **more: object) -> dict[str, Any]:
    """Make the body of a chat about a text of one test's own."""
    return {**BASE, "messages": [{"role": "user", "content": text}], **more}


def is_hit(answered: Answered) -> bool:
    """Tell whether the gateway says that it asked nobody."""
    return answered.headers["cache-status"].startswith("warmgate; hit")


def data_of(answered: Answered) -> list[bytes]:
    """Return the data of a stream's events."""
    assert answered.headers["content-type"].startswith("text/event-stream")
    return [line.removeprefix(b"data: ") for line in answered.body.split(b"\n") if line.startswith(b"data: ")]


def chunks_of(answered: Answered) -> list[Any]:
    """Return the chunks of a stream, whose last data is `[DONE]`."""
    *chunks, done = data_of(answered)
    assert done == b"[DONE]"
    return [json.loads(chunk) for chunk in chunks]


@contextmanager
def subject(*models: str, semantic: str = "") -> Iterator[Subject]:
    """Run a gateway with keys for two tenants, and one that may ask five times a minute.

    It has the upstream as a model, and `models` beside it; `semantic` are more settings of the cache by meaning.
    """
    digests = {name: hashlib.sha256(key.encode()).hexdigest() for name, key in KEYS.items()}
    limits = {"few": ", requests_per_minute: 5"}
    keys = ", ".join(f'{{name: {name}, sha256: "{digests[name]}"{limits.get(name, "")}}}' for name in KEYS)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wg-conformance-")))
        model = stack.enter_context(upstream())
        server = f"keys: [{keys}], max_body: 4MiB"
        text = config(directory, model.model(), *models, server=server, semantic=bool(semantic))
        text = text.replace("embedder: minilm,", f"embedder: minilm, {semantic},")
        gateway, family = stack.enter_context(started(text, directory))
        yield Subject(gateway.url, model, family)
