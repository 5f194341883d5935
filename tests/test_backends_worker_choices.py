"""Choices of one job: each draws as a job of its own would, and what a client adds to the draw is heeded."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import BadJob, Finish, Job, Logprobs, Message, Sampling, Task, Text, Usage
from backends.frames import Decoder
from backends.messages import read_events
from backends.wishes import Wishes
from backends.worker import model
from backends.worker.generate import GenerationRunner
from backends.worker.sampling import Slant
from tests import toys

HOT = 500.0
"""A temperature at which the toy, which is very sure, draws about anything."""


@pytest.fixture(scope="module", name="loaded")
def _loaded(tmp_path_factory) -> model.Model:
    return model.load(toys.spec(toys.decoder(tmp_path_factory.mktemp("decoder"))))


@pytest.fixture(name="runner")
def _runner(loaded) -> GenerationRunner:
    return GenerationRunner(loaded)


def chat(text="w9", extra=None, **sampling: Any) -> Job:
    """Make a chat job."""
    return Job(Task.CHAT, messages=(Message("user", text),), sampling=Sampling(**sampling), extra=extra or {})


def complete(prompt="w5 w6", extra=None, inputs=(), **sampling: Any) -> Job:
    """Make a completion job."""
    return Job(Task.COMPLETION, prompt=prompt, inputs=inputs, sampling=Sampling(**sampling), extra=extra or {})


def run(runner, *jobs: Job) -> list[list[object]]:
    """Run jobs to their end; return the events of each."""
    for number, job in enumerate(jobs):
        runner.add(number, job)
    events: list[list[object]] = [[] for _ in jobs]
    while runner.busy:
        for frame in Decoder().feed(b"".join(runner.step())):
            events[frame.header["id"]] += read_events(frame, ())
    return events


def texts(events) -> dict[int, str]:
    """Join the text of each choice."""
    found: dict[int, str] = {}
    for event in events:
        if isinstance(event, Text):
            found[event.index] = found.get(event.index, "") + event.text
    return found


def test_choices_end_together_after_one_usage(runner):
    """Text of all choices is told as it comes, then one usage (the prompt counted once), then a finish a choice."""
    [events] = run(runner, chat(extra={"n": 6}, max_tokens=3))

    assert events[-7:] == [Usage(3, 18), *(Finish("length", index) for index in range(6))]
    assert all(isinstance(event, Text) for event in events[:-7])
    assert set(texts(events)) == set(range(6))
    assert {event.index for event in events[:4]} == {0, 1, 2, 3}


@settings(max_examples=20)
@given(st.integers(1, 7), st.integers(0, 2**63), st.booleans())
def test_choice_i_is_the_answer_to_the_seed_plus_i(loaded, n, seed, crowded):
    """Each choice says what a job of one choice says whose seed is higher by its place, in any company."""
    runner = GenerationRunner(loaded)
    company = [chat("w3", temperature=HOT, seed=5)] if crowded else []
    found = texts(run(runner, chat(extra={"n": n}, temperature=HOT, seed=seed, max_tokens=5), *company)[0])

    for index in range(n):
        alone = texts(run(runner, chat(temperature=HOT, seed=seed + index, max_tokens=5))[0])
        assert found.get(index, "") == alone.get(0, "")


def test_several_prompts_give_their_choices_one_after_the_other(runner):
    """Two prompts of two choices are four: those of the first prompt, then those of the second."""
    extra, sampling = {"n": 2}, {"temperature": HOT, "seed": 3, "max_tokens": 4}
    [both] = run(runner, complete(None, extra, inputs=("w5 w6", (11, 12)), **sampling))
    first, second = run(runner, complete("w5 w6", extra, **sampling), complete((11, 12), extra, **sampling))

    assert texts(both) == texts(first) | {index + 2: text for index, text in texts(second).items()}
    assert both[-5] == Usage(4, first[-3].completion_tokens + second[-3].completion_tokens)


def test_a_job_of_many_choices_does_not_hold_up_one_of_one(runner):
    """When a slot is free, the job that has fewest takes it, though others have waited for longer."""
    runner.add(1, chat(extra={"n": 16}, max_tokens=2))
    runner.step()
    runner.add(2, chat("w3", max_tokens=2))
    frames = Decoder().feed(b"".join([*runner.step(), *runner.step()]))

    assert 2 in {frame.header["id"] for frame in frames}


def test_cancelling_a_job_ends_all_its_choices(runner):
    """Those that run leave their slots, those that wait are forgotten, and no finish is ever told."""
    runner.add(1, chat(extra={"n": 9}))
    runner.step()
    runner.cancel(1)

    assert not runner.busy
    assert texts(run(runner, chat("w9"))[0])[0] == toys.words(toys.continuation(toys.question("w9"), 29))


@pytest.mark.parametrize("step", ["prefill", "decode"])
def test_a_step_that_fails_ends_its_jobs_whole(runner, monkeypatch, step):
    """When a run fails, each job with a choice in it fails once, with all its choices; who waited is served after."""
    runner.add(1, chat(extra={"n": 6}, max_tokens=3))
    runner.add(2, chat("w3", max_tokens=3))
    [failing] = model.RUN_ERRORS[:1]
    with monkeypatch.context() as patch:
        patch.setattr(runner._slots, step, lambda *_: (_ for _ in ()).throw(failing("no")))
        frames = Decoder().feed(b"".join(runner.step()))
    failed = [frame.header["id"] for frame in frames if frame.header["kind"] == "error"]

    assert failed == [1, 2]
    assert not runner.busy
    assert texts(run(runner, chat("w3", max_tokens=3))[0])[0] == toys.words(toys.continuation(toys.question("w3"), 3))


def test_too_many_choices_are_refused(runner):
    """Prompts times choices are bounded, and the error says by how many."""
    with pytest.raises(BadJob, match="17 prompts of 16 choices; at most 256"):
        runner.add(1, complete(None, {"n": 16}, inputs=("w1",) * 17))


def greedy(text="w9") -> tuple[int, int]:
    """Return the token that the toy draws first, and one that it draws where that has a bias of 100."""
    [first] = toys.continuation(toys.question(text), 1)
    return first, first - 5 if first > 40 else first + 5


def test_a_bias_moves_the_draw(runner):
    """A bias of -100 takes a token out of the greedy answer, and one of 100 puts another in its place."""
    first, other = greedy()
    banned, forced = run(
        runner,
        chat(extra={"logit_bias": {str(first): -100}}, max_tokens=1),
        chat(extra={"logit_bias": {str(other): 100}}, max_tokens=1),
    )

    assert texts(banned)[0] in {toys.words([first - 1]), toys.words([first + 1])}
    assert texts(forced)[0] == toys.words([other])


def test_a_bias_for_no_token_is_refused(runner):
    """A token id that the model does not have raises BadJob with the range."""
    with pytest.raises(BadJob, match="logit_bias has the token 67; the model has 0 to 66"):
        runner.add(1, chat(extra={"logit_bias": {"67": 1}}))


def test_penalties_follow_what_was_drawn():
    """Frequency counts each draw, presence the first; the logits given are left as they are."""
    slant = Slant(Wishes(bias={1: 5.0}, frequency_penalty=0.5, presence_penalty=1.0), 4)
    logits = np.zeros(4, np.float32)
    for token in (0, 2, 2):
        slant.drawn(token)

    assert slant.apply(logits).tolist() == [-1.5, 5.0, -2.0, 0.0]
    assert logits.tolist() == [0, 0, 0, 0]


def test_nothing_added_costs_nothing():
    """Without bias and penalties the logits are passed on, not copied."""
    slant, logits = Slant(Wishes(), 4), np.zeros(4, np.float32)
    slant.drawn(1)
    assert slant.apply(logits) is logits


def repetition() -> tuple[str, list[int], int]:
    """Return a question, what the toy answers, and the place of the first token that it says again."""
    for word in (f"w{number}" for number in range(toys.WORDS)):
        plain = toys.continuation(toys.question(word), 29)
        for place, token in enumerate(plain):
            if token in plain[:place]:
                return word, plain, place
    raise AssertionError("the toy never repeats itself")


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty"])
def test_a_penalty_reaches_the_draw(runner, penalty):
    """Where the model would say a token again, a penalty makes it say the next best; until then nothing changes."""
    text, plain, again = repetition()
    [events] = run(runner, chat(text, {penalty: 2}, max_tokens=again + 1))
    said = texts(events)[0].split()

    assert said[:-1] == toys.words(plain[:again]).split()
    assert said[-1] in {toys.words([plain[again] + 1]), toys.words([plain[again] - 1])}


def test_log_probabilities_follow_their_text(runner):
    """Each piece of text is followed by its tokens' entries, whose bytes are its own."""
    [events] = run(runner, chat(extra={"logprobs": True, "top_logprobs": 3}, max_tokens=4))
    *pairs, usage, finish = events

    for piece, told in zip(pairs[::2], pairs[1::2], strict=True):
        assert isinstance(piece, Text)
        assert isinstance(told, Logprobs)
        [entry] = told.tokens
        assert bytes(entry["bytes"]) == piece.text.encode()
        assert entry["top_logprobs"][0] == {name: entry[name] for name in ("token", "logprob", "bytes")}
        assert math.isclose(sum(math.exp(each["logprob"]) for each in entry["top_logprobs"]), 1, abs_tol=0.3)
    assert (usage, finish) == (Usage(3, 4), Finish("length"))


