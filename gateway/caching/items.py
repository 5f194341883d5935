"""Requests with several inputs, taken apart so that each input's answer is cached for itself, and put together again.

What an input is answered does not depend on those beside it: an embedding and a classification are functions of one
text, a reranking's score of the query and one document. Pure. Knows no cache and no pool.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import orjson

from backends.contract import Finish, Job, Scores, Task, Text, Usage, Vectors
from gateway.answer import Answer, Head
from gateway.caching.identity import fingerprint
from gateway.caching.wording import Wording
from gateway.request import Request

_STOP = Finish("stop")
# Everybody waits while so many are looked up; what has more inputs is cached as a whole.
_MOST_ITEMS = 2048


class Parted(Protocol):
    """A request with several inputs, in their order."""

    @property
    def keys(self) -> Sequence[bytes]:
        """The fingerprint of each input, asked alone."""
        ...

    def job(self, places: Sequence[int]) -> Job:
        """Return what a model is asked for these inputs alone."""
        ...

    def apart(self, answer: Answer, places: Sequence[int]) -> list[Answer] | None:
        """Return the answer of each of these inputs; None where the answer to all of them cannot be taken apart."""
        ...

    def together(self, head: Head, answers: Sequence[Answer], made: Answer | None) -> Answer:
        """Put the answers of all inputs together; `made` is what the model has said now of some of them."""
        ...


def parted(request: Request) -> Parted | None:
    """Return a request by its inputs; None where it has but one, or is no function of each."""
    if request.job.task is Task.RELAY:
        documents = request.fields.get("documents")
        return Reranking(request) if isinstance(documents, list) and 0 < len(documents) <= _MOST_ITEMS else None
    if request.job.task in (Task.EMBED, Task.PREDICT) and 1 < len(request.job.inputs) <= _MOST_ITEMS:
        return Rows(request)
    return None


def digest(keys: Sequence[bytes]) -> bytes:
    """Return what names work on these inputs together."""
    return hashlib.sha256(b"items" + b"".join(keys)).digest()


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Split a count by weights into whole numbers that sum up to it."""
    whole, past, given, so_far = sum(weights), 0, [], 0
    for weight in weights:
        so_far += weight
        upto = total * so_far // whole if whole else total
        given.append(upto - past)
        past = upto
    return given


class Rows:
    """Embeddings and classifications: one row for each input."""

    def __init__(self, request: Request) -> None:
        self._job = request.job
        inputs = request.job.inputs
        self.keys = [fingerprint(replace(request, fields={**request.fields, "input": each})) for each in inputs]

    def job(self, places: Sequence[int]) -> Job:
        """Return a job of these inputs; all of them are asked for as they came."""
        if len(places) == len(self.keys):
            return self._job
        return replace(self._job, inputs=tuple([self._job.inputs[place] for place in places]), verbatim=None)

    def apart(self, answer: Answer, places: Sequence[int]) -> list[Answer] | None:
        """Return a row each; tokens are counted for all together, and fall to each input by its length."""
        made = next((event for event in answer.events if type(event) in (Vectors, Scores)), None)
        if not isinstance(made, Vectors | Scores) or made.shape[0] != len(places):
            return None
        usage = _shared_out(answer, [_length(self._job.inputs[place]) for place in places])
        width = len(made.data) // len(places)
        rows = [made.data[start : start + width] for start in range(0, len(made.data), width)]
        head = replace(answer.head, verbatim="", content_type="")
        shape = (1, made.shape[1])
        return [
            Answer(head, (replace(made, data=row, shape=shape), *more, _STOP))
            for row, more in zip(rows, usage, strict=True)
        ]

    def together(self, head: Head, answers: Sequence[Answer], made: Answer | None) -> Answer:
        """Put the rows into one; the usage is that of all of them, when each was made."""
        del made
        rows = [event for answer in answers for event in answer.events if isinstance(event, Vectors | Scores)]
        data, shape = b"".join([row.data for row in rows]), (len(rows), rows[0].shape[1])
        head = replace(head, verbatim="", content_type="")
        return Answer(head, (replace(rows[0], data=data, shape=shape), *_summed(answers), _STOP))


