"""What a gateway and an ONNX worker say to each other, as frames. Knows neither the socket nor the model.

To the worker: `job`, `cancel` and `ping`. From it: once `ready` or `failed`; for a job `text` pieces and a `finish`, or
one `vectors`, `scores` or `tensors` (which finishes the job), or one `error`; for a ping one `pong`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from backends.contract import (
    BackendError,
    BadJob,
    Event,
    Finish,
    Job,
    Logprobs,
    Message,
    Sampling,
    Scores,
    Task,
    Tensor,
    Tensors,
    Text,
    Usage,
    Vectors,
)
from backends.frames import Array, Buffer, Frame, encode, parts

RESULT_KINDS = {Task.EMBED: "vectors", Task.PREDICT: "scores"}


def job_frame(number: int, job: Job, extra: Mapping[str, object]) -> list[Buffer]:
    """Encode a job, with `extra` as its own, in parts to be sent one after the other.

    Raises FrameError where it exceeds what a frame may hold.
    """
    header: dict[str, object] = {"kind": "job", "id": number, "task": job.task}
    if job.task is Task.INFER:
        described = [(each.name, each.datatype, each.shape) for each in job.tensors]
        header |= {"described": described, "outputs": job.outputs}
        return parts(header, [_array(each.data) for each in job.tensors])
    if job.inputs:
        header["inputs"] = job.inputs
    if job.task in RESULT_KINDS:
        if job.token_vectors:
            header["token_vectors"] = True
        return parts(header)
    if job.messages:
        header["messages"] = [(message.role, message.content) for message in job.messages]
    if job.prompt is not None:
        header["prompt"] = job.prompt
    sampling = job.sampling
    header["sampling"] = (sampling.max_tokens, sampling.temperature, sampling.top_p, sampling.seed, sampling.stop)
    header["extra"] = extra
    return parts(header)


def read_job(frame: Frame) -> Job:
    """Decode a job."""
    header: Mapping[str, Any] = frame.header
    task = Task(header["task"])
    if task is Task.INFER:
        return Job(task, tensors=_tensors(frame, copied=False), outputs=tuple(header["outputs"]))
    inputs = tuple(map(_text_or_ids, header.get("inputs", ())))
    if task in RESULT_KINDS:
        return Job(task, inputs=inputs, token_vectors=header.get("token_vectors", False))
    max_tokens, temperature, top_p, seed, stop = header["sampling"]
    return Job(
        task,
        messages=tuple(Message(role, content) for role, content in header.get("messages", ())),
        prompt=_text_or_ids(header["prompt"]) if "prompt" in header else None,
        inputs=inputs,
        sampling=Sampling(max_tokens, temperature, top_p, seed, tuple(stop)),
        extra=header["extra"],
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


def ready_frame(
    timings_s: Mapping[str, float], providers: Sequence[str], doubt: str = "", told: Mapping[str, object] | None = None
) -> bytes:
    """Encode that a real inference has run, what took how long since the fork, and which providers are in use.

    `doubt` says why the first inference failed, where that may be for the values that were made up for it. `told`: what
    became of the optimised `graph`, the `files` that were read, and `shared_bytes`, what was resident of mapped files
    when the session was built.
    """
    beside = {"graph": "off", "shared_bytes": 0, "files": (), **(told or {})}
    return encode(
        {"kind": "ready", "timings_s": dict(timings_s), "providers": list(providers), "doubt": doubt, **beside}
    )


def standing_frame(device_s: float) -> bytes:
    """Encode that a worker stands by, and what making its device ready took."""
    return encode({"kind": "standing", "device_s": device_s})


def order_frame(order: Mapping[str, Any]) -> bytes:
    """Encode the model that a worker is to serve which stood by."""
    return encode({"kind": "order", "order": order})


def made_frame(outcome: str, why: str) -> bytes:
    """Encode what came of the making of an optimised graph, and why it failed where it did."""
    return encode({"kind": "made", "outcome": outcome, "why": why})


def shapes_frame(seen: Sequence[tuple[Sequence[int], int, float, float]]) -> bytes:
    """Encode shapes of real jobs: each with its runs since it was last told, its first run's seconds, its second's."""
    return encode({"kind": "shapes", "seen": [[list(shape), *figures] for shape, *figures in seen]})


def failed_frame(message: str) -> bytes:
    """Encode that the model cannot be served."""
    return encode({"kind": "failed", "message": message})


def text_frame(number: int, index: int, text: str, logprobs: Sequence[Mapping[str, object]] | None = None) -> bytes:
    """Encode a piece of the text of choice `index`, with its tokens' log probabilities where they were asked for."""
    return encode({"kind": "text", "id": number, "index": index, "text": text, "logprobs": logprobs})