def test_a_bias_does_not_change_what_is_told(runner):
    """Log probabilities are the model's own: a forced token keeps its small one."""
    _, other = greedy()
    [events] = run(runner, chat(extra={"logprobs": True, "logit_bias": {str(other): 100}}, max_tokens=1))
    [told] = [event for event in events if isinstance(event, Logprobs)]

    assert told.tokens[0]["token"] == toys.words([other])
    assert -27 < told.tokens[0]["logprob"] < -24
    assert told.tokens[0]["top_logprobs"] == []


def test_a_stop_string_is_named_and_its_tokens_are_not_told(runner):
    """The finish says which stop string ended the text; only what was shown has log probabilities."""
    whole = toys.words(toys.continuation(toys.question("w9"), 29)).split()
    [events] = run(runner, chat(extra={"logprobs": True}, stop=("zz", f" {whole[3]}")))

    assert events[-1] == Finish("stop", 0, f" {whole[3]}")
    told = [entry for event in events if isinstance(event, Logprobs) for entry in event.tokens]
    assert b"".join(bytes(entry["bytes"]) for entry in told).decode() == texts(events)[0] == " ".join(whole[:3])


def test_an_echo_begins_each_choice(runner):
    """A completion with echo repeats its prompt, ids as their text, and goes on from it."""
    [plain] = run(runner, complete(max_tokens=3))
    text, ids = run(
        runner, complete(extra={"echo": True, "n": 2}, max_tokens=3), complete((9, 10), {"echo": True}, max_tokens=3)
    )

    assert texts(text) == {0: "w5 w6" + texts(plain)[0], 1: "w5 w6" + texts(plain)[0]}
    assert texts(ids) == {0: "w5 w6" + texts(plain)[0]}
