"""What users of semantic caches complained of, asked of ours from outside, with a real embedder.

The list with sources is docs/cache-conformance.md.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.conformance import Subject, about, is_hit, subject
from tests.e2e.program import MINILM, connect, needs

ASKED = "What is the capital of France?"
SAME = "what's the capital of France"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def ours() -> Iterator[Subject]:
    """Run one gateway that goes by a fixed, low threshold: what it refuses, it refuses for another reason."""
    needs("minilm")
    with subject(MINILM, semantic="threshold: 0.6") as found:
        found.ask(about("warm up"))
        yield found


def by_meaning(ours: Subject, body: Mapping[str, Any], key: str = "one") -> bool:
    """Ask, and tell whether the answer is one to another wording."""
    answered = ours.ask(body, key)
    assert answered.status == 200, answered.body
    return is_hit(answered) and "detail=semantic" in answered.headers["cache-status"]


def of(text: str, topic: str, **more: object) -> dict[str, Any]:
    """Ask within a conversation of one test's own, so that no test finds the answers of another."""
    messages = [{"role": "system", "content": f"You know {topic}."}, {"role": "user", "content": text}]
    return {**about(text, **more), "messages": messages}


def test_another_wording_of_the_same_question_is_served_the_same_answer(ours: Subject) -> None:
    """Whole and as a stream; the reply says that it was found by meaning."""
    ours.ask(of(ASKED, "wordings"))
    assert by_meaning(ours, of(SAME, "wordings"))
    assert by_meaning(ours, of(SAME, "wordings", stream=True))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I turn on dark mode?", "How do I turn off dark mode?"),
        ("How do I enable 2FA?", "How do I disable 2FA?"),
        ("Is a refund possible after 14 days?", "Is a refund possible after 40 days?"),
        ("What is 2 + 2?", "What is 2 + 3?"),
        ("Translate from German to French: Haus", "Translate from French to German: Haus"),
        ("Which flights go from Paris to London?", "Which flights go from London to Paris?"),
        ("What is the capital of Austria?", "What is the capital of Australia?"),
        ("Can I cancel my order?", "Can't I cancel my order?"),
        ("Convert 1,000 km to miles", "Convert 1.000 km to miles"),
        ('What does "git reset" do?', 'What does "git rebase" do?'),
    ],
)
def test_what_looks_alike_and_is_not_the_same_is_asked_anew(ours: Subject, one: str, other: str) -> None:
    """Opposites, numbers, directions, names and negations, each far above any threshold of similarity."""
    ours.ask(of(one, "near misses"))
    assert not by_meaning(ours, of(other, "near misses"))


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "system", "content": "You are a pirate."}, {"role": "user", "content": SAME}]},
        {"messages": [{"role": "user", "content": SAME}]},
        {
            "messages": [
                {"role": "system", "content": "You know conversations."},
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi"},
                {"role": "user", "content": SAME},
            ]
        },
        {"seed": 3},
        {"max_tokens": 100},
        {"tools": [TOOL]},
        {"response_format": {"type": "json_object"}},
        {"a_field_of_next_year": 1},
    ],
    ids=["system", "no system", "history", "seed", "limit", "tools", "format", "unknown"],
)
def test_only_the_last_text_may_be_worded_otherwise(ours: Subject, change: Mapping[str, Any]) -> None:
    """Another system prompt, history, tool or parameter is another question, however alike its last words are."""
    ours.ask(of(ASKED, "conversations"))
    assert not by_meaning(ours, {**of(SAME, "conversations"), **change})


def test_tenants_share_no_meaning(ours: Subject) -> None:
    """The nearest answer of another key is neither served, nor does it hide one's own."""
    ours.ask(of(ASKED, "tenants"), "one")
    assert not by_meaning(ours, of(SAME, "tenants"), "other")
    ours.ask(of("Tell me the capital of France, please.", "tenants two"), "other")
    ours.ask(of(SAME, "tenants two"), "one")
    assert by_meaning(ours, of("what's the capital of France?", "tenants two"), "one")


def test_texts_beyond_the_window_of_the_embedder_do_not_match(ours: Subject) -> None:
    """Two that begin alike look the same to it."""
    same = "The meeting was long and nothing was decided there. " * 100
    ours.ask(of(f"{same} Who spoke first?", "windows"))
    assert not by_meaning(ours, of(f"{same} Who spoke last?", "windows"))
    assert not by_meaning(ours, of(f"{same} Who was the first to speak?", "windows"))


def test_a_near_text_has_no_others_vector(ours: Subject) -> None:
    """Embeddings are found by the exact input alone."""
    path = "/v1/embeddings"
    first = ours.ask({"model": "minilm", "input": ASKED}, path=path)
    second = ours.ask({"model": "minilm", "input": SAME}, path=path)
    assert first.status == second.status == 200
    assert not is_hit(second)
    assert first.json()["data"][0]["embedding"] != second.json()["data"][0]["embedding"]


def test_what_was_cut_off_or_left_is_not_found_by_meaning(ours: Subject) -> None:
    """An answer at its limit, a stream whose client left: another wording asks the model."""
    ours.ask(of(ASKED, "limits", max_tokens=1))
    assert not by_meaning(ours, of(SAME, "limits", max_tokens=1))
    connection = connect(ours.url)
    body = json.dumps(of(f"slow {ASKED}", "leaving", stream=True))
    connection.request("POST", "/v1/chat/completions", body, {"Authorization": "Bearer sk-one"})
    connection.getresponse().readline()
    connection.close()
    assert not by_meaning(ours, of(f"slow {SAME}", "leaving"))


def test_who_says_no_store_leaves_no_meaning(ours: Subject) -> None:
    """And who says `no-cache` is served none."""
    ours.ask(of(ASKED, "directives"), **{"Cache-Control": "no-store"})
    assert not by_meaning(ours, of(SAME, "directives"))
    fresh = ours.ask(of("What's the capital of France?", "directives"), **{"Cache-Control": "no-cache"})
    assert not is_hit(fresh)


def test_the_same_question_asked_a_hundred_times_takes_one_place(ours: Subject) -> None:
    """A storm of wordings is served from the first; they are not kept beside each other."""
    ours.ask(of(ASKED, "storms"))
    before = ours.upstream.asked()
    for number in range(30):
        assert by_meaning(ours, of(f"{SAME}{'?' * (number % 7)}{' ' * number}", "storms"))
    assert ours.upstream.asked() == before
