"""The scoring of scripts/replay.py: what counts as a hit, as a wrong hit, and as the model's own fault."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.replay import QUESTIONS, Question, Reply, figures, judge, outcome_of, percentile, read_questions, report

VIENNA = "The capital of Austria is Vienna."
CANBERRA = "The capital of Australia is Canberra."
AUSTRIA = Question("What is the capital of Austria?", "new", None, VIENNA)
IN_OTHER_WORDS = Question("Austria's capital?", "paraphrase", 0, VIENNA)
AUSTRALIA = Question("What is the capital of Australia?", "near_miss", 0, CANBERRA)


def miss(text: str) -> Reply:
    """Make a reply that the model gave."""
    return Reply(text, "miss", 0.1)


def hit(text: str, tier: str = "semantic") -> Reply:
    """Make a reply that a cache gave."""
    return Reply(text, tier, 0.001)


def judgements(*asked: tuple[Question, Reply]) -> list[str]:
    """Judge, and return the judgements alone."""
    return [verdict.judgement for verdict in judge(asked)]


@pytest.mark.parametrize(
    ("header", "outcome"),
    [
        ("warmgate; hit; ttl=3600; detail=exact", "exact"),
        ("warmgate; hit; ttl=12; detail=semantic", "semantic"),
        ("warmgate; fwd=miss; stored", "miss"),
        ("warmgate; fwd=miss; collapsed", "miss"),
        ("warmgate; fwd=bypass; detail=temperature", "miss"),
    ],
)
def test_outcome_is_the_tier_of_a_hit(header: str, outcome: str) -> None:
    """Only a response that says `hit` came from a cache, and `detail` names the tier."""
    assert outcome_of(header) == outcome


def test_right_answers_are_right_wherever_they_come_from() -> None:
    """A right text is right from the model and from either cache."""
    asked = [(AUSTRIA, miss(VIENNA)), (AUSTRIA, hit(VIENNA, "exact")), (IN_OTHER_WORDS, hit(VIENNA))]

    assert judgements(*asked) == ["right"] * 3


def test_the_answer_of_another_question_is_a_wrong_hit() -> None:
    """A hit with an answer made for a question with another right answer is what must never happen."""
    assert judgements((AUSTRIA, miss(VIENNA)), (AUSTRALIA, hit(VIENNA))) == ["right", "wrong_hit"]


def test_a_repeated_mistake_is_the_models() -> None:
    """A hit that repeats what the model got wrong, to a question with the same right answer, is no wrong hit."""
    asked = [(AUSTRIA, miss("Graz.")), (AUSTRIA, hit("Graz.", "exact")), (IN_OTHER_WORDS, hit("Graz."))]

    assert judgements(*asked) == ["model_wrong"] * 3


def test_a_mistake_shared_by_two_questions_counts_against_the_cache() -> None:
    """Where the model gave one text to questions with different answers, a wrong semantic hit counts as wrong."""
    asked = [(AUSTRIA, miss("Graz.")), (AUSTRALIA, miss("Graz.")), (IN_OTHER_WORDS, hit("Graz."))]

    assert judgements(*asked)[2] == "wrong_hit"


def test_a_wrong_text_from_before_the_replay_counts_against_the_cache() -> None:
    """A wrong semantic hit that nobody in this replay made is a wrong hit."""
    assert judgements((AUSTRIA, hit("Graz."))) == ["wrong_hit"]


def test_failures_are_neither_right_nor_wrong() -> None:
    """An error is counted as such."""
    verdicts = judge([(AUSTRIA, Reply("no answer", "failed", 0.1))])

    assert figures(verdicts).failed == 1
    assert figures(verdicts).wrong_hits == 0


def test_report_counts_by_kind_and_is_json() -> None:
    """The figures of the kinds add up to those of all, latencies come by outcome, and all of it is plain JSON."""
    verdicts = judge([(AUSTRIA, miss(VIENNA)), (AUSTRALIA, hit(VIENNA)), (IN_OTHER_WORDS, hit(VIENNA))])

    told = json.loads(json.dumps(report(verdicts)))

    assert {kind: row["n"] for kind, row in told["kinds"].items()} == dict.fromkeys(told["kinds"], 1)
    assert (told["all"]["semantic"], told["all"]["miss"], told["all"]["wrong_hits"]) == (2, 1, 1)
    assert told["latencies_ms"]["semantic"] == {"n": 2, "p50": 1.0, "p99": 1.0}
    assert [row["question"] for row in told["not_right"]] == [AUSTRALIA.text]


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_percentile_is_a_value_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    """It is one of the values, and at least the share of them lies at or below it."""
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)


@pytest.mark.parametrize("path", [QUESTIONS, QUESTIONS.with_name("replay-dev.jsonl")], ids=lambda path: path.stem)
def test_lists_are_a_third_of_each(path: Path) -> None:
    """A third is new, a third repeats, a third is paraphrases and near misses; each refers to an earlier question."""
    questions = read_questions(path)
    kinds = [question.kind for question in questions]

    for third in ({"new"}, {"repeat"}, {"paraphrase", "near_miss"}):
        assert abs(sum(kind in third for kind in kinds) - len(kinds) / 3) <= 1
    for place, question in enumerate(questions):
        assert (question.of is None) == (question.kind == "new")
        if question.of is not None:
            assert question.of < place
            same = questions[question.of].right == question.right
            assert same == (question.kind != "near_miss")
