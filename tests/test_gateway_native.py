"""The native wire: what is understood, what is refused and how, what comes back."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import Finish, Reasoning, Refusal, Scores, Task, Text, Usage, Vectors
from gateway.answer import Answer, Head
from gateway.caching.identity import fingerprint
from gateway.errors import BadJob, InvalidRequest, fault
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call

SURFACE = NativeSurface()
HEAD = Head("atlas", "v1", 1700000000.5)
SPOKEN = Answer(HEAD, (Text("Par"), Text("is."), Usage(7, 2), Finish("stop")))
USED = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def decode(operation: str, surface: object = SURFACE, path: str = "/api/v1/", **body: object):
    """Decode a body on one of the surface's paths."""
    return surface.decode(Call("POST", f"{path}{operation}", {}, json.dumps(body).encode(), None), "0" * 24)


def stream(encoder, answer: Answer) -> list[object]:
    """Return the values of the frames of a streamed answer."""
    frames = encoder.frames
    data = frames.opening(answer.head) + b"".join(map(frames.frame, answer.events)) + frames.closing()
    return [json.loads(part.removeprefix(b"data: ")) for part in data.split(b"\n\n") if part]


def test_a_generation_is_streamed_unless_the_client_says_otherwise():
    """Each piece of text is a token; the last frame says how it ended."""
    _, encoder = decode("generate", model="atlas", prompt="capital of France?")

    assert stream(encoder, SPOKEN) == [
        {"token": "Par"},
        {"token": "is."},
        {"done": True, "finish_reason": "stop", "usage": USED, "model_version": "v1"},
    ]


def test_a_whole_generation_says_what_the_stream_says():
    """With `stream: false` the text is one field."""
    _, encoder = decode("generate", model="atlas", prompt="capital of France?", stream=False)

    assert encoder.frames is None
    assert json.loads(encoder.whole(SPOKEN).body) == {
        "text": "Paris.",
        "finish_reason": "stop",
        "usage": USED,
        "model_version": "v1",
    }


def test_reasoning_and_refusals_are_told_apart_from_the_text():
    """What a model thought, and why it refused, have fields of their own, streamed or not."""
    answer = Answer(HEAD, (Reasoning("hm"), Refusal("no"), Finish("stop")))
    _, streamed = decode("generate", model="atlas", prompt="x")
    _, whole = decode("generate", model="atlas", prompt="x", stream=False)

    assert stream(streamed, answer)[:2] == [{"reasoning": "hm"}, {"refusal": "no"}]
    assert json.loads(whole.whole(answer).body).items() >= {"text": "", "reasoning": "hm", "refusal": "no"}.items()


@given(
    prompt=st.text(min_size=1),
    sampling=st.fixed_dictionaries(
        {},
        optional={
            "max_tokens": st.integers(1, 100),
            "temperature": st.sampled_from([0, 0.5, 2]),
            "seed": st.integers(-5, 5),
            "stop": st.sampled_from(["x", ["x", "y"]]),
        },
    ),
)
def test_a_prompt_is_the_chat_of_one_message(prompt, sampling):
    """The prompt here and the message over OpenAI's wire are the same question, for caches and for models."""
    ours, _ = decode("generate", model="atlas", prompt=prompt, stream=False, **sampling)
    messages = [{"role": "user", "content": prompt}]
    spelled_out, _ = decode("generate", model="atlas", messages=messages, stream=False, **sampling)
    theirs, _ = decode(
        "chat/completions", OpenAISurface(), "/v1/", model="atlas", messages=messages, stream=False, **sampling
    )

    assert fingerprint(ours) == fingerprint(theirs) == fingerprint(spelled_out)
    assert (ours.job.messages, ours.job.sampling, ours.asked) == (theirs.job.messages, theirs.job.sampling, prompt)


@pytest.mark.parametrize("inputs", ["one", ["one"], ["one", "two"]])
def test_inputs_are_those_of_openais_embeddings(inputs):
    """The same texts over OpenAI's wire are the same question."""
    ours, _ = decode("embed", model="minilm", inputs=inputs)
    theirs, _ = decode("embeddings", OpenAISurface(), "/v1/", model="minilm", input=inputs)

    assert fingerprint(ours) == fingerprint(theirs)
    assert ours.job.inputs == theirs.job.inputs
    assert ours.job.task is Task.EMBED


def test_embeddings_come_in_rows():
    """The reply has a row of numbers for each input, and says how long a row is."""
    _, encoder = decode("embed", model="minilm", inputs=["a", "b"])
    vectors = Vectors(np.arange(6, dtype="<f4").tobytes(), (2, 3))

    assert json.loads(encoder.whole(Answer(HEAD, (vectors, Finish("stop")))).body) == {
        "embeddings": [[0, 1, 2], [3, 4, 5]],
        "dimensions": 3,
        "model_version": "v1",
    }


