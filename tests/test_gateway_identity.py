"""What a client asks beside what is known here makes its question another one, over every wire."""

from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backends.contract import Task, TensorSpec
from gateway.caching.identity import compatibility, fingerprint
from gateway.catalog import ModelInfo
from gateway.errors import InvalidRequest
from gateway.request import Request
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.oip.surface import OipSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.wire import Call, Surface

HELLO = [{"role": "user", "content": "hello"}]
INFO = {
    name: ModelInfo(
        name,
        task,
        "v",
        "",
        (TensorSpec("text_input", "BYTES", (1,)),),
        (TensorSpec("text_output", "BYTES", (1,)),),
        0,
        cached=True,
    )
    for name, task in (("chat", Task.CHAT), ("completion", Task.COMPLETION))
}

Body = Mapping[str, Any]


def asks(surface: Surface, path: str, body: Body, **names: str) -> Callable[[Body], Request]:
    """Make what reads such a body with more in it."""

    def ask(more: Body) -> Request:
        return surface.decode(Call("POST", path, {}, orjson.dumps({**body, **more}), None, names=names), "0" * 24)[0]

    return ask


def within(ask: Callable[[Body], Request]) -> Callable[[Body], Request]:
    """Make what puts fields among the parameters of a body."""
    return lambda more: ask({"parameters": more})


OIP = OipSurface(INFO.get)
TEXT = {"text_input": "hello"}
WIRES: dict[str, Callable[[Body], Request]] = {
    "chat": asks(OpenAISurface(), "/v1/chat/completions", {"model": "m", "messages": HELLO}),
    "completion": asks(OpenAISurface(), "/v1/completions", {"model": "m", "prompt": "hello"}),
    "embedding": asks(OpenAISurface(), "/v1/embeddings", {"model": "m", "input": "hello"}),
    "responses": asks(ResponsesSurface(), "/v1/responses", {"model": "m", "input": "hello"}),
    "messages": asks(AnthropicSurface(), "/v1/messages", {"model": "m", "messages": HELLO, "max_tokens": 5}),
    "generate": asks(OIP, "/v2/models/chat/generate", TEXT, model="chat"),
    "generate within": within(asks(OIP, "/v2/models/chat/generate", TEXT, model="chat")),
    "completion within": within(asks(OIP, "/v2/models/completion/generate", TEXT, model="completion")),
}
# What we know ourselves of a request, and what a wire says of its own, by the names that they have or had here.
NAMES = st.sampled_from(
    ["task", "\x00task", "beside", "fields", "path", "sha256", "anthropic-beta", "inputs", "outputs", "asked"]
) | st.text(min_size=1).map(lambda name: f"x{name}")
JSON = st.recursive(
    st.booleans() | st.integers(-1000, 1000) | st.text(),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(), v, max_size=3),
    max_leaves=5,
)


