"""The pulse: whoever lives is left alone, whoever has hung is given up, and nothing runs while all is quiet."""

import asyncio

import pytest

from backends.pulse import LOOKS, Pulse
from tests.fakes import run_virtual

SILENCE_S = 30.0


class Patient:
    """The other side: answers a question after `answer_s`, or never; owes something until it is told otherwise."""

    def __init__(self, answer_s: float | None) -> None:
        self.owes = True
        self.questions: list[float] = []
        self.reasons: list[str] = []
        self._loop = asyncio.get_running_loop()
        self._answer_s = answer_s
        self.pulse = Pulse(SILENCE_S, owed=lambda: self.owes, ask=self._asked, lost=self._given_up)
        self.given_up_at: float | None = None

    def _asked(self) -> None:
        self.questions.append(self._loop.time())
        if self._answer_s is not None:
            self._loop.call_later(self._answer_s, self.pulse.heard)

    def _given_up(self, reason: str) -> None:
        self.given_up_at = self._loop.time()
        self.reasons.append(reason)


def test_silence_is_given_up_once():
    """Without an answer the other side is lost `silence_s` after it was asked, and that is said once."""

    async def run() -> None:
        patient = Patient(None)
        patient.pulse.watch()
        await asyncio.sleep(10 * SILENCE_S)
        assert patient.reasons == ["it gave no sign of life for 30 s"]
        assert len(patient.questions) == 1
        assert patient.given_up_at - patient.questions[0] == pytest.approx(SILENCE_S)

    run_virtual(run())


def test_a_slow_one_that_answers_lives():
    """Steps of just less than `silence_s` are no silence, however many follow each other."""

    async def run() -> None:
        patient = Patient(SILENCE_S * 0.99)
        patient.pulse.watch()
        await asyncio.sleep(100 * SILENCE_S)
        assert patient.reasons == []
        assert len(patient.questions) > 50
        patient.pulse.stop()

    run_virtual(run())


def test_who_talks_is_not_asked():
    """A stream of tokens is sign enough."""

    async def run() -> None:
        patient = Patient(None)
        patient.pulse.watch()
        for _ in range(1000):
            patient.pulse.heard()
            await asyncio.sleep(1)
        assert (patient.questions, patient.reasons) == ([], [])
        patient.pulse.stop()

    run_virtual(run())


def test_a_debt_that_was_dropped_does_not_hide_a_hang():
    """When all who waited have left before the first look, the silence is noticed all the same."""

    async def run() -> None:
        patient = Patient(None)
        patient.pulse.watch()
        patient.pulse.heard()
        patient.pulse.watch()
        patient.owes = False
        await asyncio.sleep(2 * SILENCE_S)
        assert len(patient.reasons) == 1

    run_virtual(run())


def test_nothing_runs_while_nothing_is_owed():
    """After the last answer the looks end, and begin again with the next debt."""

    async def run() -> None:
        patient = Patient(0.0)
        patient.pulse.watch()
        patient.owes = False
        await asyncio.sleep(SILENCE_S)
        asked = len(patient.questions)
        assert patient.pulse._timer is None
        await asyncio.sleep(10 * SILENCE_S)
        assert len(patient.questions) == asked
        patient.pulse.watch()
        await asyncio.sleep(SILENCE_S)
        assert len(patient.questions) == asked + 1
        assert patient.reasons == []

    run_virtual(run())


def test_a_gateway_that_was_held_up_itself_blames_nobody():
    """Time that passed while nobody could look is one look, not silence."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        patient = Patient(SILENCE_S / LOOKS)
        patient.pulse.watch()
        await asyncio.sleep(SILENCE_S / LOOKS * 1.5)
        loop.clock.advance(100 * SILENCE_S)
        await asyncio.sleep(2 * SILENCE_S)
        assert patient.reasons == []
        patient.pulse.stop()

    run_virtual(run())
