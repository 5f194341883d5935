"""The built verifier: what it promises of any pair, and how much it keeps of the sets that it was not trained on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scripts.evaluate_semantic_cache import judge, scores_of
from scripts.pairs.curves import best_within, curve
from scripts.pairs.models import Verifier
from scripts.pairs.sets import read_pairs

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "var" / "models"
PAIRS = ROOT.parent / "shared" / "data" / "pairs"
ASKED = "How do I learn Python?"
PARAPHRASE = "What is the best way to learn Python?"
NEAR_MISS = "How long does it take to learn Python?"


@pytest.fixture(scope="module")
def verifier() -> Verifier:
    """Load the built models in this process."""
    if not (MODELS / "verifier" / "model.onnx").exists():
        pytest.skip("var/models/verifier is missing: run scripts/setup")
    return Verifier(MODELS)


def test_a_paraphrase_is_told_from_a_near_miss(verifier):
    """Nearness does not decide: the near-miss has the same words."""
    asked, same, other = (verifier.meaning(text) for text in (ASKED, PARAPHRASE, NEAR_MISS))

    confident, doubtful = verifier.confidences(asked, [same, other])

    assert confident > 0.8
    assert doubtful < 0.2


def test_exchanged_roles_are_seen(verifier):
    """The same words in other roles are another question, and the same roles in another order are not."""
    asked, exchanged, turned = (
        verifier.meaning(text)
        for text in (
            "Why was Oracle bought by Cisco?",
            "Why was Cisco bought by Oracle?",
            "What was the reason for Cisco to buy Oracle?",
        )
    )

    other, same = verifier.confidences(asked, [exchanged, turned])

    assert same > other


def test_company_and_padding_change_nothing(verifier):
    """What else is judged in the same run does not move a confidence, nor which of the two was asked."""
    asked, same, longer = (verifier.meaning(text) for text in (ASKED, PARAPHRASE, f"{NEAR_MISS} And why " * 3))

    (alone,) = verifier.confidences(asked, [same])

    assert verifier.confidences(asked, [longer, same])[1] == pytest.approx(alone, abs=1e-4)
    assert verifier.confidences(same, [asked]) == pytest.approx([alone], abs=1e-4)


def test_a_text_of_too_many_tokens_is_never_served(verifier):
    """A long text hides its difference: it has no token vectors, and so no confidence."""
    long = verifier.meaning("why is it so " * 20)

    assert long.tokens == b""
    assert verifier.confidences(long, [long]) == [0.0]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=st.text(min_size=1, max_size=60), b=st.text(min_size=1, max_size=60))
def test_any_pair_has_one_confidence_whichever_was_asked(verifier, a, b):
    """Nothing makes the verifier fail, and it is as sure of a pair as of the pair turned round."""
    first, second = verifier.meaning(a), verifier.meaning(b)
    (found,) = verifier.confidences(first, [second])

    assert 0.0 <= found <= 1.0
    assert verifier.confidences(second, [first]) == pytest.approx([found], abs=1e-3)


@pytest.mark.parametrize(("name", "sample"), [("kmemo-near-miss.json", 0), ("checklist-qqp-mft.jsonl.gz", 300)])
def test_twice_as_many_paraphrases_are_kept_as_by_cosine(verifier, name, sample):
    """On the halves that nothing was trained on, where no more than 2 % of the near-misses are served."""
    path = PAIRS / name
    if not path.exists():
        pytest.skip(f"{path} is missing")
    pairs = read_pairs(path, sample=sample, half="report")
    same = np.array([pair.same for pair in pairs])

    best = {
        setting: best_within(curve(scores, same)) for setting, (scores, _) in scores_of(judge(pairs, MODELS)).items()
    }

    assert best["shipped"] is not None
    assert best["shipped"].kept >= 2 * (best["cosine"].kept if best["cosine"] else 0.0)
    assert best["shipped"].kept > 0.1
