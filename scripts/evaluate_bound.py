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
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table

from scripts.bound_stream import Asked, stream_of
from scripts.replay import outcome_of
from scripts.running_gateway import ROOT, running
from scripts.world_upstream import Truth, serving

_Z = 1.96
_PATIENCE_S = 120.0


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
