"""What is seen at a glance, of requests and of answers: never otherwise than what those say who read them in full."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from backends.contract import Job, Task, Usage, Verbatim
from backends.glance import tokens_of
from backends.upstream_wire import OpenAIWire
from gateway.analyze import estimate_tokens
from gateway.caching.identity import fingerprint
from gateway.errors import RequestRefused
from gateway.lane.asked import PATH, asked_by
from gateway.lane.writing import written
from gateway.surfaces.openai import OpenAISurface
from gateway.surfaces.wire import Call

ODD = st.sampled_from([None, True, False, 0, 1, -1, 2**70, 0.5, 1e9, "", "text", [], {}, [1], {"a": 1}])
TEXT = st.text(st.sampled_from('ab \\"\n{}:é😀'), max_size=12)
MESSAGE = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "else"]) | ODD, "content": TEXT | ODD},
    optional={"name": TEXT | ODD},
)
NUMBERS = st.sampled_from([None, 0, 1, 0.5, 2, 3, -1, True, 2**63, 2**20 + 1])
REQUEST = st.fixed_dictionaries(
    {"model": TEXT | ODD, "messages": st.lists(MESSAGE, max_size=3) | ODD},
    optional={
        **dict.fromkeys(("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed"), NUMBERS | ODD),
        "stream": st.booleans() | ODD,
        "stream_options": st.fixed_dictionaries({}, optional={"include_usage": st.booleans() | ODD, "else": ODD}) | ODD,
        "user": TEXT | ODD,
        "else": ODD,
    },
)
PLAIN: dict[str, Any] = {"model": "a", "messages": [{"role": "user", "content": "hi"}]}
SURFACE = OpenAISurface()


def seen_as_read(body: bytes) -> bool:
    """Hold what is seen of a request against what is read; tell whether anything was seen."""
    asked = asked_by(body)
    if asked is None:
        return False
    request, _ = SURFACE.decode(Call("POST", PATH, {}, body, None), "0" * 24)
    job = request.job
    assert asked.streamed == job.stream
    assert asked.model == request.model
    assert (asked.tokens, asked.most) == (estimate_tokens(job), job.sampling.max_tokens or 0)
    assert asked.temperature == job.sampling.temperature
    assert asked.seeded == (job.sampling.seed is not None)
    return True


@given(REQUEST, st.booleans())
@example({**PLAIN, "messages": [{"role": ["user"], "content": "hi"}]}, False)
@example({**PLAIN, "stream_options": {"include_usage": True}}, False)
@example({**PLAIN, "stream_options": {}, "stream": False}, False)
def test_a_request_is_seen_as_it_is_read(fields: dict[str, Any], ascii_only: bool) -> None:
    """What a surface would refuse is never seen as something."""
    seen_as_read(json.dumps(fields, ensure_ascii=ascii_only).encode())


def test_plain_requests_are_seen() -> None:
    """Nearly all are."""
    for more in (
        {},
        {"temperature": 1},
        {"max_tokens": 5, "stream": False, "user": 'a "b"'},
        {"seed": 3, "top_p": 0.5},
    ):
        assert seen_as_read(json.dumps({**PLAIN, **more}).encode())


def test_names_that_are_there_twice_are_not_seen() -> None:
    """The surface refuses them."""
    for body in (
        b'{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"a","messages":[{"role":"user","role":"user","content":"x"}]}',
        b'{"model":"a","messages":[{"role":"user","content":"x"}],"seed":1,"seed":2}',
    ):
        assert asked_by(body) is None


CHOICE = st.fixed_dictionaries(
    {"finish_reason": st.sampled_from(["stop", "length", "else"]) | ODD},
    optional={
        "index": st.sampled_from([0, 1, 2]) | ODD,
        "message": st.fixed_dictionaries({"content": TEXT | ODD}, optional={"tool_calls": ODD, "refusal": TEXT | ODD})
        | ODD,
        "text": TEXT | ODD,
        "logprobs": ODD,
    },
)
COUNT = st.sampled_from([0, 3, 2**50, -1, "3", 1.5, None, True])
USAGE = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": COUNT,
        "completion_tokens": COUNT,
        "prompt_tokens_details": st.dictionaries(st.sampled_from(["cached_tokens", "else"]), COUNT) | ODD,
        "completion_tokens_details": st.dictionaries(st.sampled_from(["reasoning_tokens", "else"]), COUNT) | ODD,
    },
)


@given(
    st.fixed_dictionaries(
        {"choices": st.lists(CHOICE, max_size=3) | ODD}, optional={"usage": USAGE | ODD, "error": ODD, "else": ODD}
    )
)
@example({"choices": [{"finish_reason": "stop", "message": {"content": "", "tool_calls": True}}]})
def test_an_answer_is_seen_as_it_is_read(answer: dict[str, Any]) -> None:
    """What is no answer is never seen as one, and its tokens are those that it tells."""
    body = json.dumps(answer).encode()
    seen = tokens_of(body)
    if seen is not None:
        task = (
            Task.COMPLETION
            if any("text" in choice and not choice.get("message") for choice in answer["choices"])
            else Task.CHAT
        )
        events = OpenAIWire().answer_events(Job(task, verbatim=Verbatim("openai", "/chat/completions", b"")), body)
        told = [(event.prompt_tokens, event.completion_tokens) for event in events if type(event) is Usage]
        assert seen == (told or [(0, 0)])[0]


def test_plain_answers_are_seen() -> None:
    """As OpenAI's are."""
    message = {"role": "assistant", "content": "yes", "refusal": None, "annotations": []}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}}
    assert tokens_of(json.dumps({"choices": [choice], "usage": usage}).encode()) == (3, 4)


