"""Hits by meaning against the bare embedding of the same texts, through the same pool of the same gateway, in turns.

Every request is one of a few questions in other words than those it was asked in, which the verifier judges. Its text
was never sent, since the vector of one that was is remembered: spaces between the words tell it from the others. So a
hit by meaning costs an embedding, and all that is not the embedding is the gateway's and the verifier's.
"""

import itertools
import json
from collections.abc import Iterable, Iterator

from scripts.benchmarks import load, serving
from scripts.benchmarks.contests import GATEWAY, QUESTION, Bench, Contest
from scripts.benchmarks.load import Load, Post
from scripts.benchmarks.programs import Served

EMBEDDING = "the bare embedding"
PLACES = (
    *("France", "Italy", "Japan", "Egypt", "Peru", "Kenya", "Norway", "Spain", "Poland", "Greece"),
    *("India", "Cuba", "Chile", "Ghana", "Austria", "Finland", "Portugal", "Sweden", "Ireland", "Hungary"),
)
WORDINGS = tuple(
    tuple(wording.split())
    for wording in (
        "Tell me the capital of {}",
        "Which city is the capital of {}?",
        "Tell me the capital city of {} please.",
        "Could you tell me what the capital of {} is?",
        "Can you please tell me the capital of {}?",
        "I would like to know the capital of {}.",
    )
)
_MARK = "the question goes here"
_EMBEDDINGS = "/v1/embeddings"
_LOOKUPS = "warmgate_semantic_lookups_total"
_EVENTS = "warmgate_cache_events_total"
_WARM_UP_S = 1
# Spaces between two words: so many texts that no run comes to their end.
_MOST_SPACES = 4


def contests(bench: Bench, gateway: Served, where: str) -> list[Contest]:
    """Measure at 1 and at 32 in flight; `where` says on which cores the gateway is."""
    for place in PLACES:
        serving.ask(gateway.url, serving.chat("atlas", QUESTION.replace("France", place)))
    hit, embedding = serving.chat("atlas", _MARK), _embedding()
    numbers = itertools.count(1)
    before = _counted(gateway)
    posts = {GATEWAY: hit, EMBEDDING: embedding}
    ran = [
        Contest(f"hits by meaning, {count} in flight, {where}", _runs(bench, gateway, posts, count, numbers))
        for count in (1, 32)
    ]
    hits, others, verified = (after - former for after, former in zip(_counted(gateway), before, strict=True))
    if others or not hits or verified < hits:
        raise RuntimeError(f"{hits:.0f} look-ups were hits, {others:.0f} were not; {verified:.0f} pairs were verified")
    return ran


def _counted(gateway: Served) -> tuple[float, float, float]:
    """Return how many look-ups by meaning were hits, how many were not, and how many pairs the verifier judged."""
    hits = serving.metric(gateway.url, _LOOKUPS, result="hit")
    verified = serving.metric(gateway.url, _EVENTS, tier="semantic", event="verified")
    return hits, serving.metric(gateway.url, _LOOKUPS) - hits, verified


def _runs(
    bench: Bench, gateway: Served, posts: dict[str, Post], connections: int, numbers: Iterator[int]
) -> dict[str, list[Load]]:
    runs: dict[str, list[Load]] = {name: [] for name in posts}
    for post in posts.values():
        _run(bench, gateway, post, _WARM_UP_S, connections=connections, number=next(numbers))
    for _ in range(bench.rounds):
        for name, post in posts.items():
            runs[name].append(_run(bench, gateway, post, bench.seconds, connections=connections, number=next(numbers)))
    return runs


def _run(bench: Bench, gateway: Served, post: Post, seconds: int, *, connections: int, number: int) -> Load:
    script = load.lua(post) + _varying(number)
    return load.run(gateway, post, seconds, bench.load_on, connections, script=script)


def _varying(run: int) -> str:
    """Write what makes wrk send another text each time; each run has numbers of its own."""
    wordings = _lua_list(map(_lua_words, WORDINGS))
    places = _lua_words(PLACES)
    return f"""
local wordings, places, number, whole = {wordings}, {places}, {run} * 1000003, wrk.body
local function next_of(left, count)
  return math.floor(left / count), left % count + 1
end
request = function()
  number = number + 1
  local left, wording, place, spaces = number
  left, wording = next_of(left, {len(WORDINGS)})
  left, place = next_of(left, {len(PLACES)})
  local text = {{}}
  for at, word in ipairs(wordings[wording]) do
    left, spaces = next_of(left, {_MOST_SPACES})
    text[at] = word:gsub("{{}}", places[place]) .. string.rep(" ", spaces)
  end
  local body = string.gsub(whole, "{_MARK}", table.concat(text))
  return wrk.format(nil, nil, nil, body)
end
"""


def _lua_words(words: Iterable[str]) -> str:
    return _lua_list(f'"{word}"' for word in words)


def _lua_list(items: Iterable[str]) -> str:
    return f"{{{', '.join(items)}}}"


def _embedding() -> Post:
    asked = serving.chat("minilm", _MARK)
    body = json.dumps({"model": "minilm", "input": _MARK, "encoding_format": "base64"})
    return Post(_EMBEDDINGS, {**asked.headers, "Cache-Control": "no-store"}, body)
