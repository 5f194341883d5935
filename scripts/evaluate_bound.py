"""Replays a long stream of questions whose right answers are known, and holds the promise of `max_wrong_hits` to them.

Repeats, other wordings and near-misses of facts of atlas' world; half way the mix changes: other relations, and many
more near-misses. A hit by meaning is wrong where its answer had been made for a question with another right answer. At
each checkpoint the share of wrong hits so far is compared with the target and with what the gateway certifies then.

    .venv/bin/python -m scripts.evaluate_bound [--requests 20000] [--model world --changed 10%] [--json FILE]

The model is atlas, or one that is always right and gives other answers to a part of the facts from half way on: then
what was remembered is stale, and wrong.

Ends with 1 where the share is above the target beyond chance, or above a bound that the gateway stated.
"""

import argparse
import http.client
import json
import math
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from backends.zoo.atlas_answers import truth
from backends.zoo.atlas_phrasing import Grammar
from backends.zoo.atlas_world import Fact, World, facts, load_world
from scripts.replay import outcome_of
from scripts.running_gateway import ROOT, running
from scripts.world_upstream import Truth, serving

SOURCE = ROOT / "models" / "atlas"
_Z = 1.96
_PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Mix:
    """What a phase asks: its relations, and which shares of its requests are of which kind; the rest is new."""

    relations: tuple[str, ...]
    repeat: float
    paraphrase: float
    near_miss: float


BEFORE = Mix(("capital", "currency", "language", "symbol", "number", "continent"), 0.2, 0.55, 0.1)
AFTER = Mix(("capital", "capital_of", "borders", "in_continent", "element_by_symbol", "convert", "sum"), 0.1, 0.4, 0.35)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request of the stream."""

    text: str
    kind: str
    right: str
    phase: int


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of it: a tier of the cache, `miss`, or `failed`."""

    asked: Asked
    text: str
    outcome: str


@dataclass(slots=True)
class Counts:
    """What was counted so far. `wrong` are hits by meaning."""

    requests: int = 0
    exact: int = 0
    semantic: int = 0
    wrong: int = 0
    miss: int = 0
    failed: int = 0
    near_misses_served: int = 0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The truth so far beside what the gateway said of itself at that moment."""

    counts: Counts
    phase: int
    share: float
    low: float
    high: float
    certificate: Mapping[str, Any]
    since_hits: int
    since_wrong: int

    @property
    def certificate_holds(self) -> bool:
        """Whether the bound on the hits served since `since` was no less than the truth."""
        share = self.since_wrong / self.since_hits if self.since_hits else 0.0
        return bool(share <= self.certificate["served"]["upper_bound"] + 1e-9)


@dataclass(slots=True)
class Stream:
    """Draws the requests of one phase after the other, remembering what was asked.

    In the second phase another answer is right to a part `changed` of the facts.
    """

    world: World
    grammar: Grammar
    rng: Random
    split: str
    changed: float = 0.0
    asked: list[tuple[Fact, str]] = field(default_factory=list)

    def phase(self, mix: Mix, number: int) -> Iterator[Asked]:
        """Yield requests of a phase for ever."""
        pool = [fact for fact in facts(self.world) if fact.relation in mix.relations]
        by_relation: defaultdict[str, list[Fact]] = defaultdict(list)
        for fact in pool:
            by_relation[fact.relation].append(fact)
        while True:
            kind, fact, text = self._draw(mix, by_relation)
            self.asked.append((fact, text))
            yield Asked(text, kind, self.right(fact, number), number)

    def right(self, fact: Fact, phase: int) -> str:
        """Return the answer that is right in a phase."""
        right = truth(self.world, fact)
        if phase > 1 and Random(f"{fact}").random() < self.changed:
            return f"Since the reform: {right}"
        return right

    def truths(self) -> Truth:
        """Return the right answers to all that was drawn."""
        return Truth(*({text: self.right(fact, phase) for fact, text in self.asked} for phase in (1, 2)))

    def _draw(self, mix: Mix, by_relation: Mapping[str, Sequence[Fact]]) -> tuple[str, Fact, str]:
        chance, rng = self.rng.random(), self.rng
        known = self.asked[-4000:]
        if known and chance < mix.repeat:
            fact, text = rng.choice(known)
            return "repeat", fact, text
        if known and chance < mix.repeat + mix.paraphrase:
            fact = rng.choice(known)[0]
            return "paraphrase", fact, self._word(fact)
        if known and chance < mix.repeat + mix.paraphrase + mix.near_miss:
            fact = self._near(rng.choice(known)[0], by_relation)
            return "near-miss", fact, self._word(fact)
        fact = rng.choice(by_relation[rng.choice([*by_relation])])
        return "new", fact, self._word(fact)

    def _near(self, fact: Fact, by_relation: Mapping[str, Sequence[Fact]]) -> Fact:
        """Return a fact that differs in the relation, or in what it is about."""
        others = [
            other
            for relation in by_relation
            if relation != fact.relation
            for other in by_relation[relation]
            if other.about == fact.about
        ]
        if others and self.rng.random() < 0.5:
            return self.rng.choice(others)
        same = by_relation.get(fact.relation) or by_relation[self.rng.choice([*by_relation])]
        alike = [other for other in same if other.about[0][:2] == fact.about[0][:2] and other != fact]
        return self.rng.choice(alike or same)

    def _word(self, fact: Fact) -> str:
        return self.grammar.ask(fact, self.split, self.rng)


def wilson(wrong: int, hits: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, 1927)."""
    if not hits:
        return 0.0, 1.0
    share, spread = wrong / hits, _Z * _Z / hits
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) / hits + spread / hits / 4) * _Z / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


