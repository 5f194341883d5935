"""What a gateway and an ONNX worker say to each other, as frames. Knows neither the socket nor the model.

To the worker: `job`, `cancel` and `ping`. From it: once `ready` or `failed`; for a job `text` pieces and a `finish`, or
one `vectors` or `scores` (which finishes the job), or one `error`; for a ping one `pong`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from backends.contract import (
    BackendError,
    BadJob,
    Event,
    Finish,
    Job,
    Message,
    Sampling,
    Scores,
    Task,
    Text,
    Usage,
    Vectors,
)
from backends.frames import Frame, Tensor, encode

RESULT_KINDS = {Task.EMBED: "vectors", Task.PREDICT: "scores"}


def job_frame(number: int, job: Job) -> bytes:
    """Encode a job. Raises FrameError where it exceeds what a frame may hold."""
    header: dict[str, object] = {"kind": "job", "id": number, "task": job.task}
    match job.task:
        case Task.EMBED | Task.PREDICT:
            return encode({**header, "inputs": job.inputs})
        case Task.CHAT:
            header["messages"] = [(message.role, message.content) for message in job.messages]
        case Task.COMPLETION:
            header["prompt"] = job.prompt
    sampling = job.sampling
    header["sampling"] = (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed, sampling.stop)
    return encode(header)


def read_job(header: Mapping[str, Any]) -> Job:
    """Decode a job's header."""
    task = Task(header["task"])
    if task in RESULT_KINDS:
        return Job(task, inputs=tuple(map(_text_or_ids, header["inputs"])))
    max_tokens, temperature, top_p, seed, stop = header["sampling"]
    return Job(
        task,
        messages=tuple(Message(role, content) for role, content in header.get("messages", ())),
        prompt=_text_or_ids(header["prompt"]) if "prompt" in header else None,
        sampling=Sampling(max_tokens, temperature, top_p, seed, tuple(stop)),
    )


def cancel_frame(number: int) -> bytes:
    """Encode the wish that a job be dropped; one that is over already is no error."""
    return encode({"kind": "cancel", "id": number})


def ping_frame() -> bytes:
    """Encode the question whether the worker lives."""
    return encode({"kind": "ping"})


def pong_frame() -> bytes:
    """Encode that the worker lives: it says so between two steps."""
    return encode({"kind": "pong"})


def ready_frame(timings_s: Mapping[str, float], providers: Sequence[str]) -> bytes:
    """Encode that a real inference has run, what took how long since the fork, and which providers are in use."""
    return encode({"kind": "ready", "timings_s": dict(timings_s), "providers": list(providers)})


def failed_frame(message: str) -> bytes:
    """Encode that the model cannot be served."""
    return encode({"kind": "failed", "message": message})


def text_frame(number: int, text: str) -> bytes:
    """Encode a piece of generated text."""
    return encode({"kind": "text", "id": number, "text": text})


def finish_frame(number: int, reason: str, prompt_tokens: int, completion_tokens: int) -> bytes:
    """Encode the end of a generation."""
    return encode({"kind": "finish", "id": number, "reason": reason, "tokens": (prompt_tokens, completion_tokens)})


def matrix_frame(number: int, task: Task, data: memoryview, shape: Sequence[int], prompt_tokens: int) -> bytes:
    """Encode the result of an embed or predict job: float32, row-major."""
    header = {"kind": RESULT_KINDS[task], "id": number, "prompt_tokens": prompt_tokens}
    return encode(header, [Tensor(data, tuple(shape))])


def error_frame(number: int, error: BackendError) -> bytes:
    """Encode why a job was not done."""
    bad = isinstance(error, BadJob)
    param = error.param if isinstance(error, BadJob) else None
    return encode({"kind": "error", "id": number, "bad": bad, "message": str(error), "param": param})


def read_events(frame: Frame, labels: tuple[str, ...]) -> tuple[Event, ...]:
    """Decode a worker's frame about one job. Raises the BackendError that an `error` frame stands for."""
    header: Mapping[str, Any] = frame.header
    match header["kind"]:
        case "text":
            return (Text(header["text"]),)
        case "finish":
            return (Usage(*header["tokens"]), Finish(header["reason"]))
        case "vectors":
            return (_vectors(frame.tensors[0]), Usage(header["prompt_tokens"]), Finish("stop"))
        case "scores":
            return (_scores(frame.tensors[0], labels), Usage(header["prompt_tokens"]), Finish("stop"))
        case "error" if header["bad"]:
            raise BadJob(header["message"], header["param"])
        case "error":
            raise BackendError(header["message"])
        case kind:
            raise ValueError(f"a worker's frame of the unknown kind {kind!r}")


def _text_or_ids(value: Any) -> str | tuple[int, ...]:
    return value if isinstance(value, str) else tuple(value)


def _vectors(tensor: Tensor) -> Vectors:
    rows, width = tensor.shape
    return Vectors(bytes(tensor.data), (rows, width))


def _scores(tensor: Tensor, labels: tuple[str, ...]) -> Scores:
    rows, width = tensor.shape
    return Scores(bytes(tensor.data), (rows, width), labels)
