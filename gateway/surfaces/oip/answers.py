"""The tensors that an answer consists of, as the protocol names them. Knows no transport."""

from collections.abc import Sequence

import numpy as np

from backends.contract import Scores, Tensor, Tensors, Vectors
from gateway.answer import Answer
from gateway.catalog import VERSION
from gateway.errors import InvalidRequest
from gateway.surfaces.oip.questions import Wanted
from gateway.surfaces.oip.tensors import NUMPY, text_tensor

TEXT_OUTPUT = "text_output"


def outputs_of(answer: Answer, wanted: Sequence[Wanted]) -> tuple[Tensor, ...]:
    """Return the outputs that the client named, in its order, or all. Raises `InvalidRequest`."""
    made = {tensor.name: tensor for tensor in _all(answer)}
    if not wanted:
        return tuple(made.values())
    return tuple([_classified(made[each.name], each.classes) if each.classes else made[each.name] for each in wanted])


def reply_head(model: str, request_id: str) -> dict[str, object]:
    """Return what every reply in JSON begins with; the id is there where the request had one."""
    head: dict[str, object] = {"id": request_id} if request_id else {}
    return {**head, "model_name": model, "model_version": VERSION}


def _all(answer: Answer) -> tuple[Tensor, ...]:
    for event in answer.events:
        if type(event) is Tensors:
            return event.outputs
        if type(event) is Vectors:
            return (Tensor("embedding", "FP32", event.shape, event.data),)
        if type(event) is Scores:
            rows = np.frombuffer(event.data, "<f4").reshape(event.shape)
            best = [event.labels[place] for place in rows.argmax(axis=1)]
            return text_tensor("label", best), Tensor("probabilities", "FP32", event.shape, event.data)
    return (text_tensor(TEXT_OUTPUT, [answer.text()]),)


def _classified(tensor: Tensor, classes: int) -> Tensor:
    """Return the best classes of each row as `value:index`, best first."""
    if tensor.datatype not in NUMPY or not tensor.shape:
        raise InvalidRequest(f"output '{tensor.name}' is {tensor.datatype}, which cannot be ranked", "classification")
    rows = np.frombuffer(tensor.data, NUMPY[tensor.datatype]).reshape(-1, tensor.shape[-1])
    places = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :classes]
    ranked = [f"{row[place]:f}:{place}" for row, best in zip(rows, places, strict=True) for place in best]
    return Tensor(tensor.name, "BYTES", (*tensor.shape[:-1], places.shape[1]), text_tensor("", ranked).data)
