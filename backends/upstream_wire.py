"""OpenAI's wire as a client sees it: jobs to requests, refusals to errors. Its answers are read in `upstream_answers`.

Pure: bytes and values in, values out. Knows nothing of connections, and never sees a key's use.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from backends.contract import BackendError, BadJob, Event, Finish, Job, Message, Sampling, Task, UpstreamFailed
from backends.upstream_answers import StreamDecoder, misshapen, parsed, usage_of, vectors_of
from backends.wire import Asking, as_it_came, written

PATHS = {Task.CHAT: "/chat/completions", Task.COMPLETION: "/completions", Task.EMBED: "/embeddings"}

_JSON: Mapping[str, str] = {"Content-Type": "application/json"}
# The parts of a content that the wire has words for.
_PARTS = frozenset({"text", "image_url", "input_audio", "file", "refusal", None})

_SHOWN = 200
_LONGEST_RETRY_S = 24 * 3600.0

_OURS_TO_BLAME = frozenset({401, 403})
_NOT_THE_CLIENT = frozenset({401, 403, 404, 408, 409, 429})
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


class OpenAIWire:
    """Chat completions, completions, embeddings, and whatever else is only passed on."""

    name = "openai"

    def credentials(self, key: str) -> Mapping[str, str]:
        """Return the header that carries the key."""
        return {"Authorization": f"Bearer {key}"}

    def request_of(self, job: Job, model: str) -> Asking:
        """Return what asks for a job: the client's own words where they are OpenAI's, else the job in such words.

        Raises `BadJob` for a task that the wire has no request for, and for tools and parts of another wire's own.
        """
        if job.verbatim is not None and job.verbatim.wire == self.name:
            return as_it_came(job.verbatim, model)
        path = PATHS.get(job.task)
        if path is None:
            raise BadJob(f"an upstream of OpenAI's wire does not {job.task}; it does {', '.join(PATHS)}", "model")
        _refuse_untranslated(job)
        return Asking(path, _JSON, written(_body(job, model)))

    def decoder(self, job: Job) -> StreamDecoder:
        """Return what reads the job's streamed answer."""
        return StreamDecoder(job)

    def answer_events(self, job: Job, body: bytes) -> list[Event]:
        """Return the events of a whole (not streamed) answer. Raises `UpstreamFailed` where it is none."""
        answer = parsed(body)
        try:
            if job.task is Task.EMBED:
                return [vectors_of(answer["data"], len(job.inputs)), *usage_of(answer), Finish("stop")]
            decoder = StreamDecoder(job)
            return [*decoder.take(answer, part="message"), *decoder.end()]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise misshapen(body, error) from error

    def refusal_of(self, status: int, headers: Mapping[str, str], body: bytes) -> BackendError:
        """Return the error for an answer with a status other than 2xx."""
        return refusal(status, headers, body, told=_error_object(body), names=("param", "type", "code"))


def refusal(
    status: int, headers: Mapping[str, str], body: bytes, *, told: Mapping[str, Any], names: Sequence[str]
) -> BackendError:
    """Return the error that an upstream's `body` tells of: `told` is its error object, `names` what its wire has there.

    A status that is the client's doing becomes `BadJob` with the upstream's words; 401 and 403 are about our own
    key, so the upstream's words (which may quote it) are left out.
    """
    if status in _OURS_TO_BLAME:
        return UpstreamFailed(f"the upstream refused this gateway's credentials with status {status}", status)
    message = str(told.get("message") or body[:_SHOWN].decode("utf-8", "replace") or "(empty answer)")
    if _CLIENT_ERROR <= status < _SERVER_ERROR and status not in _NOT_THE_CLIENT:
        words = {name: value for name in names if isinstance(value := told.get(name), str)}
        return BadJob(message, words.get("param"), status=status, kind=words.get("type"), code=words.get("code"))
    return UpstreamFailed(f"the upstream answered with status {status}: {message}", status, retry_after_s(headers))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Read `Retry-After-Ms` or `Retry-After` in seconds, at most a day; a date counts as nothing said."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        if value.isascii() and value.replace(".", "", 1).isdecimal():
            return min(float(value) * scale, _LONGEST_RETRY_S)
    return None


def _refuse_untranslated(job: Job) -> None:
    """Refuse what came over another wire and has no counterpart here: servers may pass over what they do not know."""
    tools = job.extra.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if not isinstance(tool, dict):
            raise BadJob("'tools' must be a list of objects", "tools")
        if "function" not in tool and "custom" not in tool:
            name, sort = (str(tool.get(each))[:_SHOWN] for each in ("name", "type"))
            raise BadJob(f"an upstream of OpenAI's wire has no tool '{name}' of the type '{sort}'", "tools")
    for message in job.messages:
        parts = message.extra.get("content")
        for part in parts if isinstance(parts, list) else ():
            kind = part.get("type") if isinstance(part, dict) else ()
            if not isinstance(kind, str | None):
                raise BadJob("the parts of a message's content must be objects, and their 'type' a text", "messages")
            if kind not in _PARTS:
                said = str(kind)[:_SHOWN]
                raise BadJob(f"an upstream of OpenAI's wire has no parts of the type '{said}'", "messages")


def _body(job: Job, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {**job.extra, "model": model}
    if job.task is Task.EMBED:
        return body | {"input": job.inputs, "encoding_format": "base64"}
    if job.task is Task.CHAT:
        body["messages"] = [_message(message) for message in job.messages]
    else:
        body["prompt"] = job.inputs if job.prompt is None else job.prompt
    body |= _sampling(job.sampling)
    if "max_completion_tokens" in job.extra:
        body.pop("max_tokens", None)
    if job.stream:
        body |= {"stream": True, "stream_options": {**_mapping(body.get("stream_options")), "include_usage": True}}
    return body


def _message(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, **message.extra}


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _sampling(sampling: Sampling) -> dict[str, Any]:
    said = {
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "stop": sampling.stop or None,
    }
    return {name: value for name, value in said.items() if value is not None}


def _error_object(body: bytes) -> Mapping[str, Any]:
    """Find the error in OpenAI's shape or in its usual variations; empty where there is none."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    if not isinstance(value, dict):
        return {}
    error = value.get("error") or value.get("detail") or value
    return error if isinstance(error, dict) else {"message": str(error)}
