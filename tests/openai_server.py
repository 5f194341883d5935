"""A tiny OpenAI-compatible server with deterministic answers, for the tests of `command` and `http` models.

`python tests/openai_server.py --port N [--start-s S] [--fail]`. Answers a chat with `echo: ` and the last message.
Words in that message change its ways: `slow` (20 ms a word), `stall` (never ends), `die` (the process ends after
one chunk), `cut` (the connection ends after one chunk), `garbage` (no JSON after one chunk), `break` (an error in
the stream), `status-N` (refuses with that status), `think` (thinks first), `decline` (refuses in words), `mirror`
(answers with the request's body), `odd` (a stream in pieces of 7 bytes, with comments).
Where tools are offered it calls those that the message names, with the least arguments that their schemas allow.
"""

import argparse
import asyncio
import base64
import os
import re
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

ASKED = web.AppKey("asked", list[str])
TOP_LOGPROB = -0.25
SECONDS_PER_WORD = 0.02
ODD_BYTES = 7


@dataclass(slots=True)
class Said:
    """One choice of an answer."""

    pieces: list[str] = field(default_factory=list)
    thought: str = ""
    refusal: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    finish: str = "stop"


def words_of(text: str) -> Iterator[str]:
    """Cut an answer into pieces as a tokenizer would."""
    return iter(re.findall(r"\s*\S+", text))


def text_of(content: Any) -> str:
    """Return a content's text, with the types of what is none."""
    if isinstance(content, list):
        return "".join(part["text"] if part["type"] == "text" else f"[{part['type']}]" for part in content)
    return str(content or "")


def prompts_of(body: Mapping[str, Any]) -> list[str]:
    """Return what was asked: a chat's last message, or all that tools answered in its place; each prompt else."""
    if "messages" not in body:
        prompt = body["prompt"]
        several = isinstance(prompt, list) and prompt and not isinstance(prompt[0], int)
        return [text if isinstance(text, str) else f"{len(text)} tokens" for text in (prompt if several else [prompt])]
    answered: list[str] = []
    for message in reversed(body["messages"]):
        if message["role"] != "tool":
            return [" and ".join(reversed(answered)) or text_of(message["content"])]
        answered.append(text_of(message["content"]))
    return [" and ".join(reversed(answered))]


