"""The verifier of pairs as the gateway asks it: what goes to the model, and what comes of its troubles."""

import asyncio
import struct

import numpy as np
import pytest

from backends.contract import QueueFull, Tensor
from cache.contract import Meaning
from cache.semantic.contract import VerifierError
from gateway.trust.verifier import WIDTH, PairVerifier, tensors


def meaning(text: str, ids: list[int]) -> Meaning:
    """Make a meaning whose tokens all have the vector of their id."""
    vectors = np.array([[each % 100] * WIDTH for each in ids], np.int8)
    return Meaning(b"p", text, struct.pack("<2f", 0.6, 0.8), np.array(ids, "<u2").tobytes() + vectors.tobytes())


def confidences(*values: float) -> tuple[Tensor, ...]:
    """Make the answer of a model."""
    return (Tensor("confidence", "FP32", (len(values), 1), np.array(values, "<f4").tobytes()),)


def verifier(infer, deadline_s: float = 5.0) -> PairVerifier:
    """Make a verifier over a fake model."""
    return PairVerifier("v1", infer, deadline_s=deadline_s)


ASKED, OTHER = meaning("asked", [7, 8, 9]), meaning("other", [7, 8])


async def test_each_stored_text_gets_the_confidence_of_its_own_row():
    """The model sees the text asked beside each stored one, padded with id 0, and their cosine."""
    seen: list[tuple[Tensor, ...]] = []

    async def infer(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(given)
        return confidences(0.25, 0.75)

    found = await verifier(infer).verify(ASKED, [meaning("a", [5]), meaning("b", [6, 7])])

    assert found == [0.25, 0.75]
    arrays = {each.name: each for each in seen[0]}
    assert arrays["asked_vectors"].shape == (2, 3, WIDTH)
    assert np.frombuffer(arrays["stored_ids"].data, "<i4").tolist() == [5, 0, 6, 7]
    assert np.frombuffer(arrays["asked_ids"].data, "<i4").tolist() == [7, 8, 9, 7, 8, 9]
    assert np.frombuffer(arrays["similarity"].data, "<f4") == pytest.approx([1.0, 1.0])


async def test_a_text_without_token_vectors_has_no_confidence():
    """What was stored without tokens, or torn, is never served, and is not sent to the model."""

    async def infer(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert given[0].shape[0] == 1
        return confidences(0.75)

    torn = meaning("torn", [4, 5]).tokens[:-1]
    stored = [Meaning(b"p", "none", ASKED.vector), meaning("a", [5]), Meaning(b"p", "torn", ASKED.vector, torn)]

    assert await verifier(infer).verify(ASKED, stored) == [0.0, 0.75, 0.0]
    assert await verifier(infer).verify(stored[0], stored) == [0.0, 0.0, 0.0]


async def test_a_verifier_that_fails_or_is_slow_is_an_error_of_its_own():
    """The look-up is told that nothing can be told, whatever went wrong in the worker."""

    async def refuse(given: object) -> tuple[Tensor, ...]:
        raise QueueFull("full", 1.0)

    async def hang(given: object) -> tuple[Tensor, ...]:
        await asyncio.Event().wait()
        return ()

    for infer in (refuse, hang):
        with pytest.raises(VerifierError):
            await verifier(infer, deadline_s=0.01).verify(ASKED, [OTHER])


@pytest.mark.parametrize("answer", [(), confidences(0.5, 0.5), confidences(1.5), confidences(float("nan"))])
async def test_an_answer_that_is_none_is_not_believed(answer):
    """A confidence for each pair between 0 and 1, or none at all."""

    async def infer(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return answer

    with pytest.raises(VerifierError):
        await verifier(infer).verify(ASKED, [OTHER])


def test_what_the_model_takes_has_one_width():
    """The longest stored text decides how far the others are padded."""
    arrays = {each.name: each for each in tensors(ASKED, [meaning("a", [1]), meaning("b", [1, 2, 3, 4])])}

    assert arrays["stored_vectors"].shape == (2, 4, WIDTH)
    assert not np.frombuffer(arrays["stored_vectors"].data, np.int8).reshape(2, 4, WIDTH)[0, 1:].any()
