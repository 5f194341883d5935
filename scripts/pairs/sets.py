"""Reads sets of question pairs, in whatever of four shapes, and parts them in halves. Judges nothing.

The halves are told apart by a hash of the texts: what is tuned or trained on (`tune`) and what is only reported on
(`report`) never meet.
"""

import csv
import gzip
import io
import json
import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

SEED = 1
SHAPES = """\
the shapes of a set (UTF-8, also compressed as .gz):
  .jsonl  one object a line: {"a": "…", "b": "…", "label": 1}
  .json   a list of such objects, or an object with that list under "pairs"; an entry may itself be a group with
          "pairs", whose pairs are near-misses where they have no label
  .csv    with the columns a,b,label: a pair a line; or with the columns text,category: each text is paired with one
          of its own category (same answer) and with the nearest one of another (not the same answer)
  label   1 or true: one answer serves both questions; 0 or false: it does not. "shouldMatch" is read in its place.
  test, category or kind may say what kind of pair it is; other keys are left alone"""
_LABELS: Mapping[str, bool] = {"0": False, "false": False, "1": True, "true": True}
_SHOWN = 60


class BadSetError(Exception):
    """A set that cannot be read; the text names the file, the place, what is there and what is allowed."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, whether one answer serves both, and what kind of pair it is, where the set says so."""

    a: str
    b: str
    same: bool
    kind: str = ""

    @property
    def half(self) -> str:
        """Which half the pair is in; the same however its questions are ordered."""
        texts = "\n".join(sorted((self.a, self.b))).encode()
        return "tune" if blake2b(texts, digest_size=1).digest()[0] % 2 == 0 else "report"


def read_pairs(path: Path, *, sample: int = 0, half: str = "all") -> list[Pair]:
    """Return a set's pairs: all or one half, and at most `sample` of them (0: no limit), drawn by a fixed seed.

    Raises `BadSetError`.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    readers: Mapping[str, Callable[[str, str], list[Pair]]] = {"csv": _table, "json": _listed, "jsonl": _lines}
    if kind not in readers:
        raise BadSetError(f"{path}: not a set of pairs by its name; allowed: .jsonl, .json or .csv, also with .gz")
    pairs = [pair for pair in readers[kind](_text_of(path), str(path)) if half in ("all", pair.half)]
    if not pairs:
        raise BadSetError(f"{path}: no pairs" if half == "all" else f"{path}: no pairs in its half '{half}'")
    return random.Random(SEED).sample(pairs, sample) if 0 < sample < len(pairs) else pairs


def _text_of(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadSetError(f"{path}: not UTF-8 text at byte {error.start}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise BadSetError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _lines(text: str, source: str) -> list[Pair]:
    pairs = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{source}:{number}"
            pairs.append(_pair(_parsed(line, where, of_many=False), where))
    return pairs


def _listed(text: str, source: str) -> list[Pair]:
    content = _parsed(text, source, of_many=True)
    rows = content.get("pairs") if isinstance(content, dict) else content
    return [_pair(row, where) for row, where in _flat(rows, source, "pair")]


def _parsed(text: str, where: str, *, of_many: bool) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"{where}:{error.lineno}" if of_many else where
        raise BadSetError(f"{at}: not JSON at column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise BadSetError(f"{where}: nested too deep") from None


def _flat(rows: object, source: str, what: str) -> Iterator[tuple[Any, str]]:
    """Yield the rows and where each stands; near-misses that come in groups are taken out of them."""
    if not isinstance(rows, list):
        raise BadSetError(f'{source}: {_said(rows)} where a list of pairs is wanted, or an object with one as "pairs"')
    for number, row in enumerate(rows, 1):
        where = f"{source}: {what} {number}"
        if not isinstance(row, dict) or "pairs" not in row:
            yield row, where
            continue
        for each, at in _flat(row["pairs"], where, "pair"):
            group = {"label": 0, "category": row.get("category", "")}
            yield (group | each if isinstance(each, dict) else each), at


def _pair(row: object, where: str) -> Pair:
    if not isinstance(row, dict):
        raise BadSetError(f'{where}: {_said(row)} where an object with "a", "b" and "label" is wanted')
    for name in ("a", "b"):
        if not isinstance(row.get(name), str):
            found = f'"{name}" is {_said(row[name])}' if name in row else f'"{name}" is missing'
            raise BadSetError(f"{where}: {found}; allowed: a text")
    kind = row.get("test") or row.get("category") or row.get("kind") or ""
    return Pair(row["a"], row["b"], _label(row, where), str(kind))


def _label(row: Mapping[str, Any], where: str) -> bool:
    name = "shouldMatch" if "shouldMatch" in row else "label"
    value = row.get(name)
    same = _LABELS.get(str(value).strip().lower()) if isinstance(value, str | int) else None
    if same is None:
        found = f'"{name}" is {_said(value)}' if name in row else f'"{name}" is missing'
        raise BadSetError(
            f"{where}: {found}; allowed: 1 or true where one answer serves both questions, 0 or false where it does not"
        )
    return same


def _said(value: object) -> str:
    """Write a value as JSON, shortened; collections by their kind alone."""
    kind = {dict: "an object", list: "a list"}.get(type(value))
    text = json.dumps(value, ensure_ascii=False)
    return kind or (text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…")


def _table(text: str, source: str) -> list[Pair]:
    """Read a pair a line, or texts that a label each tells apart."""
    rows = csv.DictReader(io.StringIO(text))
    columns = rows.fieldnames or ()
    try:
        if {"a", "b", "label"} <= set(columns):
            return [_pair(row, f"{source}:{rows.line_num}") for row in rows]
        if {"text", "category"} <= set(columns):
            return _same_label([_labelled(row, f"{source}:{rows.line_num}") for row in rows])
    except csv.Error as error:
        raise BadSetError(f"{source}:{rows.line_num}: not CSV: {error}") from None
    found = ",".join(columns) or "nothing"
    raise BadSetError(f"{source}:1: the columns are {found[:_SHOWN]}; allowed: a,b,label or text,category")


def _labelled(row: Mapping[str, str | None], where: str) -> tuple[str, str]:
    text, category = row["text"], row["category"]
    if not text or not category:
        raise BadSetError(f"{where}: {'text' if not text else 'category'} is missing; each line needs text,category")
    return text.strip(), category


def _same_label(rows: Sequence[tuple[str, str]]) -> list[Pair]:
    """Pair each text with one of its own label and with one of another label that shares most of its words.

    For a classifier the label is the answer, so a pair of one label is one that a single answer serves.
    """
    drawn = random.Random(SEED)
    by_label: dict[str, list[str]] = {}
    for words, label in rows:
        by_label.setdefault(label, []).append(words)
    bags = [frozenset(words.lower().split()) for words, _ in rows]
    pairs = []
    for at in sorted(drawn.sample(range(len(rows)), min(len(rows), 1500))):
        words, label = rows[at]
        mates = [each for each in by_label[label] if each != words]
        if mates:
            pairs.append(Pair(words, drawn.choice(mates), same=True, kind=label))
        other = _nearest_other(at, rows, bags)
        if other is not None:
            pairs.append(Pair(words, rows[other][0], same=False, kind=label))
    return pairs


def _nearest_other(at: int, rows: Sequence[tuple[str, str]], bags: Sequence[frozenset[str]]) -> int | None:
    own, label = bags[at], rows[at][1]
    others = (place for place, row in enumerate(rows) if row[1] != label)
    return max(others, key=lambda place: len(own & bags[place]) / len(own | bags[place] or {""}), default=None)
