"""Runs chat and completion jobs token by token, several at once. Knows nothing of sockets.

Continuous batching: a sequence joins and leaves between two steps. A step reads the prompts of those that join, then
makes one token for everyone in flight.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from backends import messages
from backends.contract import BackendError, BadJob, Job, Task
from backends.frames import Buffer
from backends.manifest import ManifestError
from backends.wishes import MOST_SEQUENCES, Wishes, read_wishes
from backends.worker.encode import PromptEncoder
from backends.worker.model import RUN_ERRORS, Model
from backends.worker.pieces import Pieces
from backends.worker.sampling import Sampler, Slant
from backends.worker.scoring import Scores, TokenBytes
from backends.worker.shapes import Shape, Shapes, bucket
from backends.worker.slots import Floats, Slots


@dataclass(slots=True)
class _Sequence:
    """One choice of a job; `last` is the token that was drawn and not yet fed back."""

    number: int
    index: int
    prompt: list[int]
    limit: int
    sampler: Sampler
    slant: Slant
    pieces: Pieces
    scores: Scores | None
    echo: str
    made: int = 0
    last: int = -1


@dataclass(slots=True)
class _Answer:
    """A job under way: its choices that wait for a slot, and the ends of those that are over."""

    waiting: deque[_Sequence]
    choices: int
    prompt_tokens: int
    running: int = 0
    made: int = 0
    ends: dict[int, tuple[str, str | None]] = field(default_factory=dict)


class GenerationRunner:
    """The jobs of a chat model. The sequence at place i of `_running` has slot i."""

    def __init__(self, model: Model) -> None:
        """Make the slots. Raises ManifestError where graph, tokenizer and manifest do not fit each other."""
        prompt = model.manifest.prompt
        assert prompt is not None
        assert model.tokenizer is not None
        self._tokenizer = model.tokenizer
        self._vocabulary = model.tokenizer.get_vocab_size(with_added_tokens=True)
        self._token_bytes = TokenBytes(model.tokenizer)
        self._context = model.manifest.max_tokens
        self._max_batch = model.manifest.max_batch
        self._encoder = PromptEncoder(model.tokenizer, model.manifest, prompt)
        self._slots = Slots(model.session, model.manifest)
        self._end = _token(model.tokenizer, prompt.stop)
        self._answers: dict[int, _Answer] = {}
        self._running: list[_Sequence] = []
        self.shapes = Shapes()

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._answers)

    def warm(self) -> str:
        """Run one real prefill and one real step; nothing of them is in doubt."""
        self._prefill(0, [[self._end, self._end]])
        self._decode([self._end])
        return ""

    def warm_shape(self, shape: Shape) -> None:
        """Read so many prompts of so many tokens, or (of no tokens) make one for so many. Raises what a run raises."""
        rows, width = shape
        if width:
            self._prefill(0, [[self._end] * width] * rows)
        else:
            self._slots.filled[:] = 0
            self._decode([self._end] * rows)

    def _prefill(self, first: int, rows: Sequence[Sequence[int]]) -> Floats:
        with self.shapes.run((len(rows), bucket(max(map(len, rows)), self._context - 1))):
            return self._slots.prefill(first, rows)

    def _decode(self, tokens: Sequence[int]) -> Floats:
        with self.shapes.run((len(tokens), 0)):
            return self._slots.decode(tokens)

    def add(self, number: int, job: Job) -> None:
        """Take a job. Raises BadJob."""
        prompts = self._prompts(job)
        wishes = read_wishes(job)
        limit = job.sampling.max_tokens
        if limit is not None and limit < 1:
            raise BadJob(f"max_tokens is {limit}; it must be 1 or more", "max_tokens")
        if len(prompts) * wishes.n > MOST_SEQUENCES:
            raise BadJob(f"{len(prompts)} prompts of {wishes.n} choices; at most {MOST_SEQUENCES} are made", "prompt")
        sequences = [
            self._sequence(job, wishes, number, index, prompts[index // wishes.n])
            for index in range(len(prompts) * wishes.n)
        ]
        self._answers[number] = _Answer(deque(sequences), len(sequences), sum(map(len, prompts)))

    def cancel(self, number: int) -> None:
        """Drop a job and free its slots; one that is over is no error."""
        self._answers.pop(number, None)
        for slot in reversed([slot for slot, each in enumerate(self._running) if each.number == number]):
            self._leave(slot)

    def step(self) -> list[Buffer]:
        """Let those join for whom there is a slot, make one token for everybody, and return the frames to send."""
        answers = self._join()
        if self._running:
            try:
                logits = self._decode([each.last for each in self._running])
            except RUN_ERRORS as error:
                return answers + self._fail(self._running, error)
            answers += self._draw(0, logits)
        return answers

    def _prompts(self, job: Job) -> list[list[int]]:
        if job.task is Task.CHAT:
            return [self._encoder.chat(job.messages)]
        if job.task is Task.COMPLETION:
            return [self._encoder.completion(prompt) for prompt in job.inputs or (job.prompt,)]
        raise BadJob(f"a model of the task {Task.CHAT} was asked for {job.task}", "model")

    def _sequence(self, job: Job, wishes: Wishes, number: int, index: int, prompt: list[int]) -> _Sequence:
        """Make a choice, which draws as a job of its own would whose seed is higher by its place among its prompt's."""
        room = self._context - len(prompt)
        before = prompt if job.task is Task.COMPLETION else []
        return _Sequence(
            number,
            index,
            prompt,
            room if job.sampling.max_tokens is None else min(job.sampling.max_tokens, room),
            Sampler(job.sampling, index % wishes.n),
            Slant(wishes, self._vocabulary),
            Pieces(self._tokenizer, job.sampling.stop, before),
            None if wishes.logprobs is None else Scores(self._token_bytes, wishes.logprobs, before),
            self._text((job.inputs or (job.prompt,))[index // wishes.n]) if wishes.echo else "",
        )

    def _text(self, prompt: str | tuple[int, ...] | None) -> str:
        return (
            prompt if isinstance(prompt, str) else str(self._tokenizer.decode(prompt or (), skip_special_tokens=False))
        )

    def _join(self) -> list[Buffer]:
        joining: list[_Sequence] = []
        while len(self._running) + len(joining) < self._max_batch:
            hungry = [each for each in self._answers.values() if each.waiting]
            if not hungry:
                break
            # Whoever has fewest: a job of many choices does not hold up one of few.
            answer = min(hungry, key=lambda each: each.running)
            joining.append(answer.waiting.popleft())
            answer.running += 1
        if not joining:
            return []
        first = len(self._running)
        try:
            logits = self._prefill(first, [each.prompt for each in joining])
        except RUN_ERRORS as error:
            return self._fail(joining, error)
        self._running += joining
        return self._draw(first, logits)

    def _draw(self, first: int, logits: Floats) -> list[Buffer]:
        """Give the sequences from slot `first` on their next token, and let go those that are complete."""
        answers: list[Buffer] = []
        complete = []
        for slot, row in enumerate(logits, first):
            frames, over = self._advance(self._running[slot], row)
            answers += frames
            if over:
                complete.append(slot)
        for slot in reversed(complete):
            self._leave(slot)
        return answers

    def _advance(self, sequence: _Sequence, logits: Floats) -> tuple[list[Buffer], bool]:
        """Draw one token; return the frames it causes, and whether it was the last of its choice."""
        pieces, scores = sequence.pieces, sequence.scores
        token = sequence.last = sequence.sampler.draw(sequence.slant.apply(logits))
        piece, reason = "", None
        if token == self._end:
            reason = "stop"
        else:
            sequence.made += 1
            sequence.slant.drawn(token)
            if scores is not None:
                scores.add(token, logits, pieces.decoded)
            piece = pieces.add(token)
            if pieces.stopped is not None:
                reason = "stop"
            elif sequence.made == sequence.limit:
                reason = "length"
        if reason is not None:
            piece += pieces.rest()
        cut = reason is None or pieces.stopped is not None
        told = scores.told(pieces.shown if cut else None) if scores is not None else None
        piece, sequence.echo = sequence.echo + piece, ""
        frames: list[Buffer] = []
        if piece or told:
            frames.append(messages.text_frame(sequence.number, sequence.index, piece, told))
        if reason is not None:
            frames += self._ended(sequence, reason)
        return frames, reason is not None

    def _ended(self, sequence: _Sequence, reason: str) -> list[Buffer]:
        """Note the end of a choice; with the last of its job the job is over."""
        answer = self._answers[sequence.number]
        answer.running -= 1
        answer.made += sequence.made
        answer.ends[sequence.index] = (reason, sequence.pieces.stopped)
        if len(answer.ends) < answer.choices:
            return []
        del self._answers[sequence.number]
        ends = [answer.ends[index] for index in range(answer.choices)]
        return [messages.finish_frame(sequence.number, ends, answer.prompt_tokens, answer.made)]

    def _leave(self, slot: int) -> None:
        """Free a slot; the last sequence moves into it, so that live slots stay in front."""
        last = len(self._running) - 1
        if slot != last:
            self._slots.move(last, slot)
            self._running[slot] = self._running[last]
        self._running.pop()

    def _fail(self, sequences: Sequence[_Sequence], error: Exception) -> list[Buffer]:
        """Fail the whole jobs that these sequences belong to."""
        numbers = dict.fromkeys(each.number for each in sequences)
        for number in numbers:
            self.cancel(number)
        return [messages.error_frame(number, BackendError(f"the model failed: {error}")) for number in numbers]


def _token(tokenizer: Tokenizer, text: str) -> int:
    number: int | None = tokenizer.token_to_id(text)
    if number is None:
        raise ManifestError(f"prompt: stop: {text!r} is no token of tokenizer.json")
    return number