def written(value: object) -> bytes:
    """Write a value in the one way."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


@pytest.mark.parametrize("wire", WIRES)
@given(name=NAMES, one=JSON, other=JSON | st.none())
def test_one_unknown_field_makes_another_question(wire, name, one, other):
    """Two bodies that differ in a field that is not known here share no answer, be it by meaning."""
    assume(written(one) != written(other))
    ours, theirs = WIRES[wire]({name: one}), WIRES[wire]({name: other})

    assert fingerprint(ours) != fingerprint(theirs)
    assert ours.asked is None or compatibility(ours) != compatibility(theirs)


IMAGE = {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1/a.png"}}
TOOL = {"name": "f", "input_schema": {"type": "object"}}


def turn(block: object) -> Body:
    """Make a conversation that begins with one block."""
    return {"messages": [{"role": "user", "content": [block]}, *HELLO]}


def result(block: object) -> Body:
    """Make a conversation with a block in the result of a tool."""
    return turn({"type": "tool_result", "tool_use_id": "t", "content": [block]})


NESTED: dict[str, Callable[[Body], Body]] = {
    "message": lambda more: {"messages": [{**HELLO[0], **more}]},
    "text": lambda more: turn({"type": "text", "text": "a", **more}),
    "image": lambda more: turn({**IMAGE, **more}),
    "source": lambda more: turn({**IMAGE, "source": {"type": "url", "url": "http://127.0.0.1/a.png", **more}}),
    "unknown": lambda more: turn({"type": "new", **more}),
    "system": lambda more: {"system": [{"type": "text", "text": "a", **more}]},
    "result": lambda more: turn({"type": "tool_result", "tool_use_id": "t", "content": "a", **more}),
    "text of a result": lambda more: result({"type": "text", "text": "a", **more}),
    "choice": lambda more: {"tools": [TOOL], "tool_choice": {"type": "auto", **more}},
    "tool": lambda more: {"tools": [{**TOOL, **more}]},
    "format": lambda more: {"output_config": {"format": {"type": "json_schema", "schema": {}, **more}}},
}


@pytest.mark.parametrize("where", NESTED)
@given(name=NAMES | st.just("parameters"), one=JSON, other=JSON | st.none())
def test_one_unknown_field_within_a_message_makes_another_question(where, name, one, other):
    """What blocks say beyond the canonical form reaches an upstream of the same wire, which may answer otherwise."""
    assume(written(one) != written(other))
    ours, theirs = (WIRES["messages"](NESTED[where]({name: value})) for value in (one, other))

    assert fingerprint(ours) != fingerprint(theirs)
    assert ours.asked is None or compatibility(ours) != compatibility(theirs)


def test_hints_for_prompt_caches_make_no_other_question():
    """They change what an answer costs, and not the answer."""
    ours, theirs = (WIRES["messages"](NESTED["text"](more)) for more in ({}, {"cache_control": {"type": "ephemeral"}}))
    assert fingerprint(ours) == fingerprint(theirs)


@pytest.mark.parametrize(
    ("wire", "name", "value"),
    [
        ("responses", "messages", HELLO),
        ("responses", "max_tokens", 5),
        ("responses", "max_completion_tokens", 5),
        ("responses", "response_format", {"type": "json_object"}),
        ("responses", "reasoning_effort", "low"),
        ("responses", "verbosity", "low"),
        ("responses", "logprobs", True),
        ("messages", "stop", ["x"]),
        ("messages", "response_format", {"type": "json_object"}),
        ("messages", "reasoning_effort", "low"),
        ("messages", "parallel_tool_calls", False),
        ("generate", "messages", HELLO),
        ("generate", "prompt", "hello"),
        ("generate within", "messages", HELLO),
        ("completion within", "prompt", "hello"),
    ],
)
def test_words_of_another_wire_are_refused(wire, name, value):
    """A canonical field that the wire has other words for would take the place of those, or be lost."""
    with pytest.raises(InvalidRequest, match=f"'{name}' is no field of this request") as caught:
        WIRES[wire]({name: value})
    assert caught.value.param == name


ONE_CHOICE = ["responses", "messages", "generate", "generate within", "completion within"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 2), ("n", 0), ("n", 2**53), ("n", True), ("n", "2"), ("logprobs", True), ("logprobs", 0)],
)
@pytest.mark.parametrize("wire", ONE_CHOICE)
def test_what_a_reply_of_one_choice_cannot_tell_is_refused(wire, name, value):
    """More choices and the chances of tokens are not made, paid for and dropped."""
    with pytest.raises(InvalidRequest, match=f"'{name}'") as caught:
        WIRES[wire]({name: value})
    assert caught.value.param == name


@pytest.mark.parametrize("wire", [wire for wire in ONE_CHOICE if wire != "responses"])
def test_alternatives_of_tokens_are_refused(wire):
    """So are other tokens that might have been; to ask for none of them is no harm."""
    with pytest.raises(InvalidRequest, match="'top_logprobs'"):
        WIRES[wire]({"top_logprobs": 2})
    assert WIRES[wire]({"n": 1, "logprobs": False, "top_logprobs": 0}).job.task in (Task.CHAT, Task.COMPLETION)


def test_a_parameter_in_two_places_is_refused():
    """One of the two would be lost."""
    with pytest.raises(InvalidRequest, match="'seed' is given twice"):
        WIRES["generate"]({"seed": 1, "parameters": {"seed": 2}})


def test_both_limits_are_told_apart():
    """A limit under its older name stays what it is beside the newer one, since a backend may read either."""
    asked = [WIRES["chat"]({"max_completion_tokens": 9, "max_tokens": limit}) for limit in (5, 6)]
    assert fingerprint(asked[0]) != fingerprint(asked[1])


@pytest.mark.parametrize(("one", "other"), [(2**64 + 1, 2**64 + 2), (-(2**70), -(2**70) - 1), (10**29, 10**29 + 1)])
@pytest.mark.parametrize("wire", ["/v1/chat/completions", "/v1/completions"])
def test_whole_numbers_beyond_64_bits_are_not_the_same(wire, one, other):
    """They are read as the nearest floats, which may be one; but the body goes on with all their digits."""

    def asked(number: int) -> bytes:
        prompt = b'"messages":[{"role":"user","content":"hi"}]' if "chat" in wire else b'"prompt":"hi"'
        body = b'{"model":"m",%b,"seed_of_ours":{"n":[%d]}}' % (prompt, number)
        return fingerprint(OpenAISurface().decode(Call("POST", wire, {}, body, None), "0" * 24)[0])

    assert asked(one) != asked(other)
    assert asked(one) == asked(one)