def finish_frame(
    number: int, choices: Sequence[tuple[str, str | None]], prompt_tokens: int, completion_tokens: int
) -> bytes:
    """Encode the end of a generation; of each choice its reason, and the stop sequence that ended it."""
    return encode({"kind": "finish", "id": number, "choices": choices, "tokens": (prompt_tokens, completion_tokens)})


def tensors_frame(number: int, outputs: Sequence[tuple[str, str, Sequence[int], Buffer]]) -> list[Buffer]:
    """Encode the result of an infer job, in parts: name, datatype, shape and data of each output.

    Raises FrameError where it exceeds what a frame may hold.
    """
    header = {"kind": "tensors", "id": number, "described": [each[:3] for each in outputs]}
    return parts(header, [_array(each[3]) for each in outputs])


def matrix_frame(
    number: int, task: Task, data: memoryview, shape: Sequence[int], prompt_tokens: int, *, tokens: Sequence[bytes] = ()
) -> bytes:
    """Encode the result of an embed or predict job: float32, row-major; and each row's token vectors, if it has any."""
    header: dict[str, object] = {"kind": RESULT_KINDS[task], "id": number, "prompt_tokens": prompt_tokens}
    arrays = [Array(data, tuple(shape))]
    if tokens:
        header["token_bytes"] = [len(each) for each in tokens]
        arrays.append(_array(b"".join(tokens)))
    return encode(header, arrays)


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
            return _text(header)
        case "finish":
            return (Usage(*header["tokens"]), *_finishes(header["choices"]))
        case "tensors":
            return (Tensors(_tensors(frame, copied=True)), Finish("stop"))
        case "vectors":
            return (_vectors(frame), Usage(header["prompt_tokens"]), Finish("stop"))
        case "scores":
            return (_scores(frame.arrays[0], labels), Usage(header["prompt_tokens"]), Finish("stop"))
        case "error" if header["bad"]:
            raise BadJob(header["message"], header["param"])
        case "error":
            raise BackendError(header["message"])
        case kind:
            raise ValueError(f"a worker's frame of the unknown kind {kind!r}")


def _text_or_ids(value: Any) -> str | tuple[int, ...]:
    return value if isinstance(value, str) else tuple(value)


def _text(header: Mapping[str, Any]) -> tuple[Event, ...]:
    index = header["index"]
    events: list[Event] = [Text(header["text"], index)] if header["text"] else []
    if header["logprobs"]:
        events.append(Logprobs(tuple(header["logprobs"]), index))
    return tuple(events)


def _finishes(choices: Sequence[tuple[str, str | None]]) -> list[Finish]:
    return [Finish(reason, index, stop) for index, (reason, stop) in enumerate(choices)]


def _array(data: Buffer) -> Array:
    """Hand a tensor's data over as bytes: a frame knows neither datatypes nor how long a string is."""
    return Array(data, (memoryview(data).nbytes,), "uint8")


def _tensors(frame: Frame, *, copied: bool) -> tuple[Tensor, ...]:
    """Return a frame's tensors; without a copy, `data` is the frame's memory, which reads like bytes."""
    header: Mapping[str, Any] = frame.header
    return tuple(
        Tensor(name, datatype, tuple(shape), bytes(array.data) if copied else cast("bytes", array.data))
        for (name, datatype, shape), array in zip(header["described"], frame.arrays, strict=True)
    )


def _vectors(frame: Frame) -> Vectors:
    header: Mapping[str, Any] = frame.header
    rows, width = frame.arrays[0].shape
    tokens = []
    if "token_bytes" in header:
        rest = memoryview(frame.arrays[1].data)
        for size in header["token_bytes"]:
            tokens.append(bytes(rest[:size]))
            rest = rest[size:]
    return Vectors(bytes(frame.arrays[0].data), (rows, width), tuple(tokens))


def _scores(array: Array, labels: tuple[str, ...]) -> Scores:
    rows, width = array.shape
    return Scores(bytes(array.data), (rows, width), labels)
