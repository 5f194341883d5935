"""A small server of Anthropic's Messages API with deterministic answers, as strict as the real one where it matters.

`python tests/anthropic_server.py --port N`. Answers with `echo: ` and the last text of the user's, a word a delta.
Words in that text change its ways: `think` (thinks first), `tool` (calls the first tool), `tools` (calls each),
`slow` (20 ms a word), `stall` (never ends), `cut` (the connection ends after one delta), `break` (an error in the
stream), `refuse` (declines), `status-N` (refuses with that status), `cite` (a part that only Anthropic has),
`recorded` (the recorded reply below). The last request is told at `GET /seen`.
"""

import argparse
import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
from aiohttp import web

TYPES = {400: "invalid_request_error", 404: "not_found_error", 429: "rate_limit_error", 529: "overloaded_error"}
FIELDS = {
    "model", "messages", "max_tokens", "system", "temperature", "top_p", "top_k", "stop_sequences", "stream",
    "metadata", "thinking", "tools", "tool_choice", "output_config", "service_tier", "cache_control",
}  # fmt: skip
SIGNATURE = "c2lnbmVk"
REQUEST_ID = "req_011CSHoEeqs5C35K2UUqR7Fy"

# As an upstream may write it: other spaces, comments, pings, fields and blocks that are not known here.
RECORDED_STREAM = b"""event: message_start
data: {"type":"message_start","message":{"id":"msg_01ABC","type":"message","role":"assistant","model":"claude-x",\
"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":10,"cache_creation_input_tokens":2,\
"cache_read_input_tokens":5,"output_tokens":1,"service_tier":"standard"},"context_management":null}}

: a comment

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"redacted_thinking","data":"EmwKAhgBEgy3va3"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: content_block_start
data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}        }

event: ping
data: {"type": "ping"}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Hello \\u00fc"}    }

event: something_new
data: {"type":"something_new"}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":" there."}         }

event: content_block_stop
data: {"type":"content_block_stop","index":1             }

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null,"container":null},\
"usage":{"output_tokens":15}             }

event: message_stop
data: {"type":"message_stop"              }

"""
RECORDED_WHOLE = b"""{"model": "claude-x", "id": "msg_01ABC", "type": "message", "role": "assistant",
 "content": [{"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3"},
  {"type": "text", "text": "Hello \\u00fc there."}],
 "stop_reason": "end_turn", "stop_sequence": null, "context_management": null,
 "usage": {"input_tokens": 10, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 5, "output_tokens": 15}}
"""

SEEN: dict[str, Any] = {}


class Refused(Exception):
    """The request is refused with a status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def last_text(body: dict[str, Any]) -> str:
    """Return the last text of the user's, or what the tools said."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    results = [block for block in content if block["type"] == "tool_result"]
    if results:
        return "said: " + " ".join(str(block["content"]) for block in results)
    return " ".join(block["text"] for block in content if block["type"] == "text")


def check(request: web.Request, body: dict[str, Any]) -> None:
    """Refuse what the real API refuses."""
    if request.headers.get("x-api-key") == "wrong":
        raise Refused(401, "invalid x-api-key")
    if "anthropic-version" not in request.headers:
        raise Refused(400, "anthropic-version: header is required")
    if unknown := sorted(body.keys() - FIELDS):
        raise Refused(400, f"{unknown[0]}: Extra inputs are not permitted")
    if "max_tokens" not in body and request.path.endswith("/messages"):
        raise Refused(400, "max_tokens: Field required")
    if body.get("temperature") is not None and request.headers["anthropic-version"] > "2023-06-01":
        raise Refused(400, "temperature: Extra inputs are not permitted")
    for message in body["messages"]:
        check_turn(message)
    if refused := re.search(r"status-(\d+)", last_text(body)):
        raise Refused(int(refused[1]), f"told to refuse with {refused[1]}")


def check_turn(message: dict[str, Any]) -> None:
    """Refuse a turn that the real API refuses."""
    if message["role"] not in ("user", "assistant"):
        raise Refused(400, f"messages: Unexpected role {message['role']}")
    kinds = [] if isinstance(message["content"], str) else [block["type"] for block in message["content"]]
    if "tool_result" in kinds[kinds.count("tool_result") :]:
        raise Refused(400, "messages: tool_result blocks must come first")
    if any(block["type"] == "text" and not block["text"] for block in message["content"] if kinds):
        raise Refused(400, "messages: text content blocks must be non-empty")


