"""What may be remembered: complete answers whose calls and JSON are as their request wanted them."""

import time

import orjson
import pytest

from backends.contract import Event, Finish, Job, Message, Refusal, Task, Text, ToolCall, UpstreamFailed
from gateway.analyze import CachePolicy, analyze
from gateway.answer import Answer, Head
from gateway.caching.write_gate import write_gate
from gateway.request import Caller, Directives, Request
from tests.fakes import FakeEngine, run_virtual
from tests.test_gateway_pipeline import house

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def tool(name: str = "weather", parameters: object = None) -> dict[str, object]:
    """Offer a function."""
    return {"type": "function", "function": {"name": name, "parameters": CITY if parameters is None else parameters}}


def gated(*events: Event, truncated: bool = False, **extra: object) -> str | None:
    """Return what the gate says of these events as the answer to a request with these fields."""
    job = Job(Task.CHAT, messages=(Message("user", "hi"),), extra=extra)
    features = analyze(
        Request("m", job, {}), Caller(scope=""), Directives(), CachePolicy(truncated=truncated), deadline_s=1.0
    )
    return write_gate(features, Answer(Head("m", "v", 0.0), events))


def called(arguments: str, name: str = "weather", finish: str = "tool_calls") -> tuple[Event, ...]:
    """Call a tool, its arguments in two pieces."""
    half = len(arguments) // 2
    return ToolCall(0, "c1", name, arguments[:half]), ToolCall(0, arguments=arguments[half:]), Finish(finish)


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("choice", "events", "refused"),
    [
        ("auto", called('{"city":"Rome"}'), None),
        ("auto", (Text("in words"), Finish("stop")), None),
        ("none", (Text("in words"), Finish("stop")), None),
        ("none", called('{"city":"Rome"}'), "call not wanted"),
        ("required", called('{"city":"Rome"}', finish="stop"), None),
        ("required", (Text("in words"), Finish("stop")), "no call"),
        (NAMED, called('{"city":"Rome"}', finish="stop"), None),
        (NAMED, called('{"city":"Rome"}', name="climate"), "another tool was chosen"),
        (NAMED, (Text("in words"), Finish("stop")), "another tool was chosen"),
        ({"type": "allowed_tools", "allowed_tools": {}}, called('{"city":"Rome"}'), None),
    ],
)
def test_an_answer_is_stored_only_with_the_calls_that_were_chosen(choice, events, refused):
    """None where none were wanted, at least one where that is required, and no other than the one that was named."""
    assert gated(*events, tools=[tool(), tool("climate")], tool_choice=choice) == refused


def test_what_ended_for_a_reason_of_its_upstream_is_not_stored():
    """Nobody knows what it means; an answer that was aborted may end so."""
    assert gated(Text("a"), Finish("abort"), truncated=True) == "finish_reason abort"


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        (called('{"city":"Rome"}'), None),
        (called('{"city":"Rome"}', finish="stop"), None),
        (called('{"city":7}'), "arguments: not as its schema says"),
        (called("{}"), "arguments: not as its schema says"),
        (called('{"city":'), "arguments: no JSON"),
        (called(""), "arguments: no JSON"),
        (called('{"city":"Rome"}', name="delete_all"), "tool not offered"),
        (called('{"city":"Rome"}', name=""), "tool not offered"),
        ((Text("no call at all"), Finish("tool_calls")), "no call"),
        ((Text("an answer in words"), Finish("stop")), None),
        ((Refusal("I would rather not."), Finish("stop")), "refusal"),
        ((*called('{"city":"Rome"}')[:2], Finish("length")), "finish_reason length"),
    ],
)
def test_a_call_is_stored_only_as_it_was_offered(events, refused):
    """Its name is among the tools, its arguments are JSON, and as the tool's schema says."""
    assert gated(*events, tools=[tool()]) == refused


def test_every_call_of_every_choice_is_checked():
    """One wrong call among many is enough."""
    good, bad = '{"city":"Rome"}', '{"town":"Rome"}'
    events = [ToolCall(place, f"c{place}", "weather", good, index) for index in (0, 1) for place in (0, 1)]
    ends = [Finish("tool_calls", 0), Finish("tool_calls", 1)]
    assert gated(*events, *ends, tools=[tool()]) is None
    assert gated(*events[:3], ToolCall(1, "c1", "weather", bad, 1), *ends, tools=[tool()]) is not None


def test_a_call_without_any_tools_is_never_stored():
    """Nobody could have asked for it."""
    assert gated(*called("{}")) == "tool not offered"


def test_a_tool_without_a_schema_takes_any_json():
    """Such as those of a wire's own types, which have a name and nothing to check."""
    assert gated(*called("[1, 2]", name="bash"), tools=[{"type": "bash_20250124", "name": "bash"}]) is None
    assert gated(*called("ls -l", name="bash"), tools=[{"type": "bash_20250124", "name": "bash"}]) is not None


