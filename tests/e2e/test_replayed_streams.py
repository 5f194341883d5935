"""What a cache tells again: the upstream's own bytes with a fresh id, and the same in other forms and wires."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import pytest
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from scripts.running_gateway import RunningGateway
from tests.e2e.program import SERVER, Answered, call, serving
from tests.e2e.test_anthropic_client import anthropic_upstream

OPENAI_ID, ANTHROPIC_ID = b'"cmpl-1"', b'"msg_01"'
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("weather", "clock")]
CLAUDE_TOOLS = [{"name": name, "input_schema": SCHEMA} for name in ("weather", "clock")]
JSON_FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}

CHATS: Mapping[str, Mapping[str, Any]] = {
    "text": {"text": "plain words"},
    "thought": {"text": "think of it"},
    "calls of tools": {"text": "weather and clock", "tools": TOOLS},
    "log probabilities": {"text": "scored words", "logprobs": True, "top_logprobs": 1},
    "choices": {"text": "several times", "n": 2},
    "JSON": {"text": "as JSON", "response_format": JSON_FORMAT},
    "comments, in odd pieces": {"text": "odd pieces"},
    "usage": {"text": "counted words", "stream_options": {"include_usage": True}},
}
MESSAGES: Mapping[str, Mapping[str, Any]] = {
    "text": {"text": "plain words"},
    "thought": {"text": "think of it"},
    "a call of a tool": {"text": "use a tool", "tools": CLAUDE_TOOLS[:1]},
    "stop sequence": {"text": "one two END three", "stop_sequences": ["END"]},
}


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve an upstream of each wire."""
    with anthropic_upstream() as url:
        echo = f'  echo: {{task: chat, command: {{run: "{SERVER}", concurrency: 4}}, pool: {{min: 1}}}}'
        claude = f'  claude: {{task: chat, http: {{url: "{url}/v1", api: anthropic, key: "k"}}}}'
        with serving(echo, claude) as running:
            yield running


def chat(house: RunningGateway, text: str, *, stream: bool, **more: Any) -> Answered:
    """Ask over OpenAI's wire."""
    body = {"model": "echo", "messages": [{"role": "user", "content": text}], "stream": stream, **more}
    if not stream:
        body.pop("stream_options", None)
    return call(house.url, "POST", "/v1/chat/completions", body)


def message(house: RunningGateway, text: str, *, stream: bool, **more: Any) -> Answered:
    """Ask over Anthropic's wire."""
    body = {"model": "claude", "max_tokens": 90, "messages": [{"role": "user", "content": text}], **more}
    return call(house.url, "POST", "/v1/messages", {**body, "stream": stream}, **{"anthropic-version": "2023-06-01"})


def own_id(answered: Answered, prefix: str) -> bytes:
    """Return the id that a reply told again must have."""
    return f'"{prefix}{answered.headers["x-request-id"]}"'.encode()


def check_told_again(live: Answered, again: Answered, upstream_id: bytes, prefix: str) -> None:
    """Look that one reply is the other, byte for byte, with another id."""
    assert (live.status, "hit" in live.headers["cache-status"]) == (200, False), live.body
    assert "hit" in again.headers["cache-status"]
    assert upstream_id in live.body
    assert again.body == live.body.replace(upstream_id, own_id(again, prefix))
    assert again.headers["content-type"] == live.headers["content-type"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", CHATS)
def test_a_chat_is_told_again_byte_for_byte(house: RunningGateway, name: str, stream: bool) -> None:
    """Every chunk as it came: thoughts, calls, log probabilities, choices, usage, comments, `[DONE]`."""
    asked = {**CHATS[name], "text": f"{CHATS[name]['text']} {stream}"}
    live, again = (chat(house, **asked, stream=stream) for _ in range(2))

    check_told_again(live, again, OPENAI_ID, "chatcmpl-")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_told_again_byte_for_byte(house: RunningGateway, name: str, stream: bool) -> None:
    """So is every event of Anthropic's, and its whole message."""
    asked = {**MESSAGES[name], "text": f"{MESSAGES[name]['text']} {stream}"}
    live, again = (message(house, **asked, stream=stream) for _ in range(2))

    check_told_again(live, again, ANTHROPIC_ID, "msg_")


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", [name for name in CHATS if name != "comments, in odd pieces"])
def test_a_chat_says_the_same_in_the_other_form(house: RunningGateway, name: str, first: bool) -> None:
    """Recorded whole and told as a stream, or the other way round, it is one answer to the official client."""
    asked = {**CHATS[name], "text": f"{CHATS[name]['text']} in the other form {first}"}
    live, again = chat(house, **asked, stream=first), chat(house, **asked, stream=not first)

    assert "hit" in again.headers["cache-status"]
    assert meaning_of(live) == meaning_of(again)


def function_of(called: Any) -> dict[str, str]:
    """Return the name and the arguments of a call."""
    return {"name": called.function.name, "arguments": called.function.arguments}


def meaning_of(answered: Answered) -> list[Any]:
    """Return what each choice of a chat says, in whatever form it came."""
    if answered.body.startswith(b"{"):
        completion = ChatCompletion.model_validate(answered.json())
    else:
        state = ChatCompletionStreamState()
        for line in answered.body.splitlines():
            if line.startswith(b"data: {"):  # this upstream says the role in each chunk, which the client would join
                chunk = json.loads(line[6:].replace(b'"role":"assistant",', b""))
                state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
        completion = cast("ChatCompletion", state.get_final_completion())
    return [
        (
            choice.message.content or None,
            getattr(choice.message, "reasoning_content", None),
            [(call.id, function_of(call)) for call in choice.message.tool_calls or ()],
            choice.finish_reason,
            [(token.token, token.logprob) for token in (choice.logprobs.content if choice.logprobs else None) or ()],
        )
        for choice in completion.choices
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_another_wire_is_told_the_same(house: RunningGateway, stream: bool) -> None:
    """What was recorded over one wire is a hit over the other, in that one's words."""
    text = f"think of weather {stream}"
    live = chat(house, text, stream=stream, max_tokens=90, tools=TOOLS[:1])
    told = message(house, text, stream=False, model="echo", tools=CLAUDE_TOOLS[:1])
    asked_over_it = message(house, text, stream=True, model="echo", tools=CLAUDE_TOOLS[:1])

    assert ["hit" in each.headers["cache-status"] for each in (told, asked_over_it)] == [True, True]
    block = told.json()["content"][-1]
    ((_, _, ((made_id, function),), reason, _),) = meaning_of(live)
    assert (block["type"], block["id"], block["name"]) == ("tool_use", made_id, function["name"])
    assert block["input"] == json.loads(function["arguments"])
    assert (reason, told.json()["stop_reason"]) == ("tool_calls", "tool_use")
    events = [json.loads(line[6:]) for line in asked_over_it.body.splitlines() if line.startswith(b"data: ")]
    pieces = [event["delta"].get("partial_json", "") for event in events if event["type"] == "content_block_delta"]
    assert json.loads("".join(pieces)) == block["input"]


def test_each_reply_has_an_id_of_its_own(house: RunningGateway) -> None:
    """Told three times, it has three ids, none of them the upstream's."""
    told = [chat(house, "asked again and again", stream=True) for _ in range(4)][1:]

    ids = [set(re.findall(rb'"id":"([^"]+)"', answered.body)) for answered in told]
    assert [len(each) for each in ids] == [1, 1, 1]
    assert len(set.union(*ids)) == 3
    assert OPENAI_ID not in told[0].body