def least(schema: Mapping[str, Any], root: Mapping[str, Any] | None = None) -> Any:
    """Make the least value that a JSON Schema allows, of the kind that clients generate from types."""
    root = schema if root is None else root
    if "$ref" in schema:
        return least(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    if "const" in schema or "enum" in schema:
        return schema["const"] if "const" in schema else schema["enum"][0]
    if options := schema.get("anyOf"):
        return least(options[0], root)
    if schema.get("type") == "object":
        wanted = schema.get("required", ())
        return {name: least(each, root) for name, each in schema.get("properties", {}).items() if name in wanted}
    if schema.get("type") == "array":
        return [least(schema["items"], root)] * schema.get("minItems", 1)
    return {"string": "x" * schema.get("minLength", 1), "integer": 1, "number": 0.5, "boolean": True}.get(
        schema["type"]
    )


def calls_of(body: Mapping[str, Any], prompt: str) -> list[dict[str, Any]]:
    """Return the calls that a request leads to."""
    tools = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice", "auto")
    if not tools or choice == "none" or body["messages"][-1]["role"] != "user":
        return []
    if isinstance(choice, dict):
        chosen = [tool for tool in tools if tool["name"] == choice["function"]["name"]]
    else:
        chosen = [tool for tool in tools if tool["name"] in prompt] or (tools[:1] if choice == "required" else [])
    if body.get("parallel_tool_calls") is False:
        chosen = chosen[:1]
    return [_call(place, tool) for place, tool in enumerate(chosen)]


def _call(place: int, tool: Mapping[str, Any]) -> dict[str, Any]:
    arguments = orjson.dumps(least(tool.get("parameters") or {"type": "object"})).decode()
    function = {"name": tool["name"], "arguments": arguments}
    return {"id": f"call_{place}_{tool['name']}", "type": "function", "function": function}


def said(body: Mapping[str, Any], prompt: str, number: int) -> Said:
    """Make choice `number` of a prompt's answer."""
    ways = set(prompt.split())
    if "messages" in body and (calls := calls_of(body, prompt)):
        return Said(calls=calls, finish="tool_calls")
    if "decline" in ways:
        return Said(refusal="I would rather not.")
    text = f"echo: {prompt}" + (f" ({number})" if number else "")
    if "mirror" in ways:
        text = orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()
    form = body.get("response_format") or {}
    if form.get("type") == "json_object":
        text = orjson.dumps({"echo": prompt}).decode()
    elif form.get("type") == "json_schema":
        text = orjson.dumps(least(form["json_schema"]["schema"])).decode()
    if body.get("echo"):
        text = prompt + text
    pieces = list(words_of(text))
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(pieces)
    thought = f"thinking of {prompt}" if "think" in ways or body.get("reasoning_effort") else ""
    return Said(pieces[:limit], thought, finish="length" if limit < len(pieces) else "stop")


def choices_of(body: Mapping[str, Any]) -> list[Said]:
    """Make all choices of an answer."""
    return [said(body, prompt, number) for prompt in prompts_of(body) for number in range(body.get("n") or 1)]


def usage_of(body: Mapping[str, Any], choices: list[Said]) -> dict[str, Any]:
    """Count words as tokens; who thinks is taken to have read all but one of the prompt's before."""
    read = sum(len(prompt.split()) for prompt in prompts_of(body))
    thought = sum(len(choice.thought.split()) for choice in choices)
    made = sum(len(choice.pieces) for choice in choices) + thought
    usage: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
    if thought:
        usage["prompt_tokens_details"] = {"cached_tokens": read - 1}
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def logprobs_of(body: Mapping[str, Any], pieces: list[str], offset: int) -> dict[str, Any] | None:
    """Return log probabilities in the shape of the request's wire."""
    asked = body.get("logprobs")
    if asked is None or asked is False:
        return None
    if "messages" not in body:
        offsets = [offset + len("".join(pieces[:place])) for place in range(len(pieces))]
        tops = [{piece: TOP_LOGPROB} for piece in pieces]
        return {
            "tokens": pieces,
            "token_logprobs": [TOP_LOGPROB] * len(pieces),
            "top_logprobs": tops,
            "text_offset": offsets,
        }
    rows = [{"token": piece, "logprob": TOP_LOGPROB, "bytes": [*piece.encode()]} for piece in pieces]
    top = body.get("top_logprobs") or 0
    return {"content": [{**row, "top_logprobs": [row][:top]} for row in rows], "refusal": None}  # fmt: skip


def whole_choice(body: Mapping[str, Any], index: int, choice: Said) -> dict[str, Any]:
    """Make a choice of a whole answer."""
    text = "".join(choice.pieces)
    shared = {"index": index, "finish_reason": choice.finish, "logprobs": logprobs_of(body, choice.pieces, 0)}
    if "messages" not in body:
        return {**shared, "text": text}
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": choice.refusal or None}
    if choice.thought:
        message["reasoning_content"] = choice.thought
    if choice.calls:
        message["tool_calls"] = choice.calls
    return {**shared, "message": message}


def chunk_choices(body: Mapping[str, Any], index: int, choice: Said) -> Iterator[dict[str, Any]]:
    """Make the choices of a stream's chunks, one after the other."""
    is_chat = "messages" in body

    def made(finish: str | None = None, pieces: list[str] | None = None, **delta: object) -> dict[str, Any]:
        shared = {
            "index": index,
            "finish_reason": finish,
            "logprobs": logprobs_of(body, pieces, told) if pieces else None,
        }
        return {**shared, "delta": delta} if is_chat else {**shared, "text": "".join(pieces or ())}

    told = 0
    if choice.thought:
        yield made(role="assistant", reasoning_content=choice.thought)
    if choice.refusal:
        yield made(role="assistant", refusal=choice.refusal)
    for place, call in enumerate(choice.calls):
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        yield made(tool_calls=[{**call, "index": place, "function": {"name": name, "arguments": ""}}])
        for begin in range(0, len(arguments), 4):
            yield made(tool_calls=[{"index": place, "function": {"arguments": arguments[begin : begin + 4]}}])
    for piece in choice.pieces:
        yield made(pieces=[piece], role="assistant", content=piece)
        told += len(piece)
    yield made(choice.finish)


def answer(body: Mapping[str, Any], choices: list[dict[str, Any]], **more: object) -> dict[str, Any]:
    """Wrap choices as OpenAI does."""
    kind = "chat.completion" if "messages" in body else "text_completion"
    kind += ".chunk" if body.get("stream") and "messages" in body else ""
    return {"id": "cmpl-1", "object": kind, "created": 1, "model": body["model"], "choices": choices, **more}


def refused(prompt: str) -> web.Response | None:
    """Refuse where the prompt says so."""
    if (told := re.search(r"status-(\d+)", prompt)) is None:
        return None
    error = {"message": f"told to refuse with {told[1]}", "type": "t", "param": "messages", "code": None}
    return web.json_response({"error": error}, status=int(told[1]), headers={"Retry-After": "7"})


async def complete(request: web.Request) -> web.StreamResponse:
    """Answer a chat or a completion, whole or as a stream."""
    body = orjson.loads(await request.read())
    prompt = prompts_of(body)[0]
    request.app[ASKED].append(prompt)
    if (refusal := refused(prompt)) is not None:
        return refusal
    choices = choices_of(body)
    if not body.get("stream"):
        if "stall" in prompt.split():
            await asyncio.Event().wait()
        made = [whole_choice(body, index, choice) for index, choice in enumerate(choices)]
        return web.json_response(answer(body, made, usage=usage_of(body, choices)))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await stream(body, choices, response)
    return response


async def stream(body: dict[str, Any], choices: list[Said], response: web.StreamResponse) -> None:
    """Send an answer word by word, in the way that the prompt's words ask for."""
    ways = set(prompts_of(body)[0].split())
    write = _write_oddly if "odd" in ways else _write
    made = [each for index, choice in enumerate(choices) for each in chunk_choices(body, index, choice)]
    for number, choice in enumerate(made):
        await write(response, orjson.dumps(answer(body, [choice])))
        if "slow" in ways:
            await asyncio.sleep(SECONDS_PER_WORD)
        if number == 0 and "cut" in ways:
            return
        if number == 0:
            await _have_mishap(ways, response)
        if "stall" in ways:
            await asyncio.Event().wait()
    if (body.get("stream_options") or {}).get("include_usage"):
        await write(response, orjson.dumps(answer(body, [], usage=usage_of(body, choices))))
    await write(response, b"[DONE]")


async def _write(response: web.StreamResponse, data: bytes) -> None:
    await response.write(b"data: " + data + b"\n\n")


async def _write_oddly(response: web.StreamResponse, data: bytes) -> None:
    event = b": a comment\r\n\r\ndata: " + data + b"\n\n"
    for begin in range(0, len(event), ODD_BYTES):
        await response.write(event[begin : begin + ODD_BYTES])


async def _have_mishap(ways: set[str], response: web.StreamResponse) -> None:
    if "die" in ways:
        os.write(2, b"told to die\n")
        os._exit(3)
    if "garbage" in ways:
        await _write(response, b"this is no JSON")
    if "break" in ways:
        await _write(response, orjson.dumps({"error": {"message": "told to break", "type": "t", "code": 500}}))


async def embed(request: web.Request) -> web.Response:
    """Answer with the vector (length of the input, its position, 1), as base64 or as lists."""
    body = orjson.loads(await request.read())
    inputs = [body["input"]] if isinstance(body["input"], str) else body["input"]
    data: list[dict[str, Any]] = []
    for index, text in enumerate(inputs):
        vector: Any = [float(len(text)), float(index), 1.0][: body.get("dimensions") or 3]
        if body.get("encoding_format") == "base64":
            vector = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": vector})
    usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
    return web.json_response({"object": "list", "model": body["model"], "data": data[::-1], "usage": usage})


async def moderate(request: web.Request) -> web.Response:
    """Flag each text that has the word `bad`."""
    body = orjson.loads(await request.read())
    texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
    results = [
        {
            "flagged": "bad" in text,
            "categories": {"violence": "bad" in text},
            "category_scores": {"violence": float("bad" in text)},
            "category_applied_input_types": {"violence": ["text"]},
        }
        for text in texts
    ]
    return web.json_response({"id": "modr-1", "model": body["model"], "results": results})


async def rerank(request: web.Request) -> web.Response:
    """Order documents by how many of the query's words they have."""
    body = orjson.loads(await request.read())
    words = set(body["query"].split())
    scored = [(len(words & set(text.split())) / len(words), index) for index, text in enumerate(body["documents"])]
    best = sorted(scored, key=lambda pair: (-pair[0], pair[1]))[: body.get("top_n")]
    results = [{"index": index, "relevance_score": score} for score, index in best]
    return web.json_response({"id": "rerank-1", "model": body["model"], "results": results})


async def speak(request: web.Request) -> web.StreamResponse:
    """Answer with bytes that are no JSON, in two pieces; told to be `cut`, break off between them."""
    body = orjson.loads(await request.read())
    if (refusal := refused(body["input"])) is not None:
        return refusal
    response = web.StreamResponse(headers={"Content-Type": "audio/wav"})
    await response.prepare(request)
    await response.write(b"RIFF\x00\xff")
    if "cut" in body["input"].split():
        assert request.transport is not None
        request.transport.abort()
    await response.write(f"{body['model']} {body['voice']}: {body['input']}".encode())
    return response


async def hear(request: web.Request) -> web.Response:
    """Tell what file came, and the form's other fields."""
    form = await request.post()
    sound = form["file"] if "file" in form else form["image"]
    assert isinstance(sound, web.FileField)
    others = sorted(f"{name}={value}" for name, value in form.items() if isinstance(value, str))
    text = f"{len(sound.file.read())} bytes of {sound.filename}; {' '.join(others)}"
    if form.get("response_format") == "text":
        return web.Response(text=text)
    if "image" in form:
        return web.json_response({"created": 1, "data": [{"b64_json": base64.b64encode(text.encode()).decode()}]})
    return web.json_response({"text": text})


async def draw(request: web.Request) -> web.Response:
    """Answer with the prompt as a picture."""
    body = orjson.loads(await request.read())
    return web.json_response({"created": 1, "data": [{"b64_json": base64.b64encode(body["prompt"].encode()).decode()}]})


async def models(request: web.Request) -> web.Response:
    """List the one model; also the answer to whether it is up, and to how often it was asked to complete."""
    return web.json_response({"object": "list", "data": [{"id": "echo"}], "asked": len(request.app[ASKED])})


ROUTES = {
    "chat/completions": complete, "completions": complete, "embeddings": embed, "moderations": moderate,
    "rerank": rerank, "audio/speech": speak, "audio/transcriptions": hear, "audio/translations": hear,
    "images/generations": draw, "images/edits": hear, "images/variations": hear,
}  # fmt: skip


def application() -> web.Application:
    """Build the server."""
    app = web.Application(client_max_size=2**26)
    app[ASKED] = []
    for path, handler in ROUTES.items():
        app.router.add_post(f"/v1/{path}", handler)
    app.router.add_get("/v1/models", models)
    app.router.add_get("/health", models)
    return app


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--start-s", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--fail", action="store_true", help="print three lines and exit with 1")
    arguments = parser.parse_args()
    if arguments.fail:
        sys.exit("loading\nno memory left\ngiving up")

    async def serve() -> web.Application:
        await asyncio.sleep(arguments.start_s)
        return application()

    web.run_app(serve(), host="127.0.0.1", port=arguments.port, print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()
