"""What of a request is part of its key, field by field: every field that a client can send has a place in a table."""

import random
import typing
from collections.abc import Callable, Mapping
from typing import Any

import orjson
import pytest
from anthropic.types import message_create_params as messages
from anthropic.types.beta import message_create_params as beta_messages
from hypothesis import given
from hypothesis import strategies as st
from openai.types import completion_create_params as completions
from openai.types import embedding_create_params as embeddings
from openai.types.chat import completion_create_params as chats
from openai.types.responses import response_create_params as responses

from backends.contract import Task
from gateway.caching.identity import fingerprint
from gateway.errors import InvalidRequest
from gateway.request import Request
from gateway.surfaces import roles
from gateway.surfaces.anthropic import AnthropicSurface
from gateway.surfaces.native import NativeSurface
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.responses import ResponsesSurface
from gateway.surfaces.roles import Role
from gateway.surfaces.wire import Call, Surface

HELLO = [{"role": "user", "content": "hello"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
# What is sent as a header and not in the body.
HEADERS = {"betas"}


class Wire(typing.NamedTuple):
    """A path, the least body that it takes, the fields of its official client, and their table."""

    surface: Surface
    path: str
    least: Mapping[str, Any]
    table: roles.Roles
    official: tuple[type, ...] = ()


WIRES = {
    "chat": Wire(
        OpenAISurface(),
        "/v1/chat/completions",
        {"model": "m", "messages": HELLO},
        roles.CHAT,
        (chats.CompletionCreateParamsNonStreaming, chats.CompletionCreateParamsStreaming),
    ),
    "completion": Wire(
        OpenAISurface(),
        "/v1/completions",
        {"model": "m", "prompt": "hello"},
        roles.COMPLETION,
        (completions.CompletionCreateParamsNonStreaming, completions.CompletionCreateParamsStreaming),
    ),
    "embedding": Wire(
        OpenAISurface(),
        "/v1/embeddings",
        {"model": "m", "input": "hello"},
        roles.EMBEDDING,
        (embeddings.EmbeddingCreateParams,),
    ),
    "responses": Wire(
        ResponsesSurface(),
        "/v1/responses",
        {"model": "m", "input": "hello"},
        roles.RESPONSES,
        (responses.ResponseCreateParamsNonStreaming, responses.ResponseCreateParamsStreaming),
    ),
    "messages": Wire(
        AnthropicSurface(),
        "/v1/messages",
        {"model": "m", "messages": HELLO, "max_tokens": 5},
        roles.MESSAGES,
        (
            messages.MessageCreateParamsNonStreaming,
            messages.MessageCreateParamsStreaming,
            beta_messages.MessageCreateParamsNonStreaming,
            beta_messages.MessageCreateParamsStreaming,
        ),
    ),
    "predict": Wire(NativeSurface(), "/api/v1/predict", {"model": "m", "input": "hello"}, roles.PREDICT),
    "embed": Wire(NativeSurface(), "/api/v1/embed", {"model": "m", "inputs": "hello"}, roles.EMBED),
    "generate": Wire(NativeSurface(), "/api/v1/generate", {"model": "m", "prompt": "hello"}, roles.GENERATE),
}

# A value of each field that is checked; any object does for the others.
BYE = [{"role": "user", "content": "bye"}]
VALUES: dict[str, Any] = {
    "messages": BYE, "prompt": "bye", "input": "bye", "inputs": "bye", "temperature": 0.5, "top_p": 0.5, "seed": 3,
    "stop": ["x"], "max_tokens": 7, "max_completion_tokens": 7, "max_output_tokens": 7, "frequency_penalty": 1,
    "presence_penalty": 1, "logit_bias": {"5": 1}, "n": 2, "best_of": 2, "echo": True, "suffix": "x", "logprobs": True,
    "top_logprobs": 2, "tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": False,
    "functions": [{"name": "f"}], "function_call": "auto", "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
    "verbosity": "low", "modalities": ["text"], "stream": True, "stream_options": {"include_usage": True}, "user": "u",
    "store": True,
    "service_tier": "flex", "prompt_cache_key": "k", "safety_identifier": "s", "prompt_cache_retention": "24h",
    "encoding_format": "base64", "dimensions": 3, "instructions": "be brief", "text": {"verbosity": "low"},
    "reasoning": {"effort": "low"}, "include": ["message.output_text.logprobs"], "max_tool_calls": 3,
    "system": "be brief", "stop_sequences": ["x"], "top_k": 3, "thinking": {"type": "enabled", "budget_tokens": 2000},
    "output_config": {"effort": "low"}, "truncation": "auto",
}  # fmt: skip
OWN_VALUES: dict[tuple[str, str], Any] = {
    ("completion", "logprobs"): 2,
    ("responses", "tools"): [{"type": "function", "name": "f", "parameters": {}}],
    ("messages", "tools"): [{"name": "f", "input_schema": {"type": "object"}}],
    ("messages", "tool_choice"): {"type": "any"},
    ("generate", "messages"): BYE,
}
# What goes only with another field.
TOGETHER: dict[str, Mapping[str, Any]] = {"stream_options": {"stream": True}}


def ask(wire: Wire, body: Mapping[str, Any]) -> Request:
    """Decode a body."""
    return wire.surface.decode(Call("POST", wire.path, {}, orjson.dumps(body), None), "0" * 24)[0]


@pytest.mark.parametrize("name", [name for name, wire in WIRES.items() if wire.official])
def test_every_field_of_an_official_client_has_a_role(name):
    """A field that a new release of a client brings is to be judged before its release is taken."""
    wire = WIRES[name]
    known = set().union(*[typing.get_type_hints(params) for params in wire.official]) - HEADERS

    assert known - wire.table.keys() == set()


FIELDS = [
    (name, field, role) for name, wire in WIRES.items() for field, role in wire.table.items() if role is not Role.MODEL
]


@pytest.mark.parametrize(("name", "field", "role"), FIELDS)
def test_a_field_does_what_its_role_says(name, field, role):
    """What changes the answer changes the key, what does not leaves it, and what is not done is refused."""
    wire = WIRES[name]
    value = OWN_VALUES.get((name, field), VALUES.get(field, {"a": 1}))
    least = {key: each for key, each in wire.least.items() if (name, field, key) != ("generate", "messages", "prompt")}
    body = {**least, **TOGETHER.get(field, {}), field: value}
    if role is Role.REFUSED:
        with pytest.raises(InvalidRequest, match=field):
            ask(wire, body)
        return

    assert (fingerprint(ask(wire, body)) == fingerprint(ask(wire, wire.least))) is (role is not Role.KEY)


@given(st.sampled_from([name for name, _, _ in FIELDS]), st.randoms(use_true_random=False), st.data())
def test_the_order_of_the_names_does_not_matter(name, order, data):
    """Whatever fields a body has, and in whatever order, it is the same question."""
    wire = WIRES[name]
    open_to = [
        field
        for field, role in wire.table.items()
        if role in (Role.KEY, Role.CLIENT) and field not in wire.least and (name, field) != ("generate", "messages")
    ]
    chosen = data.draw(st.lists(st.sampled_from(open_to), unique=True)) if open_to else []
    body = {
        **wire.least,
        **{
            field: OWN_VALUES.get((name, field), VALUES.get(field, {"b": 1, "a": {"d": 1, "c": 2}})) for field in chosen
        },
    }

    assert fingerprint(ask(wire, shuffled(body, order))) == fingerprint(ask(wire, body))


def shuffled(value: Any, order: random.Random) -> Any:
    """Return a JSON value with the names of all its objects in another order."""
    match value:
        case dict():
            names = order.sample(list(value), len(value))
            return {name: shuffled(value[name], order) for name in names}
        case list():
            return [shuffled(each, order) for each in value]
    return value


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (b"1", b"1.0", True),
        (b"1.50", b"1.5", True),
        (b"0", b"-0.0", True),
        (b"1e0", b"1", True),
        (b"true", b"1", False),
        (b'"1"', b"1", False),
        (b"0.1", b"0.10000000000000001", True),
        (b"9007199254740993.0", b"9007199254740993", False),
    ],
)
def test_a_number_is_what_it_is_worth(one, other, same):
    """How a number is written makes no other question, as long as both are exactly the same number."""
    made = [
        ask(WIRES["chat"], orjson.loads(b'{"model":"m","messages":[{"role":"user","content":"1.0,"}],"x":%b}' % each))
        for each in (one, other)
    ]
    assert (fingerprint(made[0]) == fingerprint(made[1])) is same


