"""Generation: sequences that share a batch say what they would have said alone, and leave it at once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import BadJob, Job, Message, Sampling, Task
from backends.frames import Decoder
from backends.manifest import ManifestError
from backends.worker import model
from backends.worker.generate import GenerationRunner
from backends.worker.sampling import Sampler
from tests import toys


@pytest.fixture(scope="module", name="loaded")
def _loaded(tmp_path_factory) -> model.Model:
    return model.load(toys.spec(toys.decoder(tmp_path_factory.mktemp("decoder"))))


@pytest.fixture(name="runner")
def _runner(loaded) -> GenerationRunner:
    runner = GenerationRunner(loaded)
    runner.warm()
    return runner


def ask(text="w1 w2", **sampling: Any) -> Job:
    """Make a chat job."""
    return Job(Task.CHAT, messages=(Message("user", text),), sampling=Sampling(**sampling))


class Told:
    """What a runner's frames said about each job."""

    def __init__(self) -> None:
        self.text: dict[int, str] = {}
        self.finish: dict[int, tuple[str, list[int]]] = {}

    def take(self, answers) -> None:
        """Read frames."""
        for frame in Decoder().feed(b"".join(answers)):
            number = frame.header["id"]
            assert number not in self.finish
            if frame.header["kind"] == "text":
                self.text[number] = self.text.get(number, "") + frame.header["text"]
            else:
                [[reason, _]] = frame.header["choices"]
                self.finish[number] = (reason, frame.header["tokens"])


def finish(runner, **jobs: Job) -> Told:
    """Run jobs to their end; the keyword j3 gives job number 3."""
    for name, job in jobs.items():
        runner.add(int(name[1:]), job)
    told = Told()
    while runner.busy:
        told.take(runner.step())
    return told


def expected(text, count=toys.CONTEXT) -> str:
    """Return what the toy model answers."""
    prompt = toys.question(text)
    return toys.words(toys.continuation(prompt, min(count, toys.CONTEXT - len(prompt))))


def test_an_answer_is_what_the_model_says(runner):
    """One chat job gives the model's continuation, token by token through the cache, and its usage."""
    told = finish(runner, j1=ask("w9"))

    assert told.text[1] == expected("w9")
    assert told.finish[1] == ("length", [3, toys.CONTEXT - 3])


