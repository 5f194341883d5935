"""Replays a list of questions whose right answers are known, and tells hits, wrong hits and latencies.

A wrong hit is an answer that came from the cache and had been made for a question with another right answer. What the
model itself got wrong is counted apart, and so is a hit that repeats it to a question with the same right answer.

    scripts/setup --dev
    .venv/bin/python scripts/replay.py [--url http://127.0.0.1:8080] [--questions FILE] [--json FILE]

Without --url it serves config/quickstart.yaml itself, on a cache of its own. Ends with 1 after a wrong hit or an error.
"""

import argparse
import json
import math
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import openai
from rich.console import Console
from rich.progress import track
from rich.table import Table

from scripts.running_gateway import ROOT, quickstart_config, running

QUESTIONS = ROOT / "scripts/data/replay.jsonl"
OUTCOMES = ("exact", "semantic", "miss", "failed")


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the list. `of` is the place of the earlier one that it repeats, rephrases or nearly resembles."""

    text: str
    kind: str
    of: int | None
    right: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the gateway answered: `outcome` is a tier of the cache, `miss`, or `failed` with the error as its text."""

    text: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A question, its reply, and what is to be said of it: `right`, `model_wrong`, `wrong_hit` or `failed`."""

    question: Question
    reply: Reply
    judgement: str


@dataclass(frozen=True, slots=True)
class Figures:
    """The counts of one kind of question."""

    n: int
    exact: int
    semantic: int
    miss: int
    failed: int
    wrong_hits: int
    model_wrong: int


def read_questions(path: Path) -> list[Question]:
    """Read a list of questions, one JSON object a line."""
    with path.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [Question(row["question"], row["kind"], row["of"], row["answer"]) for row in rows]


def outcome_of(cache_status: str) -> str:
    """Return the tier of a hit from the header `Cache-Status`, or `miss`."""
    parts = [part.strip() for part in cache_status.split(";")]
    if "hit" not in parts:
        return "miss"
    return next(part.removeprefix("detail=") for part in parts if part.startswith("detail="))


def judge(asked: Sequence[tuple[Question, Reply]]) -> list[Verdict]:
    """Say of each reply, in the order of asking, whether it was right, and whose fault it was where not."""
    made_for: defaultdict[str, set[str]] = defaultdict(set)
    verdicts = []
    for question, reply in asked:
        verdicts.append(Verdict(question, reply, _judgement(question, reply, made_for[reply.text])))
        if reply.outcome == "miss":
            made_for[reply.text].add(question.right)
    return verdicts


def _judgement(question: Question, reply: Reply, made_for: set[str]) -> str:
    """Judge one reply. `made_for`: the right answers of the questions to which the model gave this text before."""
    if reply.outcome == "failed":
        return "failed"
    if reply.text == question.right:
        return "right"
    # An exact hit was made for the very same question. Where the model gave one text to questions with different
    # answers, nobody can tell whose a semantic hit repeats: then it counts as wrong.
    if reply.outcome in ("miss", "exact") or made_for == {question.right}:
        return "model_wrong"
    return "wrong_hit"


def figures(verdicts: Iterable[Verdict]) -> Figures:
    """Count outcomes and judgements."""
    verdicts = list(verdicts)
    outcomes = Counter(verdict.reply.outcome for verdict in verdicts)
    judgements = Counter(verdict.judgement for verdict in verdicts)
    return Figures(
        n=len(verdicts),
        **{outcome: outcomes[outcome] for outcome in OUTCOMES},
        wrong_hits=judgements["wrong_hit"],
        model_wrong=judgements["model_wrong"],
    )


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least value that at least `share` of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def latencies_ms(verdicts: Sequence[Verdict]) -> dict[str, dict[str, float]]:
    """Return count, median and 99th percentile in milliseconds by outcome."""
    found = {}
    for outcome in OUTCOMES:
        values = [1000 * verdict.reply.seconds for verdict in verdicts if verdict.reply.outcome == outcome]
        if values:
            p50, p99 = percentile(values, 0.5), percentile(values, 0.99)
            found[outcome] = {"n": len(values), "p50": round(p50, 2), "p99": round(p99, 2)}
    return found


def report(verdicts: Sequence[Verdict]) -> dict[str, object]:
    """Return everything that is told, as plain values: figures by kind, latencies, what went wrong."""
    kinds = list(dict.fromkeys(verdict.question.kind for verdict in verdicts))
    return {
        "kinds": {
            kind: asdict(figures(verdict for verdict in verdicts if verdict.question.kind == kind)) for kind in kinds
        },
        "all": asdict(figures(verdicts)),
        "latencies_ms": latencies_ms(verdicts),
        "not_right": [
            {"judgement": verdict.judgement, "question": verdict.question.text, "right": verdict.question.right,
             "given": verdict.reply.text, "outcome": verdict.reply.outcome}
            for verdict in verdicts
            if verdict.judgement != "right"
        ],
    }  # fmt: skip


def ask(client: openai.OpenAI, model: str, question: str) -> Reply:
    """Ask one question and wait for the whole answer."""
    began = time.perf_counter()
    try:
        raw = client.chat.completions.with_raw_response.create(
            model=model, messages=[{"role": "user", "content": question}]
        )
    except openai.OpenAIError as error:
        return Reply(str(error), "failed", time.perf_counter() - began)
    text = raw.parse().choices[0].message.content or ""
    return Reply(text, outcome_of(raw.headers["Cache-Status"]), time.perf_counter() - began)


def show(console: Console, verdicts: Sequence[Verdict]) -> None:
    """Print the tables, and every reply that was not the model's own fault."""
    rows = [*dict.fromkeys(verdict.question.kind for verdict in verdicts), "all"]
    table = Table("kind", *(name.replace("_", " ") for name in Figures.__slots__), title="Replay")
    for kind in rows:
        counts = figures(verdict for verdict in verdicts if kind in ("all", verdict.question.kind))
        table.add_row(kind, *map(str, asdict(counts).values()), end_section=kind == rows[-2])
    console.print(table)
    times = Table("outcome", "n", "p50 ms", "p99 ms", title="Latency of the whole answer")
    for outcome, row in latencies_ms(verdicts).items():
        times.add_row(outcome, *map(str, row.values()))
    console.print(times)
    for verdict in verdicts:
        if verdict.judgement in ("wrong_hit", "failed"):
            console.print(
                f"{verdict.judgement}: {verdict.question.text!r} got {verdict.reply.text!r}, "
                f"right is {verdict.question.right!r}",
                markup=False,
            )


@contextmanager
def gateway_at(url: str | None) -> Iterator[str]:
    """Yield the URL of a gateway: the one given, or one that runs on a cache of its own until the context ends."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="warmgate-replay-") as name:
        directory = Path(name)
        with running(quickstart_config(directory), directory) as gateway:
            yield gateway.url


def main() -> int:
    """Replay, print, and return the exit code."""
    options = _parser().parse_args()
    questions = read_questions(options.questions)
    console = Console()
    with (
        gateway_at(options.url) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none needed", max_retries=0) as client,
    ):
        asked = [
            (question, ask(client, options.model, question.text))
            for question in track(questions, "asking", console=console, disable=not console.is_terminal)
        ]
    verdicts = judge(asked)
    show(console, verdicts)
    if options.json:
        options.json.write_text(json.dumps(report(verdicts), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(verdict.judgement in ("wrong_hit", "failed") for verdict in verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Replay questions against a gateway and judge what it answers.")
    parser.add_argument("--url", help="a gateway that runs; left out: one is started on a cache of its own")
    parser.add_argument("--questions", type=Path, default=QUESTIONS, metavar="FILE")
    parser.add_argument("--model", default="atlas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    return parser


if __name__ == "__main__":
    sys.exit(main())
