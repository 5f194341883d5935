"""The verifier of pairs as the gateway asks it: what goes to the model, and what comes of its troubles."""

import asyncio
import struct

import numpy as np
import pytest

from backends.contract import QueueFull, Tensor
from cache.contract import Meaning
from cache.semantic.contract import VerifierError
from cache.semantic.judging import weigh_with_guards
from gateway.trust.verifier import START_CONFIDENCE, WIDTH, PairVerifier, share


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
    """The model sees the tokens of the text asked and of each stored one in turns, padded with id 0; and a cosine."""
    seen: list[tuple[Tensor, ...]] = []

    async def infer(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        seen.append(given)
        return confidences(0.25, 0.75)

    found = await verifier(infer).verify(ASKED, [meaning("a", [5]), meaning("b", [6, 7])])

    assert found == [0.25, 0.75]
    arrays = {each.name: each for each in seen[0]}
    assert arrays["vectors"].shape == (2, 6, WIDTH)
    assert np.frombuffer(arrays["ids"].data, "<i4").tolist() == [7, 5, 8, 0, 9, 0, 7, 6, 8, 7, 9, 0]
    first_of_each = np.frombuffer(arrays["vectors"].data, np.int8).reshape(2, 6, WIDTH)[:, :, 0]
    assert first_of_each.ravel().tolist() == np.frombuffer(arrays["ids"].data, "<i4").tolist()
    assert np.frombuffer(arrays["similarity"].data, "<f4") == pytest.approx([1.0, 1.0])


async def test_who_asks_at_one_moment_shares_a_run():
    """But for the first, which waits for nobody. Short texts wait for no long one; who leaves takes nothing along."""
    runs: list[int] = []
    let_go = asyncio.Event()

    async def infer(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        runs.append(given[0].shape[0])
        await let_go.wait()
        lengths = np.count_nonzero(np.frombuffer(given[1].data, "<i4").reshape(given[1].shape)[:, 1::2], axis=1)
        return confidences(*(lengths / 64))

    judge = verifier(infer)
    short = [meaning("a", [5]), meaning("b", [6, 7])]
    asking = [
        asyncio.ensure_future(judge.verify(ASKED, stored))
        for stored in (short, short[:1], [meaning("long", [3] * 32)], short[1:])
    ]
    while len(runs) < 3:  # noqa: ASYNC110 - the fake has no state to wait for
        await asyncio.sleep(0)
    asking[1].cancel()
    let_go.set()

    told = await asyncio.gather(*asking, return_exceptions=True)

    assert runs == [2, 2, 1]
    assert isinstance(told[1], asyncio.CancelledError)
    assert [told[0], *told[2:]] == [[1 / 64, 2 / 64], [32 / 64], [2 / 64]]

    await asyncio.gather(*(judge.verify(ASKED, short) for _ in range(5)))

    assert runs == [2, 2, 1, 10], "after that the first waits for the others too"


def test_a_run_has_an_end():
    """No run has more pairs than the model takes at once, and every request is in one."""
    runs = share([(7, 4)] * 20 + [(30, 1)])

    assert sorted(len(run) for run in runs) == [1, 4, 8, 8]
    assert sorted(place for run in runs for place in run) == list(range(21))


async def test_texts_of_the_same_tokens_are_for_guards():
    """Of what the model would see twice it is not asked, however the letters differ; alone that serves nothing."""

    async def infer(given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert given[0].shape[0] == 1
        return confidences(0.25)

    same, longer = meaning("ASKED", [7, 8, 9]), meaning("longer", [7, 8, 9, 9])

    assert await verifier(infer).verify(ASKED, [same, longer]) == [0.7, 0.25]
    assert weigh_with_guards(0.7, agreed=False) < START_CONFIDENCE < weigh_with_guards(0.7, agreed=True)


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
