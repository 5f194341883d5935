"""The values that cross into and out of this room: jobs, events, errors, and the two protocols that carry them.

Knows nothing of how a model runs, nor of the wire that a client speaks.
"""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import field
from enum import StrEnum
from typing import Protocol, runtime_checkable

from backends.value import value


class Task(StrEnum):
    """What a model does; a job names the same task as the model that it is sent to, or one that it can stand in for."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBED = "embed"
    PREDICT = "predict"
    INFER = "infer"
    """Named tensors in, named tensors out."""
    RELAY = "relay"
    """Bytes of a wire that the gateway does not read: images, audio, rerankings, moderations."""


@value
class Message:
    """One turn of a conversation: its text, and in `extra` its other fields in OpenAI's shape.

    A content that is more than text is in `extra["content"]` as the list of parts that the client sent; `content` then
    joins the text among them. `tool_calls`, `tool_call_id` and `name` are in `extra` too.
    """

    role: str
    content: str
    extra: Mapping[str, object] = field(default_factory=dict)


@value
class Tensor:
    """A tensor of the Open Inference Protocol: `datatype` in its words (`FP32`, `BYTES`), little-endian, row-major.

    An element of `BYTES` is a 32-bit little-endian length and the bytes.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes


@value
class TensorSpec:
    """What a model says of one of its tensors; a size of -1 may be any."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@value
class Verbatim:
    """A request as its client wrote it: a backend that speaks the same wire sends it on as it came.

    `path` counts from the upstream's base URL (`/chat/completions`). `headers` are those of the client's that belong to
    the wire (`anthropic-version`); never a key. `form` stands for what in the request shapes the reply and not the
    answer (`encoding_format`, `include_usage`).
    """

    wire: str
    path: str
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    streamed: bool = False
    form: str = ""

    @property
    def kind(self) -> str:
        """Name what the reply's bytes are: only a client of the same wire, path, mode and form is given them."""
        return f"{self.wire} {self.path}{' stream' if self.streamed else ''}{self.form and ' '}{self.form}"


@value
class Sampling:
    """How tokens are drawn. `None` means that the client said nothing; an engine then uses its own default."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


@value
class Job:
    """One piece of work for one model.

    `messages` belongs to chat, `prompt` to completion (text, or token ids), `inputs` to embed and predict (texts, or
    token ids each) and to a completion of several prompts: it has no `prompt`, and its choices are those of the first
    prompt, then those of the next. `tensors` belongs to infer (`outputs` names those that are wanted; none names all).
    `extra` holds the client's other fields under OpenAI's names and in its shapes (`tools`, `n`, `logprobs`), whatever
    its wire was: a backend honours each or refuses it with `BadJob`. A relay is all in `verbatim`, which the others may
    have too. `stream` says that the first client wants events as they are made; a backend may ignore it. A `background`
    job yields to all others. An embed job that asks for `token_vectors` gets them where the model has any. A backend
    that has an event while whoever runs the job waits for one may call the `tap` with it: it tells whether that was
    taken, and what was is not yielded.
    """

    task: Task
    messages: tuple[Message, ...] = ()
    prompt: str | tuple[int, ...] | None = None
    inputs: tuple[str | tuple[int, ...], ...] = ()
    sampling: Sampling = Sampling()
    tensors: tuple[Tensor, ...] = ()
    outputs: tuple[str, ...] = ()
    extra: Mapping[str, object] = field(default_factory=dict)
    verbatim: Verbatim | None = None
    stream: bool = False
    background: bool = False
    token_vectors: bool = False
    tap: "Callable[[Made], bool] | None" = None


@value
class Dispatched:
    """The first event of a pool's stream: the job is bound to a replica, after these waits in seconds.

    `start_s` is the part of the wait that a cold start caused, `queue_s` the rest. A backend too may begin with it, to
    tell why its answer is to be `unkept`: `no-store` where its upstream said `Cache-Control: no-store`, or its status.
    """

    replica: str
    queue_s: float
    start_s: float
    unkept: str = ""


@value
class Text:
    """A piece of generated text of choice `index`."""

    text: str
    index: int = 0


@value
class Reasoning:
    """A piece of what the model thought before it answered; `signature` closes a thought of Anthropic's wire."""

    text: str
    index: int = 0
    signature: str = ""


@value
class ToolCall:
    """A piece of the call number `place` of choice `index`: the first has `id` and `name`, all extend `arguments`."""

    place: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0


@value
class Refusal:
    """A piece of the model's words for why it does not answer."""

    text: str
    index: int = 0


@value
class Logprobs:
    """Log probabilities of the tokens of the text before it, as OpenAI's chat wire shapes them.

    Each of `tokens` is `{token, logprob, bytes, top_logprobs: [{token, logprob, bytes}, …]}`.
    """

    tokens: tuple[Mapping[str, object], ...]
    index: int = 0