_steps = st.lists(
    st.tuples(
        st.sampled_from(["join", "join", "step", "step", "cancel"]),
        st.lists(st.integers(0, toys.WORDS - 1), min_size=1, max_size=12),
        st.integers(1, 30),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(steps=_steps)
def test_batch_mates_do_not_matter(loaded, steps):
    """However sequences join, leave and are cancelled, each that ends has said exactly what it says alone."""
    runner, told, asked, cancelled = GenerationRunner(loaded), Told(), {}, set()
    for number, (action, words, limit) in enumerate(steps):
        if action == "join":
            asked[number] = (" ".join(f"w{word}" for word in words), limit)
            runner.add(number, ask(asked[number][0], max_tokens=limit))
        elif action == "step" and runner.busy:
            told.take(runner.step())
        elif action == "cancel" and set(asked) - set(told.finish):
            victim = sorted(set(asked) - set(told.finish))[limit % len(set(asked) - set(told.finish))]
            runner.cancel(victim)
            cancelled.add(victim)
    while runner.busy:
        told.take(runner.step())

    assert set(told.finish) == set(asked) - cancelled
    for number in told.finish:
        assert told.text.get(number, "") == expected(*asked[number])


def test_sequences_interleave(runner):
    """Two jobs in flight both get text from the same steps."""
    runner.add(1, ask("w1"))
    runner.add(2, ask("w2"))
    told = Told()
    told.take(runner.step())

    assert set(told.text) == {1, 2}


def test_a_late_job_joins_between_two_steps(runner):
    """A job that comes while another generates gets its first token in the very next step."""
    runner.add(1, ask("w1"))
    runner.step()
    runner.add(2, ask("w2"))
    told = Told()
    told.take(runner.step())

    assert set(told.text) == {1, 2}


def test_a_cancelled_job_frees_its_slot(runner):
    """With every slot taken a fifth job waits; when one is cancelled it joins in the next step."""
    for number in range(toys.MAX_BATCH + 1):
        runner.add(number, ask(f"w{number}"))
    told = Told()
    told.take(runner.step())
    assert toys.MAX_BATCH not in told.text

    runner.cancel(1)
    told.take(runner.step())
    assert toys.MAX_BATCH in told.text
    said = told.text[1]
    while runner.busy:
        told.take(runner.step())

    assert told.text[1] == said
    assert told.text[toys.MAX_BATCH] == expected(f"w{toys.MAX_BATCH}")


def test_a_waiting_job_is_cancelled_before_it_starts(runner):
    """Cancelling a job that has no slot yet, or that is long over, or never was, is no error."""
    for number in range(toys.MAX_BATCH + 1):
        runner.add(number, ask(max_tokens=1))
    runner.cancel(toys.MAX_BATCH)
    runner.cancel(99)
    told = Told()
    while runner.busy:
        told.take(runner.step())
    runner.cancel(0)

    assert sorted(told.finish) == [0, 1, 2, 3]


def test_max_tokens_ends_with_length(runner):
    """After max_tokens tokens the reason is length, and no more were made."""
    told = finish(runner, j1=ask("w9", max_tokens=3))

    assert told.finish[1] == ("length", [3, 3])
    assert told.text[1] == expected("w9", 3)


def test_the_stop_token_ends_with_stop(runner):
    """The model's own end is no text and no token of the answer; the reason is stop."""
    text = next(f"w{n}" for n in range(toys.WORDS) if 1 < len(toys.continuation(toys.question(f"w{n}"), 99)) < 20)
    told = finish(runner, j1=ask(text))

    assert told.finish[1] == ("stop", [3, len(toys.continuation(toys.question(text), 99))])
    assert told.text[1] == expected(text)


def test_a_stop_string_over_two_tokens_ends_the_text(runner):
    """A stop string that begins in one token and ends in the next is found, and nothing of it is shown."""
    whole = expected("w9")
    stop = f"{whole.split()[3][-1]} {whole.split()[4][:2]}"
    told = finish(runner, j1=ask("w9", stop=(stop,)))

    assert told.finish[1][0] == "stop"
    assert told.text[1] == whole[: whole.index(stop)]


def test_a_completion_continues_its_prompt(runner):
    """A completion, as text or ids, goes on from exactly its tokens, special ones included."""
    ids = (0, 9, 10, 1)
    as_text = Job(Task.COMPLETION, prompt="<question> w5 w6 <answer>", sampling=Sampling(max_tokens=4))
    as_ids = Job(Task.COMPLETION, prompt=ids, sampling=Sampling(max_tokens=4))
    told = finish(runner, j1=as_text, j2=as_ids)

    assert told.text[1].split() == told.text[2].split() == toys.words(toys.continuation(ids, 4)).split()
    assert told.finish[1] == ("length", [4, 4])


def test_a_seed_decides_whoever_else_is_there(runner):
    """With a seed the draws are the same alone and in company; another seed draws otherwise."""

    def draw(seed) -> Job:
        return ask("w9", temperature=500.0, seed=seed)

    alone = finish(runner, j1=draw(7)).text[1]
    company = finish(runner, j1=draw(8), j2=draw(7), j3=ask("w3", temperature=500.0))

    assert company.text[2] == alone
    assert company.text[1] != alone


@pytest.mark.parametrize(
    ("job", "param"),
    [
        (ask(max_tokens=0), "max_tokens"),
        (ask(temperature=-1.0), "temperature"),
        (ask(top_p=0.0), "top_p"),
        (ask(top_p=1.5), "top_p"),
        (ask(stop=("",)), "stop"),
        (ask("w1 " * 40), "messages"),
        (Job(Task.EMBED, inputs=("w1",)), "model"),
    ],
)
def test_a_bad_job_is_refused_and_forgotten(runner, job, param):
    """What the model cannot do raises BadJob with the client's field, and the runner stays idle."""
    with pytest.raises(BadJob) as caught:
        runner.add(1, job)

    assert caught.value.param == param
    assert not runner.busy


@pytest.mark.parametrize(("temperature", "top_p"), [(None, None), (0.0, 0.3), (1e-4, 1.0), (1.0, 1e-6)])
def test_sharp_sampling_is_greedy(temperature, top_p):
    """No temperature, temperature 0, a tiny one, or a tiny nucleus all draw the likeliest token."""
    sampler = Sampler(Sampling(temperature=temperature, top_p=top_p, seed=1))

    assert {sampler.draw(np.array([0.0, 3.0, 1.0], np.float32)) for _ in range(50)} == {1}


def test_the_nucleus_leaves_the_tail_out():
    """top_p keeps the smallest set of tokens that reaches it: here the first two of 0.5, 0.3, 0.2."""
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, top_p=0.7, seed=1))

    assert {sampler.draw(logits) for _ in range(200)} == {1, 2}


def test_draws_follow_the_distribution():
    """At temperature 1 tokens come as often as the softmax says."""
    logits = np.log(np.array([0.2, 0.5, 0.3], np.float32))
    sampler = Sampler(Sampling(temperature=1.0, seed=1))
    counts = np.bincount([sampler.draw(logits) for _ in range(5000)], minlength=3) / 5000

    assert np.abs(counts - [0.2, 0.5, 0.3]).max() < 0.03


@given(st.integers(-(2**63), 2**63 - 1))
def test_any_seed_is_a_seed(seed):
    """Every 64-bit number, negative ones too, seeds the draws."""
    assert Sampler(Sampling(temperature=1.0, seed=seed)).draw(np.zeros(4, np.float32)) in range(4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('stop: "<end>"', 'stop: "<halt>"'), "stop: '<halt>' is no token"),
        (("max_tokens: 32", "max_tokens: 64"), "max_tokens: 64; the graph's cache holds 32"),
    ],
)
def test_a_manifest_that_does_not_fit_the_graph_is_named(tmp_path, change, words):
    """A manifest whose figures the graph or the tokenizer contradicts is refused with both."""
    file = toys.decoder(tmp_path) / "model.yaml"
    file.write_text(file.read_text().replace(*change))

    with pytest.raises(ManifestError, match=words):
        GenerationRunner(model.load(toys.spec(tmp_path)))