class Judge:
    """Tells which hits were wrong, as `scripts/replay.py` does, reply after reply."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.hits: list[tuple[float, bool]] = []
        self._made_for: defaultdict[str, set[str]] = defaultdict(set)

    def take(self, replies: Sequence[Reply], at: float) -> None:
        """Count a few replies; what the model made among them is known before its repetitions are judged."""
        for reply in replies:
            if reply.outcome == "miss":
                self._made_for[reply.text].add(reply.asked.right)
        for reply in replies:
            self._count(reply, at)

    def _count(self, reply: Reply, at: float) -> None:
        counts = self.counts
        counts.requests += 1
        setattr(counts, reply.outcome, getattr(counts, reply.outcome) + 1)
        if reply.outcome == "semantic":
            right = reply.asked.right
            wrong = reply.text != right and self._made_for[reply.text] != {right}
            counts.wrong += wrong
            counts.near_misses_served += reply.asked.kind == "near-miss" and wrong
            self.hits.append((at, wrong))

    def since(self, moment: float) -> tuple[int, int]:
        """Return the hits by meaning since a moment, and how many of them were wrong."""
        late = [wrong for at, wrong in self.hits if at >= moment]
        return len(late), sum(late)


class Client:
    """Asks over connections of its own, one for each thread."""

    def __init__(self, url: str, model: str, threads: int) -> None:
        self._model = model
        self._netloc = urlsplit(url).netloc
        self._threads = ThreadPoolExecutor(threads)
        self._free = [self._connect() for _ in range(threads)]

    def ask(self, asked: Sequence[Asked]) -> list[Reply]:
        """Ask several at once."""
        return list(self._threads.map(self._one, asked))

    def get(self, path: str) -> Any:
        """Return what a page says."""
        connection = self._connect()
        connection.request("GET", path)
        told = json.loads(connection.getresponse().read())
        connection.close()
        return told

    def close(self) -> None:
        """End the threads and connections."""
        self._threads.shutdown()
        for connection in self._free:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self._netloc, timeout=_PATIENCE_S)

    def _one(self, asked: Asked) -> Reply:
        connection = self._free.pop()
        try:
            body = {"model": self._model, "messages": [{"role": "user", "content": asked.text}]}
            connection.request("POST", "/v1/chat/completions", json.dumps(body))
            response = connection.getresponse()
            told = json.loads(response.read())
            if response.status != 200:
                return Reply(asked, str(told), "failed")
            text = told["choices"][0]["message"]["content"] or ""
            return Reply(asked, text, outcome_of(response.headers["Cache-Status"]))
        finally:
            self._free.append(connection)


def certificate_of(client: Client) -> Mapping[str, Any] | None:
    """Return the only namespace's certificate once no audit is under way; None before there is one."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        told = client.get("/admin/cache/certificate")
        if not told["namespaces"]:
            return None
        if not told["namespaces"][0]["audits_under_way"]:
            certificate: Mapping[str, Any] = told["namespaces"][0]
            return certificate
        time.sleep(0.05)
    raise TimeoutError("audits do not end")


def replay(
    client: Client, stream: Sequence[Asked], truth: Truth, *, at_once: int, every: int, console: Console
) -> list[Checkpoint]:
    """Ask all, and return what was found at each checkpoint: after each so many hits by meaning, and at the end."""
    judge, found, due = Judge(), [], every
    for start in range(0, len(stream), at_once):
        asked = stream[start : start + at_once]
        if asked[0].phase > 1:
            truth.change()
        began = time.time()
        judge.take(client.ask(asked), began)
        if judge.counts.semantic >= due or start + at_once >= len(stream):
            due = judge.counts.semantic + every
            certificate = certificate_of(client)
            if certificate is None:
                continue
            counts = Counts(**asdict(judge.counts))
            low, high = wilson(counts.wrong, counts.semantic)
            since = judge.since(certificate["served"]["since"])
            share = counts.wrong / counts.semantic if counts.semantic else 0.0
            found.append(Checkpoint(counts, asked[-1].phase, share, low, high, certificate, *since))
            console.print(row_of(found[-1]), highlight=False)
    return found