@value
class Frame:
    """The first bytes of the reply exactly as the upstream sent them; `kind` is that of the job's `verbatim`.

    What follows of a stream comes in `Piece`s. The events that the bytes stand for follow them. Who speaks the same
    wire passes the bytes on and skips the events.
    """

    data: bytes
    kind: str
    content_type: str


Piece = tuple[bytes, str]
"""The next bytes after a `Frame`, and the text where they say one of choice 0 and nothing else; else events follow.
Flights keep them by the hundred thousand: a plain tuple of bytes and text is the pair that the collector lets go of."""


@value
class Tensors:
    """The outputs of an infer job."""

    outputs: tuple[Tensor, ...]


@value
class Vectors:
    """Embeddings: little-endian float32, row-major, `shape` = (inputs, dimensions).

    `tokens` has what a verifier compares of each input, where the job asked for that and the model has it; it is empty
    for an input of too many tokens.
    """

    data: bytes
    shape: tuple[int, int]
    tokens: tuple[bytes, ...] = ()


@value
class Scores:
    """Class probabilities: little-endian float32, row-major, `shape` = (inputs, labels); `labels` names the columns."""

    data: bytes
    shape: tuple[int, int]
    labels: tuple[str, ...]


@value
class Usage:
    """Tokens read (`cached_tokens` of them from a prompt cache) and made (`reasoning_tokens` of them in thought)."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@value
class Finish:
    """Choice `index` is complete; `reason` is `stop`, `length`, `tool_calls`, `content_filter` or an upstream's own.

    What a reason of an upstream's own stands for is not known, so that nothing may take the choice for whole. `stop` is
    the stop sequence that ended it, where one did and is known.

    A stream without it was cut off: every complete stream ends with `Usage` (where known), then one `Finish` a choice.
    """

    reason: str
    index: int = 0
    stop: str | None = None


_Spoken = Text | Reasoning | ToolCall | Refusal | Logprobs
Event = Dispatched | Frame | _Spoken | Vectors | Scores | Tensors | Usage | Finish
Made = Event | Piece


class Backend(Protocol):
    """A running model: an ONNX worker, an upstream, a spawned server. One replica holds one."""

    def stream(self, job: Job) -> AsyncGenerator[Made, None]:
        """Run a job and yield its events, ending with `Finish`.

        Closing the generator (or cancelling the task that reads it) cancels the work down to the model.
        Raises a `BackendError`.
        """
        ...

    async def wait_exit(self) -> str:
        """Return when the backend can serve no more, with the reason in words (exit status, last lines of output)."""
        ...

    async def close(self) -> None:
        """Stop at once: jobs still running fail with `WorkerDied`. Safe to call twice."""
        ...

    def memory_bytes(self) -> int:
        """Return the resident host memory of the backend's processes now; 0 where there is none of ours."""
        ...


@runtime_checkable
class AnsweringBackend(Backend, Protocol):
    """A backend whose answers often come at once: to ask for a whole one costs it less than to stream."""

    async def answer(self, job: Job) -> Sequence[Made]:
        """Run a job and return the events that `stream` would yield; cancelling cancels the work."""
        ...


class Engine(Protocol):
    """A way to bring one model up. It holds no replica and no state of one."""

    @property
    def version(self) -> str:
        """Name exactly what answers: it changes when the model's files, command or upstream change."""
        ...

    @property
    def concurrency(self) -> int:
        """Jobs that one replica takes at a time."""
        ...

    async def start(self) -> Backend:
        """Bring one replica up until a real inference (or the ready path) has answered.

        Raises `StartFailed`. Cancelling stops what was begun. The caller sets the deadline.
        """
        ...


class BackendError(Exception):
    """Whatever keeps a job from being done. The gateway maps each class to a status in one table.

    The message is for who asked, and names no address. `cause` is for the operator's log: words of our own and the
    system's, and none of an upstream's or a client's. `model` is the one that failed, once that is known.
    """

    cause = ""
    model = ""


class BadJob(BackendError):
    """The model cannot do this job as it was asked; `param` names the client's field.

    `status`, `kind` and `code` are an upstream's own words for it, where it was one that refused.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        *,
        status: int = 400,
        kind: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.status = status
        self.kind = kind
        self.code = code


class QueueFull(BackendError):
    """The pool's queue has no room; `retry_after_s` is the learned estimate of when it will."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class StartFailed(BackendError):
    """No replica could be brought up; the message ends with the child's last lines where there was a child."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(BackendError):
    """The job's deadline passed before its first event."""


class WorkerDied(BackendError):
    """The replica ended while it held the job."""


class UpstreamFailed(BackendError):
    """An upstream answered with an error; `status` is its HTTP status, or None where no answer came."""

    def __init__(
        self, message: str, status: int | None = None, retry_after_s: float | None = None, *, cause: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s
        self.cause = cause or ("" if status is None else f"status {status}")
