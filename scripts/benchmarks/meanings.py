"""Hits by meaning against the bare embedding of the same texts, through the same pool of the same gateway, in turns.

Every request has a text that was never sent, since the vector of one that was is remembered: the same words with
other spaces between them. So a hit by meaning costs an embedding, and all that is not the embedding is the gateway's.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace

from scripts.benchmarks import load, serving
from scripts.benchmarks.contests import GATEWAY, QUESTION, Bench, Contest
from scripts.benchmarks.load import Load, Post
from scripts.benchmarks.programs import Served

EMBEDDING = "the bare embedding"
WORDS = ("Tell", "me", "the", "capital", "city", "of", "France", "please.")
_MARK = "the question goes here"
_EMBEDDINGS = "/v1/embeddings"
_LOOKUPS = "warmgate_semantic_lookups_total"
_WARM_UP_S = 1
# Spaces between two words: so many texts that no run comes to their end.
_MOST_SPACES = 8


def contests(bench: Bench, gateway: Served) -> list[Contest]:
    """Measure at 1 and at 32 in flight."""
    serving.ask(gateway.url, serving.chat("atlas", QUESTION))
    hit, embedding = serving.chat("atlas", _MARK), _embedding()
    numbers = itertools.count(1)
    probe = replace(hit, body=hit.body.replace(_MARK, in_other_spaces(next(numbers))))
    status = serving.ask(gateway.url, probe).headers["cache-status"]
    if "detail=semantic" not in status:
        raise RuntimeError(f"expected a hit by meaning, got {status}")
    before = _lookups(gateway)
    ran = [_contest(bench, gateway, {GATEWAY: hit, EMBEDDING: embedding}, count, numbers) for count in (1, 32)]
    hits, others = (after - former for after, former in zip(_lookups(gateway), before, strict=True))
    if others or not hits:
        raise RuntimeError(f"{others:.0f} of the look-ups were no hits, {hits:.0f} were")
    return ran


def _lookups(gateway: Served) -> tuple[float, float]:
    """Return how many look-ups by meaning were hits, and how many were not."""
    hits = serving.metric(gateway.url, _LOOKUPS, result="hit")
    return hits, serving.metric(gateway.url, _LOOKUPS) - hits


def in_other_spaces(number: int) -> str:
    """Return the question with spaces that spell the number."""
    text = ""
    for word in WORDS:
        text += word + " " * (1 + number % _MOST_SPACES)
        number //= _MOST_SPACES
    return text.rstrip() if number == 0 else text


def _contest(
    bench: Bench, gateway: Served, posts: dict[str, Post], connections: int, numbers: Iterator[int]
) -> Contest:
    runs: dict[str, list[Load]] = {name: [] for name in posts}
    for post in posts.values():
        _run(bench, gateway, post, _WARM_UP_S, connections=connections, number=next(numbers))
    for _ in range(bench.rounds):
        for name, post in posts.items():
            runs[name].append(_run(bench, gateway, post, bench.seconds, connections=connections, number=next(numbers)))
    return Contest(f"hits by meaning, {connections} in flight", runs)


def _run(bench: Bench, gateway: Served, post: Post, seconds: int, *, connections: int, number: int) -> Load:
    script = load.lua(post) + _varying(number)
    return load.run(gateway, post, seconds, bench.load_on, connections, script=script)


def _varying(run: int) -> str:
    """Write what makes wrk send another text each time; each run has numbers of its own."""
    words = ", ".join(f'"{word}"' for word in WORDS)
    return f"""
local words, number, whole = {{{words}}}, {run} * 1000003, wrk.body
request = function()
  number = number + 1
  local left, text = number, {{}}
  for place, word in ipairs(words) do
    text[place] = word .. string.rep(" ", 1 + left % {_MOST_SPACES})
    left = math.floor(left / {_MOST_SPACES})
  end
  local body = string.gsub(whole, "{_MARK}", table.concat(text))
  return wrk.format(nil, nil, nil, body)
end
"""


def _embedding() -> Post:
    asked = serving.chat("minilm", _MARK)
    body = json.dumps({"model": "minilm", "input": _MARK, "encoding_format": "base64"})
    return Post(_EMBEDDINGS, {**asked.headers, "Cache-Control": "no-store"}, body)
