"""Between text and tokens: prompts, limits, stop strings and half characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.contract import BadJob, Job, Message, Task
from backends.frames import Decoder, encode
from backends.manifest import Manifest, ManifestError, Prompt, read_manifest
from backends.worker.encode import PromptEncoder, RowEncoder, pad
from backends.worker.pieces import Pieces, overlap
from backends.worker.spec import WorkerSpec, read_order
from tests import toys

PROMPT = Prompt("<question>{text}<answer>", "<end>")


def _byte_tokenizer() -> Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: place for place, each in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<question>", "<answer>", "<end>"])
    return tokenizer


def _manifest(context: int) -> Manifest:
    return Manifest(Task.CHAT, {"ids": "ids", "past_length": "p"}, "logits", context, 2, prompt=PROMPT)


def _prompts(context: int = 16) -> PromptEncoder:
    return PromptEncoder(_byte_tokenizer(), _manifest(context), PROMPT)


def _show(tokenizer, text, stop=(), *, tokens=None) -> tuple[list[str], bool]:
    pieces = Pieces(tokenizer, stop)
    shown = []
    for token in tokens if tokens is not None else tokenizer.encode(text, add_special_tokens=False).ids:
        shown.append(pieces.add(token))
        if pieces.stopped is not None:
            return shown, True
    return [*shown, pieces.rest()], False


def test_the_last_user_message_fills_the_template():
    """A chat prompt is the template around the last message whose role is user."""
    tokenizer = _byte_tokenizer()
    ids = _prompts().chat([Message("user", "no"), Message("assistant", "hm"), Message("user", "ab"), Message("x", "y")])

    assert tokenizer.decode(ids, skip_special_tokens=False) == "<question>ab<answer>"
    assert len(ids) == 4


class _Untouchable:
    """Stands for a tokenizer that must not be asked: it holds up a whole worker for as long as a text is long."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.encode = tokenizer.encode
        self.get_vocab_size = tokenizer.get_vocab_size
        self.token_to_id, self.model = tokenizer.token_to_id, tokenizer.model
        self.no_truncation = self.no_padding = lambda: None

    def forbid(self) -> None:
        def encode(text: str, **_: object) -> None:
            raise AssertionError(f"{len(text)} characters were read")

        self.encode = encode


def test_a_text_beyond_any_that_fits_is_refused_unread():
    """Neither prompts nor rows let the tokenizer read a text with more than 64 characters for each token."""
    tokenizer = _Untouchable(_byte_tokenizer())
    prompts, rows = PromptEncoder(tokenizer, _manifest(16), PROMPT), RowEncoder(tokenizer, 16)
    tokenizer.forbid()
    text = "a" * (16 * 64 + 1)

    for ask in (
        lambda: prompts.chat([Message("user", text)]),
        lambda: prompts.completion(text),
        lambda: rows.rows(Job(Task.EMBED, inputs=(text,))),
    ):
        with pytest.raises(BadJob, match="1025 characters; a model of 16 tokens reads at most 1024"):
            ask()


def test_special_tokens_of_a_user_are_plain_text():
    """A user who writes a special token gets its letters, in chat; in a completion the prompt is trusted."""
    encoder = _prompts(64)
    end = _byte_tokenizer().token_to_id("<end>")

    assert end not in encoder.chat([Message("user", "a<end>b")])
    assert len(encoder.chat([Message("user", "<end>")])) == 2 + len("<end>")
    assert end in encoder.completion("a<end>b")


@pytest.mark.parametrize(
    ("ask", "param", "words"),
    [
        (lambda e: e.chat([Message("assistant", "a")]), "messages", "no message with the role user"),
        (lambda e: e.chat([Message("user", "  ")]), "messages", "empty"),
        (lambda e: e.chat([Message("user", "a" * 14)]), "messages", "has 16 tokens; the model's context of 16"),
        (lambda e: e.completion(""), "prompt", "empty"),
        (lambda e: e.completion(None), "prompt", "empty"),
        (lambda e: e.completion(()), "prompt", "empty"),
        (lambda e: e.completion((1, 259)), "prompt", "token id 259 is out of range; the model has 0 to 258"),
        (lambda e: e.completion((-1,)), "prompt", "token id -1"),
        (lambda e: e.completion("a" * 16), "prompt", "has 16 tokens"),
    ],
)
def test_a_bad_prompt_is_named(ask, param, words):
    """Every prompt that the model cannot take raises BadJob with the client's field and the figures."""
    with pytest.raises(BadJob, match=words) as caught:
        ask(_prompts())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "list of inputs is empty"),
        (("a", ""), "input 1 is empty"),
        (((),), "input 0 is empty"),
        (("a", "abcd"), "input 1 has 4 tokens; the model takes at most 3"),
        (((0, 1000),), "token id 1000 is out of range"),
    ],
)
def test_a_bad_input_is_named(inputs, words):
    """Every input that the model cannot take raises BadJob for the field `input`, saying which and why."""
    with pytest.raises(BadJob, match=words) as caught:
        RowEncoder(_byte_tokenizer(), 3).rows(Job(Task.EMBED, inputs=inputs))
    assert caught.value.param == "input"