def row_of(point: Checkpoint) -> str:
    """Write a checkpoint in a line."""
    said, counts = point.certificate, point.counts
    return (
        f"{counts.requests:6} asked, phase {point.phase}: {counts.semantic:5} hits by meaning, {counts.wrong:3} wrong ="
        f" {point.share:.2%} [{point.low:.2%}, {point.high:.2%}]; {said['status']:10} tau={said['threshold']:g}"
        f" n={said['audited']} wrong={said['wrong']} bound={said['upper_bound']:.2%};"
        f" served bound={said['served']['upper_bound']:.2%}"
    )


def verdict(points: Sequence[Checkpoint], target: float) -> dict[str, Any]:
    """Say what held."""
    breaches = [point for point in points if point.low > target]
    untrue = [point for point in points if not point.certificate_holds]
    return {
        "target": target,
        "checkpoints": len(points),
        "within_target": sum(point.share <= target for point in points),
        "above_beyond_chance": len(breaches),
        "certificate_below_truth": len(untrue),
        "holds": not breaches and not untrue,
    }


def config_of(directory: Path, options: argparse.Namespace, upstream: str) -> str:
    """Write the gateway's config: the audits' budget is that of a stream in fast motion."""
    models = ROOT / "var/models"
    threshold = f"threshold: {options.threshold}, " if options.threshold else ""
    verifier = "verifier: verifier, " if options.judged_by == "verifier" else ""
    audit = f"{{share: {options.share}, start_share: {options.start_share}, max_per_minute: 1000000}}"
    return f"""
server: {{listen: 127.0.0.1:0}}
cache:
  directory: {directory / "cache"}
  semantic: {{embedder: minilm, budget: 2s, {verifier}{threshold}max_wrong_hits: {options.target}, audit: {audit}}}
models:
  minilm: {{task: embed, onnx: {{path: {models / "minilm"}}}, pool: {{min: 1}}}}
  atlas: {{task: chat, onnx: {{path: {models / "atlas"}}}, pool: {{min: 1, queue: 1024}}}}
  world: {{task: chat, http: {{url: "{upstream}"}}}}
  verifier: {{task: infer, onnx: {{path: {models / "verifier"}}}, pool: {{min: {1 if verifier else 0}}}}}
"""


def stream_of(count: int, seed: int, split: str, changed: float) -> tuple[list[Asked], Truth]:
    """Draw the whole stream, one half of each mix, and the answers to it."""
    world = load_world(SOURCE / "world.yaml")
    drawn = Stream(world, Grammar(world, SOURCE / "phrasings.yaml"), Random(seed), split, changed)
    before = list(islice(drawn.phase(BEFORE, 1), count // 2))
    after = list(islice(drawn.phase(AFTER, 2), count - count // 2))
    return before + after, drawn.truths()


def main() -> int:
    """Replay, print, and return the exit code."""
    options = _parser().parse_args()
    console = Console(width=200)
    stream, right = stream_of(options.requests, options.seed, options.split, share_of(options.changed))
    with tempfile.TemporaryDirectory(prefix="warmgate-bound-") as name, serving(right) as upstream:
        directory = Path(name)
        with running(config_of(directory, options, upstream), directory) as gateway:
            client = Client(gateway.url, options.model, options.at_once)
            began = time.monotonic()
            points = replay(client, stream, right, at_once=options.at_once, every=options.every, console=console)
            took_s = time.monotonic() - began
            client.close()
            log = gateway.log_text()
    said = verdict(points, share_of(options.target))
    told = {
        "options": {key: str(value) for key, value in vars(options).items()},
        "seconds": round(took_s, 1),
        "verdict": said,
        "end": asdict(points[-1].counts) if points else None,
        "checkpoints": [{**asdict(point), "certificate_holds": point.certificate_holds} for point in points],
        "log": [line for line in log.splitlines() if "cache.trust" in line],
    }
    show(console, said, log)
    if options.json:
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(not said["holds"])


def share_of(text: str) -> float:
    """Read a share such as `1%`."""
    return float(text.rstrip("%")) / 100


def show(console: Console, said: Mapping[str, Any], log: str) -> None:
    """Print what held, and what the gateway said of its own accord."""
    table = Table("", "", title="The bound", show_header=False)
    for key, value in said.items():
        table.add_row(key.replace("_", " "), str(value))
    console.print(table)
    console.print("\n".join(line for line in log.splitlines() if "cache.trust" in line), markup=False, highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Hold the promise of max_wrong_hits to a stream of known answers.")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--model", default="atlas", choices=("atlas", "world"))
    parser.add_argument("--judged-by", default="verifier", choices=("verifier", "cosine"))
    parser.add_argument("--changed", default="0%", help="facts with another answer from half way on (model world)")
    parser.add_argument("--target", default="1%", help="max_wrong_hits")
    parser.add_argument("--threshold", type=float, help="where serving begins; left out: the cache's own")
    parser.add_argument("--share", default="5%")
    parser.add_argument("--start-share", default="50%")
    parser.add_argument("--split", default="train", help="whose phrasings: train, dev or test")
    parser.add_argument("--every", type=int, default=500, help="hits by meaning from one checkpoint to the next")
    parser.add_argument("--at-once", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures here too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
