"""What a verifier's confidence is worth beside the strict guards."""

import pytest

from cache.semantic.judging import weigh_with_guards

ASKED = "What is the capital of France?"


@pytest.mark.parametrize(
    ("stored", "confidence", "worth"),
    [
        ("Tell me the capital of France", 0.5, 90 / 91),  # the strict guards pass it too
        ("Which city is the seat of the French government?", 0.5, 0.5),  # they do not: its words are others
        ("Tell me the capital of France", 0.0, 0.0),  # nothing was compared
        ("Tell me the capital of France", 1.0, 1.0),
    ],
)
def test_the_word_of_the_strict_guards_raises_a_confidence(stored, confidence, worth):
    """What the strict guards pass too is likelier right; their veto takes nothing away, and no doubt is made sure."""
    assert weigh_with_guards(confidence, stored, ASKED) == pytest.approx(worth)
