"""Sets of question pairs: the shapes that are read, and what is said of a set that cannot be."""

import gzip
from pathlib import Path

import pytest

from gateway.trust.verifier import START_CONFIDENCE
from scripts.evaluate_semantic_cache import Verdict, evaluate
from scripts.pairs.sets import BadSetError, Pair, read_pairs

LABELS = "allowed: 1 or true where one answer serves both questions, 0 or false where it does not"


def written(path: Path, text: str) -> Path:
    """Write a set."""
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s.jsonl", '{"a": "x", "b": "y", "label": 1}\n\n{"a": "x", "b": "z", "label": false}\n'),
        ("s.json", '[{"a": "x", "b": "y", "label": true}, {"a": "x", "b": "z", "label": "0"}]'),
        ("s.json", '{"pairs": [{"a": "x", "b": "y", "shouldMatch": true}, {"pairs": [{"a": "x", "b": "z"}]}]}'),
        ("s.csv", "a,b,label\nx,y,1\nx,z,False\n"),
    ],
)
def test_every_shape_is_read(tmp_path: Path, name: str, text: str) -> None:
    """JSON lines, JSON lists and groups, and a CSV of pairs hold the same pairs, also compressed."""
    pairs = [Pair("x", "y", same=True), Pair("x", "z", same=False)]
    assert read_pairs(written(tmp_path / name, text)) == pairs
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    assert read_pairs(tmp_path / f"{name}.gz") == pairs


def test_texts_with_categories_are_paired(tmp_path: Path) -> None:
    """A text goes with one of its own category, and with the nearest one of another."""
    file = written(tmp_path / "s.csv", "text,category\none card,lost\nmy card,lost\nmy pin,pin\n")
    assert Pair("one card", "my card", same=True, kind="lost") in read_pairs(file)
    assert Pair("my pin", "my card", same=False, kind="pin") in read_pairs(file)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("s.jsonl", '{"a": "x", "b": "y", "label": 1}\n{"a": "x", "b": "y"}', f':2: "label" is missing; {LABELS}'),
        ("s.jsonl", '{"a": "x", "b": "y", "label": "same"}', f':1: "label" is "same"; {LABELS}'),
        ("s.jsonl", '{"a": "x", "b": "y", "label": 2}', f':1: "label" is 2; {LABELS}'),
        ("s.jsonl", '{"a": "x", "label": 1}', ':1: "b" is missing; allowed: a text'),
        ("s.jsonl", '{"a": "x",', ":1: not JSON at column 11: "),
        ("s.jsonl", "[]", ':1: a list where an object with "a", "b" and "label" is wanted'),
        ("s.json", '[{"a": 3, "b": "y", "label": 1}]', ': pair 1: "a" is 3; allowed: a text'),
        ("s.json", "[\n{]", ":2: not JSON at column 2: "),
        ("s.json", '"x"', ': "x" where a list of pairs is wanted'),
        ("s.csv", "a,b\nx,y\n", ":1: the columns are a,b; allowed: a,b,label or text,category"),
        ("s.csv", "a,b,label\nx,y,1\nx,y,maybe\n", f':3: "label" is "maybe"; {LABELS}'),
        ("s.csv", "text,category\nx\n", ":2: category is missing; each line needs text,category"),
        ("s.jsonl", "", ": no pairs"),
        ("s.txt", "x", ": not a set of pairs by its name; allowed: .jsonl, .json or .csv, also with .gz"),
    ],
)
def test_a_fault_is_told_with_its_place(tmp_path: Path, name: str, text: str, said: str) -> None:
    """Who wrote the set is told the file, the line, what is there and what is allowed."""
    file = written(tmp_path / name, text)
    with pytest.raises(BadSetError) as fault:
        read_pairs(file)
    assert str(fault.value).startswith(f"{file}{said}")


def test_a_set_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    """Its name is said once, and why it cannot be read."""
    with pytest.raises(BadSetError) as fault:
        read_pairs(tmp_path / "no.jsonl")
    assert str(fault.value) == f"{tmp_path / 'no.jsonl'}: cannot be read: No such file or directory"


def test_verdicts_are_what_the_figures_are_of() -> None:
    """A pair is served where it is confident enough and unvetoed; the shares at the start threshold count the same."""
    verdicts = [
        Verdict(Pair("x", "y", same=True), 0.9, (), (), START_CONFIDENCE),
        Verdict(Pair("x", "z", same=True), 0.9, ("numbers",), ("numbers",), None),
        Verdict(Pair("x", "w", same=False), 0.8, (), ("content",), START_CONFIDENCE - 0.01),
    ]
    assert [each.told()["served"] for each in verdicts] == [True, False, False]
    assert verdicts[1].told() == {
        "a": "x", "b": "z", "label": 1, "cosine": 0.9,
        "vetoes": {"sure": ("numbers",), "strict": ("numbers",)}, "confidence": None, "served": False,
    }  # fmt: skip
    settings = evaluate(verdicts)["settings"]
    assert settings["shipped"]["at_start"]["kept"] == 0.5
    assert settings["shipped"]["at_start"]["served"] == 0.0
    assert settings["cosine"]["kept_at_2_percent_served"] == 1.0