def shuffled(value: Any, order: int) -> Any:
    """Return a JSON value with the names of its objects in another order."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: hash((name, order)))
        return {name: shuffled(value[name], order) for name in names}
    return [shuffled(each, order) for each in value] if isinstance(value, list) else value


ASIDE = st.fixed_dictionaries({"user": TEXT | ODD, "metadata": ODD})


@given(REQUEST, REQUEST, ASIDE, st.integers(0, 9))
@example(PLAIN, {**PLAIN, "seed": 10**20}, {}, 0)
@example({**PLAIN, "seed": 10**20 + 1}, {**PLAIN, "seed": 10**20}, {}, 0)
def test_bodies_of_one_writing_are_one_request(
    one: dict[str, Any], other: dict[str, Any], aside: dict[str, Any], order: int
) -> None:
    """What has the writing of a request that is served is served too, under the same key."""
    bodies = [json.dumps(one), json.dumps(shuffled({**one, **aside}, order), indent=order % 3), json.dumps(other)]
    first, *others = [(written(PATH, body.encode()), body.encode()) for body in bodies]
    try:
        request, _ = SURFACE.decode(Call("POST", PATH, {}, first[1], None), "0" * 24)
    except RequestRefused:
        return
    for writing, body in others:
        if writing is not None and writing == first[0]:
            same, _ = SURFACE.decode(Call("POST", PATH, {}, body, None), "0" * 24)
            assert fingerprint(same) == fingerprint(request)


def test_the_writing_leaves_out_order_spacing_and_the_end_user() -> None:
    """These do not change what is asked; all else does."""
    plain = written(PATH, json.dumps(PLAIN).encode())
    assert plain is not None
    told = {"metadata": {"a": "b"}, **shuffled(PLAIN, 1), "user": "me"}
    assert written(PATH, json.dumps(told, indent=2).encode()) == plain
    assert written("/v1/responses", json.dumps(told).encode()) != written("/v1/responses", json.dumps(PLAIN).encode())
    for else_ in ({**PLAIN, "model": "b"}, {**PLAIN, "seed": 1}, {**PLAIN, "stream": True}, {**PLAIN, "user": 1}):
        assert written(PATH, json.dumps(else_).encode()) != plain


def test_a_body_that_names_something_twice_has_no_writing() -> None:
    """Nor has what is no object, whose numbers were cut when they were read, or what nests too deeply."""
    for body in (
        b'{"model": "a", "model": "a"}',
        b'{"a": {"b": 1, "b": 1}}',
        b"[1]",
        b"{",
        b'{"a": 100000000000000000001}',
        b'{"a": "' + b"x" * 2**14 + b'"}',
        b'{"a": ' + b"[" * 1000 + b"]" * 1000 + b"}",
    ):
        assert written(PATH, body) is None