def blocks_of(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the blocks of the answer."""
    text = last_text(body)
    ways = set(text.split())
    if "think" in ways:
        yield {"type": "thinking", "thinking": "let me see", "signature": SIGNATURE}
    if "cite" in ways:
        yield {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    if "refuse" not in ways:
        yield {"type": "text", "text": f"echo: {text}"}
    called = body.get("tools", []) if "tools" in ways else body.get("tools", [])[:1] if "tool" in ways else []
    for place, tool in enumerate(called):
        given = {"text": text, "place": place} if tool["input_schema"].get("properties") else {}
        yield {"type": "tool_use", "id": f"toolu_{place}", "name": tool["name"], "input": given}


def message_of(body: dict[str, Any]) -> dict[str, Any]:
    """Make the complete message."""
    content = list(blocks_of(body))
    reason, stop = ("tool_use" if content and content[-1]["type"] == "tool_use" else "end_turn"), None
    for block in content:
        if block["type"] == "text":
            words = re.findall(r"\s*\S+", block["text"])
            if len(words) > body["max_tokens"]:
                reason = "max_tokens"
            block["text"] = "".join(words[: body["max_tokens"]])
            for each in body.get("stop_sequences", ()):
                if each in block["text"]:
                    reason, stop = "stop_sequence", each
                    block["text"] = block["text"].split(each)[0]
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": content,
        "stop_reason": "refusal" if not content else reason,
        "stop_sequence": stop,
        "usage": usage_of(body, sum(len(str(block).split()) for block in content)),
    }


def usage_of(body: dict[str, Any], made: int) -> dict[str, int]:
    """Count words as tokens; two of them were cached."""
    return {
        "input_tokens": count(body) - 2,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "output_tokens": made,
    }


def count(body: dict[str, Any]) -> int:
    """Count words of all that is asked, and a few more."""
    return 3 + sum(len(str(body.get(name, "")).split()) for name in ("system", "messages", "tools"))


async def events_of(message: dict[str, Any], ways: set[str]) -> AsyncIterator[dict[str, Any]]:
    """Yield the events of a streamed message."""
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**start, "usage": {**message["usage"], "output_tokens": 1}}}
    for index, block in enumerate(message["content"]):
        empty = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}, "tool_use": {"input": {}}}
        yield {"type": "content_block_start", "index": index, "content_block": block | empty.get(block["type"], {})}
        yield {"type": "ping"}
        for delta in deltas_of(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
            if "slow" in ways:
                await asyncio.sleep(0.02)
            if "stall" in ways:
                await asyncio.Event().wait()
        yield {"type": "content_block_stop", "index": index}
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield {"type": "message_delta", "delta": delta, "usage": {"output_tokens": message["usage"]["output_tokens"]}}
    yield {"type": "message_stop"}


def deltas_of(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Cut a block into pieces."""
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": word} for word in re.findall(r"\s*\S+", block["text"]))
    elif block["type"] == "thinking":
        yield from ({"type": "thinking_delta", "thinking": word} for word in re.findall(r"\s*\S+", block["thinking"]))
        yield {"type": "signature_delta", "signature": block["signature"]}
    elif block["type"] == "tool_use":
        yield {"type": "input_json_delta", "partial_json": ""}
        if block["input"]:
            text = orjson.dumps(block["input"]).decode()
            half = len(text) // 2
            yield from ({"type": "input_json_delta", "partial_json": part} for part in (text[:half], text[half:]))


async def messages(request: web.Request) -> web.StreamResponse:
    """Answer with a message, whole or as a stream."""
    body = await noted(request)
    try:
        check(request, body)
    except Refused as refused:
        return refusal(refused)
    ways = set(last_text(body).split())
    streamed = body.get("stream", False)
    if "recorded" in ways:
        kind = "text/event-stream; charset=utf-8" if streamed else "application/json"
        data = RECORDED_STREAM if streamed else RECORDED_WHOLE
        return web.Response(body=data, headers={"Content-Type": kind, "request-id": REQUEST_ID})
    if not streamed:
        if "stall" in ways:
            await asyncio.Event().wait()
        return web.json_response(message_of(body), headers={"request-id": REQUEST_ID})
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await response.prepare(request)
    async for event in events_of(message_of(body), ways):
        await response.write(frame(event))
        if event["type"] == "content_block_delta" and "cut" in ways:
            return response
        if event["type"] == "content_block_delta" and "break" in ways:
            await response.write(frame(error("overloaded_error", "told to break")))
    return response


async def count_tokens(request: web.Request) -> web.Response:
    """Count the tokens of a request."""
    body = await noted(request)
    try:
        check(request, body)
    except Refused as refused:
        return refusal(refused)
    return web.json_response({"input_tokens": count(body)})


async def noted(request: web.Request) -> dict[str, Any]:
    """Read a request, and keep it to be told."""
    raw = await request.read()
    SEEN.update(path=request.path_qs, headers=dict(request.headers), body=raw.decode())
    body: dict[str, Any] = orjson.loads(raw)
    return body


async def seen(_: web.Request) -> web.Response:
    """Tell the last request; also the answer to whether it is up."""
    return web.json_response(SEEN)


def refusal(refused: Refused) -> web.Response:
    """Refuse as Anthropic does."""
    body = error(TYPES.get(refused.status, "api_error"), str(refused))
    return web.json_response(body, status=refused.status, headers={"Retry-After": "7"})


def error(kind: str, message: str) -> dict[str, Any]:
    """Make the value of an error."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": REQUEST_ID}


def frame(event: dict[str, Any]) -> bytes:
    """Write an event."""
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), orjson.dumps(event))


def application() -> web.Application:
    """Build the server."""
    app = web.Application()
    app.router.add_post("/v1/messages", messages)
    app.router.add_post("/v1/messages/count_tokens", count_tokens)
    app.router.add_get("/seen", seen)
    return app


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    web.run_app(application(), host="127.0.0.1", port=parser.parse_args().port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