@pytest.mark.parametrize(
    ("text", "form", "refused"),
    [
        ('{"a":1}', {"type": "json_object"}, None),
        ("[1]", {"type": "json_object"}, "json_object: not as its schema says"),
        ("Here it is: {}", {"type": "json_object"}, "json_object: no JSON"),
        ('{"city":"Rome"}', {"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}}, None),
        ("{}", {"type": "json_schema", "json_schema": {"schema": CITY}}, "json_schema: not as its schema says"),
        ("[]", {"type": "json_schema", "json_schema": {"name": "n"}}, None),
        ("in words", {"type": "text"}, None),
    ],
)
def test_a_text_that_was_to_be_json_is_stored_only_if_it_is(text, form, refused):
    """It parses, and is valid against the schema where one was given."""
    assert gated(Text(text[:4]), Text(text[4:]), Finish("stop"), response_format=form) == refused


def test_what_was_cut_off_is_stored_where_the_route_says_so():
    """A text is; a call that was cut off is no call."""
    assert gated(Text("a"), Finish("length")) == "finish_reason length"
    assert gated(Text("a"), Finish("length"), truncated=True) is None
    assert gated(Text('{"a'), Finish("length"), truncated=True, response_format={"type": "json_object"}) is None
    assert gated(Text("a"), Finish("content_filter"), truncated=True) == "finish_reason content_filter"
    assert gated(*called('{"city"', finish="length"), truncated=True, tools=[tool()]) == "arguments: no JSON"


def _doubling(depth: int) -> dict[str, object]:
    definitions: dict[str, object] = {"d0": {"type": "string"}}
    for level in range(1, depth):
        reference = {"$ref": f"#/$defs/d{level - 1}"}
        definitions[f"d{level}"] = {"allOf": [reference, reference]}
    return {"$ref": f"#/$defs/d{depth - 1}", "$defs": definitions}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "http://127.0.0.1:9/elsewhere"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}},
        {"$ref": "#/nowhere"},
        {"$ref": 7},
        {"type": "nonsense"},
        {"type": "string", "pattern": "(?<=a)b"},
        {"enum": ["x" * 2**17]},
        {"$dynamicRef": "#"},
        _doubling(40),
    ],
)
def test_a_schema_that_cannot_be_checked_lets_nothing_through(schema):
    """References elsewhere or without an end, patterns that take their time, and whatever is too large."""
    begun = time.process_time()
    assert gated(*called('"b"'), tools=[tool(parameters=schema)]) == "arguments: schema not checked"
    assert time.process_time() - begun < 1.0


def test_a_pattern_takes_time_in_proportion_to_the_text():
    """Whatever it is: one that a backtracking search would need years for is decided at once."""
    schema = {"type": "string", "pattern": "^(a+)+$"}
    arguments = orjson.dumps("a" * 5000 + "!").decode()
    assert gated(*called(arguments), tools=[tool(parameters=schema)]) == "arguments: not as its schema says"


def test_a_schema_with_references_is_followed():
    """As generators of schemas from types write them."""
    schema = {
        "$defs": {"City": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
        "type": "object",
        "properties": {"from": {"$ref": "#/$defs/City"}, "to": {"$ref": "#/$defs/City"}},
        "required": ["from", "to"],
    }
    assert gated(*called('{"from":{"name":"a"},"to":{"name":"b"}}'), tools=[tool(parameters=schema)]) is None
    assert gated(*called('{"from":{"name":"a"},"to":{}}'), tools=[tool(parameters=schema)]) is not None


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "kept"),
    [
        (called('{"city":"Rome"}'), True),
        (called('{"city":'), False),
        (called('{"city":"Rome"}', name="other"), False),
        ((Text("no tool needed"), Finish("stop")), True),
        ((Text("cut"), Finish("length")), False),
        ((Text("filtered"), Finish("content_filter")), False),
        ((Text("cut off, with no reason"),), False),
        ((Text("broken"), UpstreamFailed("broke off")), False),
    ],
)
def test_the_gate_stands_on_both_paths(script, kept, stream):
    """Whether a stream was recorded or a whole answer came, only what passes is found again."""

    async def ask_twice() -> list[bool]:
        job = Job(Task.CHAT, messages=(Message("user", "hi"),), extra={"tools": [tool()]}, stream=stream)
        request = Request("a", job, {"messages": ["hi"]})
        found = []
        async with house({"a": FakeEngine(script)}) as built:
            for _ in range(2):
                try:
                    found.append((await built.get(request)).status.hit)
                except UpstreamFailed:
                    found.append(False)
        return found

    assert run_virtual(ask_twice()) == [False, kept]
