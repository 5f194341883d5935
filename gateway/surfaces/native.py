"""The native wire under `/api/v1`: `predict` for classifiers. Knows no cache and no pool."""

import time

import numpy as np
import orjson

from backends.contract import Job, Scores, Task
from gateway.answer import Answer
from gateway.errors import Fault
from gateway.fields import parse_object, text
from gateway.request import Request
from gateway.surfaces.wire import Call, Encoder, Failure, Whole


class NativeSurface:
    """`POST /api/v1/predict`: `{model, input}` → `{prediction, confidence, model_version, latency_ms}`."""

    name = "native"
    paths = frozenset({"/api/v1/predict"})

    def decode(self, call: Call, reply_id: str) -> tuple[Request, Encoder]:
        """Read a prediction request."""
        del reply_id  # predictions have no id
        body = parse_object(call.body)
        job = Job(Task.PREDICT, inputs=(text(body, "input"),))
        fields = {"task": Task.PREDICT, "input": body["input"]}
        return Request(text(body, "model"), job, fields), PredictionEncoder(time.perf_counter())

    def failure(self, fault: Fault) -> Failure:
        """Encode an error as a status and a body."""
        return Failure(fault.status, _error(fault))

    def failure_frame(self, fault: Fault) -> bytes:
        """Encode an error in the middle of a stream."""
        return b"data: " + _error(fault) + b"\n\n"


def _error(fault: Fault) -> bytes:
    return orjson.dumps({"error": {"message": fault.message, "type": fault.kind, "code": fault.code}})


class PredictionEncoder:
    """The most likely label and its probability."""

    frames = None

    def __init__(self, since_s: float) -> None:
        self._since_s = since_s

    def whole(self, answer: Answer) -> Whole:
        """Encode a complete answer as one body."""
        scores = next(event for event in answer.events if type(event) is Scores)
        row = np.frombuffer(scores.data, dtype="<f4")[: scores.shape[1]]
        best = int(row.argmax())
        body = {
            "prediction": scores.labels[best],
            "confidence": round(float(row[best]), 6),
            "model_version": answer.head.version,
            "latency_ms": round((time.perf_counter() - self._since_s) * 1000, 3),
        }
        return Whole(orjson.dumps(body))
