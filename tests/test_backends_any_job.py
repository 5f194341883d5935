"""Whatever a client put into a job, an upstream's wire has a request for it or refuses it; nothing else is raised."""

from typing import Any

import orjson
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from backends.anthropic_wire import AnthropicWire
from backends.contract import BadJob, Job, Message, Sampling, Task
from backends.upstream_wire import OpenAIWire

WIRES = [OpenAIWire(), AnthropicWire()]
DEEP = "[" * 300 + "]" * 300

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def often(*values: Any) -> st.SearchStrategy[Any]:
    """Draw what fits, or anything."""
    return st.sampled_from(values) | VALUES


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Draw an object that has some of the fields, or anything."""
    return st.fixed_dictionaries({}, optional=fields) | VALUES


TEXTS = often("x", "", "{}", "[1]", "data:text/plain;base64,eA==", "data:x", '{"a":' + DEEP + "}")
FUNCTION = some(name=TEXTS, arguments=TEXTS, parameters=often({}, None), strict=often(None))
TYPES = often("text", "image_url", "input_audio", "file", "refusal", "function", "custom", "thinking", "image")
PART = some(
    type=TYPES,
    text=TEXTS,
    image_url=some(url=TEXTS),
    file=some(file_data=TEXTS, filename=TEXTS),
    refusal=TEXTS,
)
CALL = some(type=TYPES, id=TEXTS, function=FUNCTION)
MESSAGE = st.builds(
    Message,
    st.sampled_from(["system", "developer", "user", "assistant", "tool", "function", "x"]),
    st.text(max_size=3),
    st.fixed_dictionaries(
        {},
        optional={
            "content": st.lists(PART, max_size=3) | VALUES,
            "tool_calls": st.lists(CALL, max_size=3) | VALUES,
            "thinking_blocks": st.lists(PART, max_size=3) | VALUES,
            "tool_call_id": TEXTS,
            "name": often(None, ""),
        },
    ),
)
EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.lists(some(type=TYPES, function=FUNCTION, custom=VALUES), max_size=3) | VALUES,
        "tool_choice": often("auto", "required", "none") | some(type=TYPES, function=FUNCTION),
        "parallel_tool_calls": often(True, False),
        "response_format": often(None) | some(type=TYPES, json_schema=some(schema=VALUES, name=TEXTS)),
        "reasoning_effort": often("low", None),
        "max_completion_tokens": often(5),
        "stream_options": often(None, {}),
        "n": often(1),
        "logit_bias": often({}),
        "modalities": often(["text"]),
        "x": VALUES,
    },
)
JOBS = st.builds(
    Job,
    st.just(Task.CHAT),
    messages=st.lists(MESSAGE, max_size=3).map(tuple),
    extra=EXTRA,
    sampling=st.just(Sampling()) | st.builds(Sampling, max_tokens=st.integers(1, 9)),
    stream=st.booleans(),
)


@pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)
@settings(max_examples=300)
@given(job=JOBS)
def test_any_job(wire, job):
    """A job becomes a request in JSON, or `BadJob`."""
    try:
        asking = wire.request_of(job, "m")
    except BadJob as error:
        event(f"refused {error.param}")
        return
    event("asked")
    assert orjson.loads(asking.body)["model"] == "m"


def chat(*, extra: Any = None, **message: Any) -> Job:
    """Make a chat of one message with more to it."""
    return Job(Task.CHAT, messages=(Message("assistant", "", message),), extra=extra or {})


@pytest.mark.parametrize(
    ("wire", "job", "param"),
    [
        (WIRES[0], chat(extra={"tools": [1]}), "tools"),
        (WIRES[0], chat(content=[1]), "messages"),
        (WIRES[0], chat(content=[{"type": ["text"]}]), "messages"),
        (WIRES[1], chat(extra={"tools": [1]}), "tools"),
        (WIRES[1], chat(extra={"response_format": "x"}), "response_format"),
        (WIRES[1], chat(thinking_blocks=[1]), "messages"),
        (WIRES[1], chat(content=[1]), "messages"),
        (WIRES[1], chat(tool_calls=[{"id": "c", "function": {"name": "f", "arguments": f'{{"a":{DEEP}}}'}}]), None),
    ],
)
def test_what_has_another_kind_than_it_should_is_refused_by_name(wire, job, param):
    """Surfaces check only what they know; the rest comes as the client wrote it."""
    with pytest.raises(BadJob) as caught:
        wire.request_of(job, "m")
    assert caught.value.param == param