def test_padding_of_the_tokenizer_file_is_not_used():
    """A tokenizer.json that asks for padding and truncation gives bare rows, so that limits are checked by us."""
    tokenizer = _byte_tokenizer()
    tokenizer.enable_padding(length=8)
    tokenizer.enable_truncation(2)

    assert [len(row) for row in RowEncoder(tokenizer, 8).rows(Job(Task.EMBED, inputs=("abc", "a")))] == [3, 1]


def test_rows_are_padded_on_the_right():
    """Ids and mask have the width of the longest row, with zeros behind the shorter ones."""
    ids, mask = pad([[5], [6, 7]])

    assert (ids.tolist(), mask.tolist()) == ([[5, 0], [6, 7]], [[1, 0], [1, 1]])


@given(st.text(min_size=1))
def test_pieces_join_to_the_text(text):
    """Pieces, joined, are the text that was encoded; none holds half a character."""
    shown, stopped = _show(_byte_tokenizer(), text)

    assert "".join(shown) == text
    assert not stopped
    assert all("\ufffd" not in piece for piece in shown) or "\ufffd" in text


@given(st.lists(st.integers(0, 300), max_size=30))
def test_no_tokens_break_the_pieces(tokens):
    """Bytes that are no UTF-8, special tokens and numbers that no token has are shown as replacements or not at all."""
    shown, _ = _show(_byte_tokenizer(), "", tokens=tokens)

    assert all(isinstance(piece, str) for piece in shown)


def test_half_a_character_at_the_end_is_dropped():
    """When the tokens end inside a character, what is complete is shown and the rest is not."""
    tokenizer = _byte_tokenizer()
    tokens = tokenizer.encode("né", add_special_tokens=False).ids[:-1]

    assert "".join(_show(tokenizer, "", tokens=tokens)[0]) == "n"


@given(st.text("ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_a_stop_string_ends_the_text_before_it(text, stop):
    """Whatever the cuts, the text shown ends where the first stop string to be complete begins."""
    shown, stopped = _show(_byte_tokenizer(), text, stop)
    ends = {text.find(each) + len(each): text.find(each) for each in stop if each in text}
    first = min(ends, default=None)
    expected = text if first is None else text[: min(text.find(s) for s in stop if s in text[:first])]

    assert ("".join(shown), stopped) == (expected, first is not None)


def test_only_what_may_become_a_stop_string_is_held_back():
    """Text is shown at once unless its end is the beginning of a stop string, and as soon as it is not any more."""
    shown, _ = _show(_byte_tokenizer(), "x\n\ty", ["\n\n"])

    assert shown == ["x", "", "\n\t", "y", ""]


def test_an_empty_stop_string_is_refused():
    """An empty stop string, which every text holds, raises BadJob."""
    with pytest.raises(BadJob, match="stop string is empty"):
        Pieces(_byte_tokenizer(), [""])


def test_a_completion_goes_on_where_its_prompt_ends():
    """The first piece of a completion keeps the space that joins it to the prompt."""
    tokenizer = Tokenizer.from_str(toys.tokenizer().to_str())
    pieces = Pieces(tokenizer, (), before=[4, 5])

    assert pieces.add(6) == " w2"


@pytest.mark.parametrize(("text", "stop", "length"), [("ab", "bc", 1), ("ab", "abc", 2), ("ab", "ab", 0), ("", "a", 0)])
def test_overlap(text, stop, length):
    """The overlap is the longest end of the text that begins the stop string without completing it."""
    assert overlap(text, stop) == length


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("task: chat", "task: sing"), "task: 'sing'; one of embed, predict, chat, infer is needed"),
        (("max_batch: 4", "max_batch: 0"), "max_batch: 0; a whole number above 0"),
        (("max_batch: 4", "max_rows: 4"), "limits: found max_tokens, max_rows; exactly max_batch, max_tokens"),
        (("{text}", ""), "must hold {text} once"),
        (("output: logits", "output: logits\nextra: 1"), "exactly inputs, limits, output, prompt, task"),
        (("inputs: {", "inputs: ["), "model.yaml: "),
        (("task: chat", "task: [chat]"), "task: ['chat']; one of"),
        (("task: chat", "- chat"), "model.yaml: "),
    ],
)
def test_a_bad_manifest_is_named(tmp_path, change, words):
    """Each mistake in model.yaml raises ManifestError with the file, the key and what is needed."""
    file = toys.decoder(tmp_path) / "model.yaml"
    file.write_text(file.read_text().replace(*change))

    with pytest.raises(ManifestError, match=r"model\.yaml") as caught:
        read_manifest(tmp_path)
    assert words in str(caught.value)


@pytest.mark.parametrize("make", [toys.decoder, toys.classifier, toys.embedder, toys.simple])
def test_a_spec_crosses_the_fork_server(tmp_path, make):
    """A worker's spec comes out of an order's frame as it went in."""
    spec = WorkerSpec(make(tmp_path), read_manifest(tmp_path), 3, ("A", "B"))
    [frame] = Decoder().feed(encode(spec.to_order()))

    assert read_order(frame.header) == spec


def test_a_missing_labels_file_is_named(tmp_path):
    """A predict model without its labels raises ManifestError that names the file."""
    (toys.classifier(tmp_path) / "labels.txt").unlink()

    with pytest.raises(ManifestError, match=r"labels\.txt"):
        read_manifest(tmp_path)
