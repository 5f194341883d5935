"""Text to token ids, and rows of ids to padded arrays. Knows tokenizers and limits, not sessions or sockets."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from backends.contract import BadJob, Job, Message
from backends.manifest import Manifest, Prompt

Ids = Sequence[int]

# No text has so many characters to a token. A tokenizer that reads megabytes holds up everybody else's job for
# minutes, takes gigabytes, and cannot be interrupted; so what is longer than this allows is refused unread.
_MOST_CHARS_PER_TOKEN = 64


class RowEncoder:
    """Turns the inputs of embed and predict jobs into rows of token ids."""

    def __init__(self, tokenizer: Tokenizer, max_tokens: int) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        self.unknown: int | None = tokenizer.token_to_id(getattr(tokenizer.model, "unk_token", None) or "<unk>")
        """The id of all words that the model does not know, where it has one."""

    def rows(self, job: Job) -> list[Ids]:
        """Return one row an input, with the model's special tokens around a text. Raises BadJob."""
        if not job.inputs:
            raise BadJob("the list of inputs is empty", "input")
        return [self._row(place, each) for place, each in enumerate(job.inputs)]

    def _row(self, place: int, given: str | tuple[int, ...]) -> Ids:
        if not given:
            raise BadJob(f"input {place} is empty", "input")
        if isinstance(given, str):
            check_length(given, self._max_tokens, "input")
            ids: Ids = self._tokenizer.encode(given).ids
        else:
            ids = given
        if len(ids) > self._max_tokens:
            raise BadJob(f"input {place} has {len(ids)} tokens; the model takes at most {self._max_tokens}", "input")
        if not isinstance(given, str):
            check_range(ids, self._vocabulary, "input")
        return ids


class PromptEncoder:
    """Turns chat and completion jobs into the token ids that a generation starts from."""

    def __init__(self, tokenizer: Tokenizer, manifest: Manifest, prompt: Prompt) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._context = manifest.max_tokens
        self._vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
        before, after = prompt.question.split("{text}")
        self._before, self._after = self._trusted(before), self._trusted(after)

    def chat(self, messages: Sequence[Message]) -> list[int]:
        """Put the last user message into the model's template; a special token in it is plain text. Raises BadJob."""
        text = next((message.content for message in reversed(messages) if message.role == "user"), None)
        if text is None:
            raise BadJob("there is no message with the role user", "messages")
        check_length(text, self._context, "messages")
        if not text.strip():
            raise BadJob("the last user message is empty", "messages")
        self._tokenizer.encode_special_tokens = True
        try:
            question = self._tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = False
        return self._fitting([*self._before, *question, *self._after], "messages")

    def completion(self, prompt: str | tuple[int, ...] | None) -> list[int]:
        """Take the prompt as it is, special tokens included. Raises BadJob."""
        if not prompt:
            raise BadJob("the prompt is empty", "prompt")
        if isinstance(prompt, str):
            check_length(prompt, self._context, "prompt")
            return self._fitting(self._trusted(prompt), "prompt")
        ids = self._fitting(list(prompt), "prompt")
        check_range(ids, self._vocabulary, "prompt")
        return ids

    def _trusted(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _fitting(self, ids: list[int], param: str) -> list[int]:
        if not ids:
            raise BadJob("the prompt holds nothing that the model's tokenizer knows", param)
        if len(ids) >= self._context:
            raise BadJob(
                f"the prompt has {len(ids)} tokens; the model's context of {self._context} leaves room for "
                f"{self._context - 1} and an answer",
                param,
            )
        return ids


def check_length(text: str, max_tokens: int, param: str) -> None:
    """Raise BadJob for a text that is too long to be worth counting its tokens."""
    most = max_tokens * _MOST_CHARS_PER_TOKEN
    if len(text) > most:
        raise BadJob(f"the text has {len(text)} characters; a model of {max_tokens} tokens reads at most {most}", param)


def check_range(ids: Ids, vocabulary: int, param: str) -> None:
    """Raise BadJob for the first id that no token has."""
    for each in ids:
        if not 0 <= each < vocabulary:
            raise BadJob(f"token id {each} is out of range; the model has 0 to {vocabulary - 1}", param)


def pad(rows: Sequence[Ids]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask, both (rows, longest row), padded on the right with 0."""
    width = max(map(len, rows))
    ids = np.zeros((len(rows), width), np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : len(row)] = 1
    return ids, mask
