"""What Anthropic's wire refuses, and how its errors look."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import BadJob, DeadlineExceeded, QueueFull, StartFailed, UpstreamFailed, WorkerDied
from gateway.caching.identity import fingerprint
from gateway.errors import (
    BodyTooLarge,
    Draining,
    Forbidden,
    InvalidRequest,
    RateLimited,
    Unauthorized,
    UnknownModel,
    fault,
)
from tests.test_gateway_anthropic import HELLO, SURFACE, asked, blocks, decode


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"max_tokens": None}, "max_tokens", "from 0"),
        ({"max_tokens": "9"}, "max_tokens", '"9"'),
        ({"messages": []}, "messages", "list of 1 to"),
        ({"messages": [3]}, "messages[0]", "3"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role", "user, assistant, system"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "is missing"),
        ({"messages": blocks({"text": "x"})}, "messages[0].content[0]", "'type'"),
        ({"messages": blocks({"type": "text"})}, "messages[0].content[0]", "text"),
        ({"messages": blocks({"type": "image"})}, "messages[0].content[0].source", "is missing"),
        (
            {"messages": blocks({"type": "image", "source": {"type": "base64", "data": "x"}})},
            "messages[0].content[0].source.media_type",
            "string",
        ),
        ({"messages": blocks({"type": "tool_result"})}, "messages[0].content[0].tool_use_id", "string"),
        (
            {"messages": blocks({"type": "tool_use", "id": "x", "name": "f"}, role="assistant")},
            "messages[0].content[0].input",
            "object",
        ),
        ({"system": 5}, "system", "text blocks"),
        ({"system": [{"type": "image"}]}, "system[0]", "text"),
        ({"temperature": 1.5}, "temperature", "from 0 to 1"),
        ({"top_k": -1}, "top_k", "from 0"),
        ({"stop_sequences": "x"}, "stop_sequences", "list"),
        ({"stop_sequences": [""]}, "stop_sequences", "non-empty"),
        ({"tools": {}}, "tools", "list"),
        ({"tools": [{"name": "f"}]}, "tools[0].input_schema", "JSON Schema"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "non-empty"),
        ({"tool_choice": {"type": "tool"}}, "tool_choice.name", "string"),
        ({"tool_choice": {}}, "tool_choice.type", "auto"),
        ({"tool_choice": "auto"}, "tool_choice", "object"),
        ({"thinking": {}}, "thinking.type", "string"),
        ({"thinking": True}, "thinking", "object"),
        ({"stream": 1}, "stream", "true or false"),
        ({"model": None}, "model", "non-empty"),
    ],
)
def test_bad_fields_are_named_with_what_is_allowed(fields, param, words):
    """A refusal names the field and its value, and says what is allowed."""
    with pytest.raises(InvalidRequest) as caught:
        asked(**fields)

    assert caught.value.param == param
    assert words in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["text", "tool_use", "image"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "text", "role", "content", "source", "data", "input", "id", "name"]), inner
        )
    ),
    max_leaves=8,
)
OTHERS = ("system", "tools", "tool_choice", "thinking", "output_config", "stream", "stop_sequences", "x")


@given(
    st.fixed_dictionaries(
        {"model": st.just("m") | JSON, "max_tokens": st.just(5) | JSON, "messages": st.just(HELLO) | JSON},
        optional=dict.fromkeys(OTHERS, JSON),
    )
)
def test_any_json_object_decodes_or_is_refused(body):
    """No JSON object raises anything but a refusal."""
    with contextlib.suppress(InvalidRequest):
        request, _ = decode(body)
        assert request.model
        fingerprint(request)


@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": JSON}), min_size=1))
def test_any_content_decodes_or_is_refused(messages):
    """No content raises anything but a refusal."""
    with contextlib.suppress(InvalidRequest):
        assert asked(messages=messages).job.messages


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000])
def test_bodies_that_are_no_json_object_are_refused(body):
    """Whatever the bytes, the answer is an `InvalidRequest` and no other exception."""
    with pytest.raises(InvalidRequest):
        decode(body)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("m", "messages"), 400, "invalid_request_error"),
        (BadJob("m"), 400, "invalid_request_error"),
        (Unauthorized("m"), 401, "authentication_error"),
        (Forbidden("m"), 403, "permission_error"),
        (UnknownModel("m"), 404, "not_found_error"),
        (BodyTooLarge("m"), 413, "request_too_large"),
        (BadJob("m", status=422), 422, "invalid_request_error"),
        (RateLimited("m", 3.0, {}), 429, "rate_limit_error"),
        (QueueFull("m", 3.0), 529, "overloaded_error"),
        (StartFailed("m"), 529, "overloaded_error"),
        (Draining("m"), 529, "overloaded_error"),
        (UpstreamFailed("m", 529), 529, "overloaded_error"),
        (UpstreamFailed("m", 429), 429, "rate_limit_error"),
        (WorkerDied("m"), 502, "api_error"),
        (ValueError("m"), 500, "api_error"),
        (DeadlineExceeded("m"), 504, "timeout_error"),
    ],
)
def test_errors_have_anthropic_s_shape_and_statuses(error, status, kind):
    """A full queue and a pool that cannot start are `overloaded`; in a stream an error is an event of its own."""
    trouble = fault(error)

    failure = SURFACE.failure(trouble)

    body = json.loads(failure.body)
    assert (failure.status, body["type"], body["error"]["type"]) == (status, "error", kind)
    assert set(body) == {"type", "error", "request_id"}
    name, data = SURFACE.failure_frame(trouble).decode().removesuffix("\n\n").split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == body