class Reranking:
    """A query and documents in Cohere's, Jina's and vLLM's shape: `{results: [{index, relevance_score, …}], …}`.

    A document's answer is its result without the index, as JSON.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        verbatim = request.job.verbatim
        assert verbatim is not None, "a relay is all in its verbatim"
        self._verbatim = verbatim
        self._documents: list[Any] = list(request.fields["documents"])  # type: ignore[call-overload]
        rest = {name: value for name, value in request.fields.items() if name not in ("documents", "top_n")}
        self.keys = [fingerprint(replace(request, fields={**rest, "document": each})) for each in self._documents]
        top = request.fields.get("top_n")
        self._top = top if type(top) is int and top > 0 else len(self._documents)

    def job(self, places: Sequence[int]) -> Job:
        """Return a job of these documents; the scores of all are asked for, however few the client wants."""
        if len(places) == len(self._documents) <= self._top:
            return self._request.job
        body: dict[str, Any] = orjson.loads(self._verbatim.body)
        body.pop("top_n", None)
        body["documents"] = [self._documents[place] for place in places]
        return replace(self._request.job, verbatim=replace(self._verbatim, body=orjson.dumps(body)))

    def apart(self, answer: Answer, places: Sequence[int]) -> list[Answer] | None:
        """Return a result each, where the reply has one for each document."""
        body = _body(answer)
        results = body.get("results")
        if not isinstance(results, list) or len(results) != len(places):
            return None
        found: dict[int, Mapping[str, Any]] = {
            each["index"]: each
            for each in results
            if isinstance(each, dict)
            and type(each.get("index")) is int
            and isinstance(each.get("relevance_score"), int | float)
        }
        if found.keys() != set(range(len(places))):
            return None
        usage = _shared_out(_with_usage(answer, body), [_length(_said(self._documents[place])) for place in places])
        head = replace(answer.head, verbatim="", content_type="")
        return [Answer(head, (Text(_result(found[place])), *usage[place], _STOP)) for place in range(len(places))]

    def together(self, head: Head, answers: Sequence[Answer], made: Answer | None) -> Answer:
        """Rank the results; what else is in the reply is what the model said now, but for the usage."""
        results = [{"index": place, **orjson.loads(answer.text())} for place, answer in enumerate(answers)]
        results.sort(key=_score, reverse=True)
        usage = _summed(answers)
        body: dict[str, Any] = {"model": head.model} if made is None else _body(made)
        if usage:
            said = body.get("usage")
            body["usage"] = {**(said if isinstance(said, dict) else {}), "total_tokens": usage[0].prompt_tokens}
        written = orjson.dumps({**body, "results": results[: self._top]})
        told = replace(head, verbatim=self._verbatim.kind, content_type="application/json")
        return Answer(told, (*usage, _STOP), Wording(written))


def _body(answer: Answer) -> dict[str, Any]:
    """Return the reply's JSON; empty where it is none."""
    told = None if answer.wording is None else answer.wording.told("")
    try:
        body = orjson.loads(told or b"{}")
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _with_usage(answer: Answer, body: Mapping[str, Any]) -> Answer:
    usage = body.get("usage")
    total = usage.get("total_tokens") if isinstance(usage, dict) else None
    return replace(answer, events=(Usage(total),)) if type(total) is int and total >= 0 else answer


def _result(found: Mapping[str, Any]) -> str:
    return orjson.dumps({name: value for name, value in found.items() if name != "index"}).decode()


def _score(result: Mapping[str, Any]) -> float:
    return float(result["relevance_score"])


def _said(document: object) -> str:
    return document if isinstance(document, str) else orjson.dumps(document).decode()


def _length(text: str | tuple[int, ...]) -> int:
    """Return how long an input is, near enough in proportion to its tokens; every one has some."""
    return 1 + len(text)


def _shared_out(answer: Answer, weights: Sequence[int]) -> list[tuple[Usage, ...]]:
    """Share the counted tokens out; nothing where none were counted."""
    counted = next((event for event in answer.events if type(event) is Usage), None)
    if counted is None:
        return [()] * len(weights)
    return [(Usage(tokens),) for tokens in shares(counted.prompt_tokens, weights)]


def _summed(answers: Sequence[Answer]) -> tuple[Usage, ...]:
    counted = [event.prompt_tokens for answer in answers for event in answer.events if type(event) is Usage]
    return (Usage(sum(counted)),) if counted else ()