def of_headers(query: str = "", **headers: str) -> bytes:
    """Return the key of a message with such headers and such a query."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    body = orjson.dumps(WIRES["messages"].least)
    call = Call("POST", "/v1/messages", named, body, None, query)
    return fingerprint(AnthropicSurface().decode(call, "0" * 24)[0])


def test_headers_that_change_an_answer_are_in_the_key():
    """Betas of Anthropic's wire and the query are; a version, which shapes the reply, and all others are not."""
    plain = of_headers()

    assert plain == of_headers(anthropic_version="2026-01-01", user_agent="a", x_api_key="k")
    others = [of_headers(anthropic_beta="b"), of_headers("beta=true")]
    assert len({plain, *others}) == 1 + len(others)


def test_a_header_and_a_query_are_not_taken_for_each_other():
    """Nor for a field of the client's own by such a name."""
    fields = fingerprint(ask(WIRES["messages"], {**WIRES["messages"].least, "query": "b"}))
    assert len({of_headers("b"), of_headers(anthropic_beta="b"), fields}) == 3


def test_the_same_text_alone_or_in_a_list_is_one_question():
    """So it is over every wire that embeds."""
    decoded: list[Callable[[], Request]] = [
        lambda: ask(WIRES["embedding"], {"model": "m", "input": ["hello"]}),
        lambda: ask(WIRES["embedding"], {"model": "m", "input": "hello", "encoding_format": "base64"}),
        lambda: ask(WIRES["embed"], {"model": "m", "inputs": "hello"}),
        lambda: ask(WIRES["embed"], {"model": "m", "inputs": ["hello"]}),
    ]
    assert len({fingerprint(each()) for each in decoded}) == 1


def test_three_truths_of_meaning():
    """A chat and a classification may be answered by meaning; an embedding never: a near vector is not the vector."""
    assert ask(WIRES["chat"], WIRES["chat"].least).asked == "hello"
    assert ask(WIRES["predict"], WIRES["predict"].least).asked == "hello"
    embedding = ask(WIRES["embedding"], WIRES["embedding"].least)
    assert (embedding.job.task, embedding.asked) == (Task.EMBED, None)
    assert ask(WIRES["embed"], WIRES["embed"].least).asked is None
