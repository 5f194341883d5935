"""Says whether two answers to a question come to the same: each task has its own truth. Pure; knows no cache.

Classifiers agree where they name the same class. Embeddings agree where they are the same vector, but for the noise of
arithmetic: a near vector is another vector. Texts agree word for word, but for case, spaces and the last full stop.
"""

import unicodedata
from collections import defaultdict

import numpy as np
import orjson

from backends.contract import Scores, Tensors, ToolCall, Vectors
from gateway.answer import Answer

# Rounding of float32 over a few hundred dimensions, on other hardware or in another batch.
_SAME_COSINE = 0.9999


def equivalent(given: Answer, made: Answer) -> bool:
    """Tell whether the answer that was given is as good as the one that was made."""
    for kind in (Scores, Vectors, Tensors):
        ours = [event for event in given.events if type(event) is kind]
        theirs = [event for event in made.events if type(event) is kind]
        if len(ours) != len(theirs):
            return False
        if ours:
            return all(_agree(one, other) for one, other in zip(ours, theirs, strict=True))
    choices = given.choices() | made.choices()
    return _calls(given) == _calls(made) and all(
        plain_text(given.text(index)) == plain_text(made.text(index)) for index in choices
    )


def plain_text(text: str) -> str:
    """Return a text without what makes no difference to its reader."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.split()).rstrip(" .")


def _agree(one: object, other: object) -> bool:
    match one, other:
        case Scores(), Scores():
            return one.shape == other.shape and one.labels == other.labels and _classes(one) == _classes(other)
        case Vectors(), Vectors():
            return one.shape == other.shape and bool(np.all(_cosines(one, other) >= _SAME_COSINE))
        case Tensors(), Tensors():
            return one == other
    return False


def _classes(scores: Scores) -> list[int]:
    rows = np.frombuffer(scores.data, "<f4").reshape(scores.shape)
    return [int(place) for place in rows.argmax(-1)]


def _cosines(one: Vectors, other: Vectors) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    left, right = (np.frombuffer(each.data, "<f4").reshape(each.shape).astype(np.float64) for each in (one, other))
    lengths = np.linalg.norm(left, axis=-1) * np.linalg.norm(right, axis=-1)
    cosines: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = np.divide(
        (left * right).sum(-1), lengths, out=np.zeros_like(lengths), where=lengths > 0
    )
    return cosines


def _calls(answer: Answer) -> dict[tuple[int, int], tuple[str, object]]:
    """Return the calls of tools, by choice and place: names, and arguments as JSON values where they are JSON."""
    names: defaultdict[tuple[int, int], str] = defaultdict(str)
    arguments: defaultdict[tuple[int, int], str] = defaultdict(str)
    for event in answer.events:
        if type(event) is ToolCall:
            names[event.index, event.place] += event.name
            arguments[event.index, event.place] += event.arguments
    return {place: (names[place], _value(arguments[place])) for place in names}


def _value(arguments: str) -> object:
    try:
        return orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return arguments