def test_a_prediction_is_the_most_likely_label():
    """The reply has the best label, its probability, the version and the time that it took."""
    _, encoder = decode("predict", model="intents", input="where is my card?")
    scores = Scores(np.array([0.25, 0.75], dtype="<f4").tobytes(), (1, 2), ("no", "yes"))
    body = json.loads(encoder.whole(Answer(HEAD, (scores, Finish("stop")))).body)

    assert body.pop("latency_ms") >= 0
    assert body == {"prediction": "yes", "confidence": 0.75, "model_version": "v1"}


@pytest.mark.parametrize("operation", ["predict", "embed"])
def test_an_answer_of_another_task_is_refused(operation):
    """A model that spoke where a label or a vector was asked for is named in the error."""
    _, encoder = decode(operation, model="atlas", **{"predict": {"input": "x"}, "embed": {"inputs": "x"}}[operation])

    with pytest.raises(InvalidRequest, match=f"'atlas' does not {operation}"):
        encoder.whole(SPOKEN)


@pytest.mark.parametrize(
    ("operation", "body", "param"),
    [
        ("predict", {"input": "x"}, "model"),
        ("predict", {"model": "a"}, "input"),
        ("predict", {"model": "a", "input": ["x"]}, "input"),
        ("predict", {"model": "a", "input": ""}, "input"),
        ("predict", {"model": "a", "input": "x", "inputs": "x"}, "inputs"),
        ("embed", {"model": "a"}, "inputs"),
        ("embed", {"model": "a", "inputs": []}, "inputs"),
        ("embed", {"model": "a", "inputs": ["x"] * 2049}, "inputs"),
        ("embed", {"model": "a", "inputs": ["x", ""]}, "inputs[1]"),
        ("embed", {"model": "a", "inputs": [1, 2]}, "inputs[0]"),
        ("embed", {"model": "a", "inputs": "x", "input": "x"}, "input"),
        ("generate", {"model": "a"}, "prompt"),
        ("generate", {"model": "a", "prompt": ""}, "prompt"),
        ("generate", {"model": "a", "prompt": ["x"]}, "prompt"),
        ("generate", {"model": "a", "prompt": "x", "messages": [{"role": "user", "content": "x"}]}, "prompt"),
        ("generate", {"model": "a", "messages": []}, "messages"),
        ("generate", {"model": "a", "messages": ["x"]}, "messages[0]"),
        ("generate", {"model": "a", "messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages[0]"),
        ("generate", {"model": "a", "messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ("generate", {"model": "a", "messages": [{"role": [], "content": "x"}]}, "messages[0].role"),
        ("generate", {"model": "a", "messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ("generate", {"model": "a", "prompt": "x", "stream": "yes"}, "stream"),
        ("generate", {"model": "a", "prompt": "x", "stream": None}, "stream"),
        ("generate", {"model": "a", "prompt": "x", "max_tokens": 0}, "max_tokens"),
        ("generate", {"model": "a", "prompt": "x", "max_tokens": 1.5}, "max_tokens"),
        ("generate", {"model": "a", "prompt": "x", "max_tokens": True}, "max_tokens"),
        ("generate", {"model": "a", "prompt": "x", "temperature": "0"}, "temperature"),
        ("generate", {"model": "a", "prompt": "x", "temperature": 2.1}, "temperature"),
        ("generate", {"model": "a", "prompt": "x", "stop": ["a"] * 5}, "stop"),
        ("generate", {"model": "a", "prompt": "x", "stop": [""]}, "stop"),
        ("generate", {"model": "a", "prompt": "x", "tools": []}, "tools"),
        ("generate", {"model": "a", "prompt": "x", "y" * 500: 1}, "y" * 80 + "…"),
    ],
)
def test_what_is_refused_is_named(operation, body, param):
    """A field that is wrong, missing or not known is a 400 that names it, and never echoes much."""
    with pytest.raises(InvalidRequest) as caught:
        decode(operation, **body)

    assert caught.value.param == param
    assert len(str(caught.value)) < 400


def test_errors_have_one_shape_whole_and_streamed():
    """An error is an object with the message, its type, its code and the field at fault."""
    trouble = fault(BadJob("too long", "prompt"))
    error = {"message": "too long", "type": "invalid_request_error", "code": None, "param": "prompt"}

    assert SURFACE.failure(trouble).status == 400
    assert json.loads(SURFACE.failure(trouble).body) == {"error": error}
    assert json.loads(SURFACE.failure_frame(trouble).removeprefix(b"data: ")) == {"error": error}


@given(
    st.sampled_from(sorted(SURFACE.paths)),
    st.binary()
    | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(lambda value: json.dumps(value).encode()),
)
def test_any_bytes_are_read_or_refused(path, body):
    """Whatever a client sends, the surface reads it or says what is wrong with it."""
    with pytest.raises(InvalidRequest):
        SURFACE.decode(Call("POST", path, {}, body, None), "0" * 24)
