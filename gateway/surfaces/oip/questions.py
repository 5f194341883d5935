"""A question of the Open Inference Protocol, whichever transport brought it, and the canonical request it stands for.

Models of tensors take it as it is; those of texts find their texts in it. Knows no transport.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backends.contract import Job, Message, Sampling, Task, Tensor
from gateway.catalog import ModelInfo
from gateway.errors import InvalidRequest, UnknownModel, Unsupported
from gateway.fields import cut, number, refuse, shown, whole
from gateway.request import Request
from gateway.surfaces.oip.fitting import check_fit
from gateway.surfaces.oip.tensors import BYTES, strings
from gateway.surfaces.openai_fields import check_one_choice, check_words
from gateway.surfaces.roles import OIP_PARAMETERS, outside_key

Lookup = Callable[[str], ModelInfo | None]
"""Finds what is known of a name that stands for a model, or None."""

_MAX_TOKENS = 2**20
_MAX_SEED = 2**63 - 1
_MAX_STOPS = 4
_SAMPLING = frozenset({"max_tokens", "temperature", "top_p", "seed", "stop"})
# What a model of texts is asked has one place.
_WORDS: Mapping[str, str] = {"messages": "the text input", "prompt": "the text input"}
_NOT_ASKED = outside_key(OIP_PARAMETERS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that the client names: as bytes, as JSON or (None) as the request says; the best `classes` of it."""

    name: str
    binary: bool | None = None
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What a client asks of a model; no `outputs` stands for all."""

    model: str
    version: str
    id: str
    parameters: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Wanted, ...] = ()


def known(lookup: Lookup, name: str, version: str = "") -> ModelInfo:
    """Return what is known of a model. Raises `UnknownModel` for another name, or another version."""
    info = lookup(name)
    if info is None:
        raise UnknownModel(f"Request for unknown model: '{cut(name)}' is not found", "model")
    if not info.has_version(version):
        raise UnknownModel(f"Request for unknown model: '{cut(name)}' version {cut(version)} is not found", "model")
    return info


def to_request(question: Question, info: ModelInfo, *, streamed: bool = False) -> Request:
    """Turn a question into the request that it stands for. Raises `InvalidRequest`."""
    if question.parameters.get("sequence_id") not in (None, 0, ""):
        raise InvalidRequest("'sequence_id' cannot be honoured: no model here keeps a sequence's state", "sequence_id")
    make = _MAKERS.get(info.task)
    if make is None:
        raise Unsupported(f"'{info.name}' does {info.task}, which this protocol has no tensors for")
    check_fit(info, question.inputs, [wanted.name for wanted in question.outputs])
    return make(question, streamed)


def generation(model: str, prompt: str, parameters: Mapping[str, Any], *, streamed: bool) -> Request:
    """Make the request of a chat of one turn, in the words of OpenAI's wire, so that both share what is cached."""
    asked = _asked(parameters)
    messages = (Message("user", prompt),)
    job = Job(Task.CHAT, messages=messages, sampling=_sampling(asked), extra=_extra(asked), stream=streamed)
    fields = {**asked, "messages": [{"role": "user", "content": prompt}]}
    return Request(model, job, fields, asked=prompt)


def completion(model: str, prompt: str, parameters: Mapping[str, Any], *, streamed: bool) -> Request:
    """Make the request of a text to be continued, in the words of OpenAI's wire."""
    asked = _asked(parameters)
    job = Job(Task.COMPLETION, prompt=prompt, sampling=_sampling(asked), extra=_extra(asked), stream=streamed)
    return Request(model, job, {**asked, "prompt": prompt})


def _infer(question: Question, streamed: bool) -> Request:
    del streamed  # the outputs of a graph come together
    outputs = tuple([wanted.name for wanted in question.outputs])
    job = Job(Task.INFER, tensors=question.inputs, outputs=outputs)
    inputs = sorted((t.name, t.datatype, t.shape, hashlib.sha256(t.data).hexdigest()) for t in question.inputs)
    return Request(question.model, job, {"inputs": inputs, "outputs": sorted(outputs)})


def _embed(question: Question, streamed: bool) -> Request:
    del streamed
    return _of_texts(question, Task.EMBED)


def _predict(question: Question, streamed: bool) -> Request:
    del streamed
    return _of_texts(question, Task.PREDICT)


def _of_texts(question: Question, task: Task) -> Request:
    texts = _texts(question.inputs[0])
    if not texts or not all(texts):
        raise InvalidRequest(f"input '{question.inputs[0].name}' must hold at least one text, and none that is empty")
    asked = texts[0] if len(texts) == 1 else list(texts)  # one text is the same question, whatever list it came in
    by_meaning = asked if task is Task.PREDICT and isinstance(asked, str) else None
    return Request(question.model, Job(task, inputs=texts), {"input": asked}, by_meaning)


def _chat(question: Question, streamed: bool) -> Request:
    return generation(question.model, _one_text(question.inputs[0]), question.parameters, streamed=streamed)


def _completion(question: Question, streamed: bool) -> Request:
    return completion(question.model, _one_text(question.inputs[0]), question.parameters, streamed=streamed)


_MAKERS: Mapping[Task, Callable[[Question, bool], Request]] = {
    Task.INFER: _infer,
    Task.EMBED: _embed,
    Task.PREDICT: _predict,
    Task.CHAT: _chat,
    Task.COMPLETION: _completion,
}


def _one_text(tensor: Tensor) -> str:
    texts = _texts(tensor)
    if len(texts) != 1:
        raise InvalidRequest(f"input '{tensor.name}' must hold one text, got {len(texts)}", tensor.name)
    return texts[0]


def _texts(tensor: Tensor) -> tuple[str, ...]:
    if tensor.datatype != BYTES:
        raise refuse("datatype", tensor.datatype, f"BYTES for input '{tensor.name}', which holds text")
    try:
        return tuple([value.decode() for value in strings(tensor.data)])
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"input '{tensor.name}' must be UTF-8 text: {error}", tensor.name) from error


def _asked(parameters: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: value for name, value in parameters.items() if name not in _NOT_ASKED and value is not None}
    check_words(asked, _WORDS)
    check_one_choice(asked)
    return asked


def _extra(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in asked.items() if name not in _SAMPLING}


def _sampling(parameters: Mapping[str, Any]) -> Sampling:
    return Sampling(
        max_tokens=whole(parameters, "max_tokens", 1, _MAX_TOKENS),
        temperature=number(parameters, "temperature", 0, 2),
        top_p=number(parameters, "top_p", 0, 1),
        seed=whole(parameters, "seed", -_MAX_SEED - 1, _MAX_SEED),
        stop=_stops(parameters.get("stop")),
    )


def _stops(value: object) -> tuple[str, ...]:
    stops = [] if value is None else [value] if isinstance(value, str) else value
    if (
        not isinstance(stops, list)
        or len(stops) > _MAX_STOPS
        or not all(isinstance(stop, str) and stop for stop in stops)
    ):
        raise InvalidRequest(
            f"'stop' must be a non-empty string or a list of at most {_MAX_STOPS} of them, got {shown(value)}", "stop"
        )
    return tuple(stops)
