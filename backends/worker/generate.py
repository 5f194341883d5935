"""Runs chat and completion jobs token by token, several at once. Knows nothing of sockets.

Continuous batching: a sequence joins and leaves between two steps. A step reads the prompts of those that join, then
makes one token for everyone in flight.
"""

from collections import deque
from dataclasses import dataclass

from tokenizers import Tokenizer

from backends import messages
from backends.contract import BackendError, BadJob, Job, Task
from backends.manifest import ManifestError
from backends.worker.encode import PromptEncoder
from backends.worker.model import RUN_ERRORS, Model
from backends.worker.pieces import Pieces
from backends.worker.sampling import Sampler
from backends.worker.slots import Floats, Slots


@dataclass(slots=True)
class _Sequence:
    """A job under way; `last` is the token that was drawn and not yet fed back."""

    number: int
    prompt: list[int]
    limit: int
    sampler: Sampler
    pieces: Pieces
    made: int = 0
    last: int = -1


class GenerationRunner:
    """The jobs of a chat model. The sequence at place i of `_running` has slot i."""

    def __init__(self, model: Model) -> None:
        """Make the slots. Raises ManifestError where graph, tokenizer and manifest do not fit each other."""
        prompt = model.manifest.prompt
        assert prompt is not None
        self._tokenizer = model.tokenizer
        self._context = model.manifest.max_tokens
        self._max_batch = model.manifest.max_batch
        self._encoder = PromptEncoder(model.tokenizer, model.manifest, prompt)
        self._slots = Slots(model.session, model.manifest)
        self._end = _token(model.tokenizer, prompt.stop)
        self._waiting: deque[_Sequence] = deque()
        self._running: list[_Sequence] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._running or self._waiting)

    def warm(self) -> None:
        """Run one real prefill and one real step."""
        self._slots.prefill(0, [[self._end, self._end]])
        self._slots.decode([self._end])

    def add(self, number: int, job: Job) -> None:
        """Take a job. Raises BadJob."""
        if job.task is Task.CHAT:
            prompt, before = self._encoder.chat(job.messages), []
        elif job.task is Task.COMPLETION:
            prompt = before = self._encoder.completion(job.prompt)
        else:
            raise BadJob(f"a model of the task {Task.CHAT} was asked for {job.task}", "model")
        limit = job.sampling.max_tokens
        if limit is not None and limit < 1:
            raise BadJob(f"max_tokens is {limit}; it must be 1 or more", "max_tokens")
        room = self._context - len(prompt)
        self._waiting.append(
            _Sequence(
                number,
                prompt,
                room if limit is None else min(limit, room),
                Sampler(job.sampling),
                Pieces(self._tokenizer, job.sampling.stop, before),
            )
        )

    def cancel(self, number: int) -> None:
        """Drop a job and free its slot; one that is over is no error."""
        self._waiting = deque(each for each in self._waiting if each.number != number)
        for slot in [slot for slot, each in enumerate(self._running) if each.number == number]:
            self._leave(slot)

    def step(self) -> list[bytes]:
        """Let those join for whom there is a slot, make one token for everybody, and return the frames to send."""
        answers = self._join()
        if self._running:
            try:
                logits = self._slots.decode([each.last for each in self._running])
            except RUN_ERRORS as error:
                return answers + self._fail_all(error)
            answers += self._draw(0, logits)
        return answers

    def _join(self) -> list[bytes]:
        joining = [
            self._waiting.popleft() for _ in range(min(len(self._waiting), self._max_batch - len(self._running)))
        ]
        if not joining:
            return []
        first = len(self._running)
        try:
            logits = self._slots.prefill(first, [each.prompt for each in joining])
        except RUN_ERRORS as error:
            return [_failed(each, error) for each in joining]
        self._running += joining
        return self._draw(first, logits)

    def _draw(self, first: int, logits: Floats) -> list[bytes]:
        """Give the sequences from slot `first` on their next token, and let go those that are complete."""
        answers: list[bytes] = []
        complete = []
        for slot, row in enumerate(logits, first):
            frames, over = self._advance(self._running[slot], row)
            answers += frames
            if over:
                complete.append(slot)
        for slot in reversed(complete):
            self._leave(slot)
        return answers

    def _advance(self, sequence: _Sequence, logits: Floats) -> tuple[list[bytes], bool]:
        """Draw one token; return the frames it causes, and whether it was the last."""
        sequence.last = sequence.sampler.draw(logits)
        piece, reason = "", None
        if sequence.last == self._end:
            reason = "stop"
        else:
            sequence.made += 1
            piece = sequence.pieces.add(sequence.last)
            if sequence.pieces.stopped:
                reason = "stop"
            elif sequence.made == sequence.limit:
                reason = "length"
        if reason is not None:
            piece += sequence.pieces.rest()
        frames = [messages.text_frame(sequence.number, piece)] if piece else []
        if reason is not None:
            frames.append(messages.finish_frame(sequence.number, reason, len(sequence.prompt), sequence.made))
        return frames, reason is not None

    def _leave(self, slot: int) -> None:
        """Free a slot; the last sequence moves into it, so that live slots stay in front."""
        last = len(self._running) - 1
        if slot != last:
            self._slots.move(last, slot)
            self._running[slot] = self._running[last]
        self._running.pop()

    def _fail_all(self, error: Exception) -> list[bytes]:
        failed, self._running = self._running, []
        return [_failed(each, error) for each in failed]


def _failed(sequence: _Sequence, error: Exception) -> bytes:
    return messages.error_frame(sequence.number, BackendError(f"the model failed: {error}"))


def _token(tokenizer: Tokenizer, text: str) -> int:
    number: int | None = tokenizer.token_to_id(text)
    if number is None:
        raise ManifestError(f"prompt: stop: {text!r} is no token of tokenizer.json")
    return number
