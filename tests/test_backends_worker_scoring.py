"""Log probabilities: the tokens' bytes join to the text, and each entry comes with the text that it stands for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.worker.pieces import Pieces
from backends.worker.scoring import LEAST, Scores, TokenBytes
from tests import toys


def byte_tokenizer() -> Tokenizer:
    """Make a tokenizer with one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({each: place for place, each in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    return tokenizer


BYTES = byte_tokenizer()
FLAT = np.zeros(BYTES.get_vocab_size(with_added_tokens=True), np.float32)


def fallback_tokenizer() -> Tokenizer:
    """Make a tokenizer that falls back to bytes, as those of Llama's first two generations do."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁a", "b"]
    tokenizer = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


@given(st.text(max_size=20))
def test_bytes_join_to_the_text(text):
    """The bytes of the tokens of any text, one after the other, are the text's, though single ones may be none."""
    ids = BYTES.encode(text, add_special_tokens=False).ids
    known = TokenBytes(BYTES)

    assert b"".join(known.of(each, None) for each in ids) == text.encode()


@pytest.mark.parametrize(
    ("tokenizer", "token", "before", "expected"),
    [
        (BYTES, BYTES.token_to_id("<end>"), None, b"<end>"),
        (fallback_tokenizer(), 1 + 0xE2, None, b"\xe2"),
        (fallback_tokenizer(), 257, None, b" a"),
        (fallback_tokenizer(), 258, 257, b"b"),
        (toys.tokenizer(), toys.VOCABULARY["w1"], None, b"w1"),
        (toys.tokenizer(), toys.VOCABULARY["w1"], toys.VOCABULARY["w2"], b" w1"),
        (toys.tokenizer(), 10_000, None, b""),
    ],
)
def test_each_kind_of_vocabulary_has_its_bytes(tokenizer, token, before, expected):
    """Byte letters, byte tokens, special tokens and words after another give what they add to a text."""
    assert TokenBytes(tokenizer).of(token, before) == expected


def test_a_token_is_told_with_its_probability_and_its_rivals():
    """The entry has the logarithm of the softmax, and the likeliest tokens in order."""
    logits = FLAT - 50
    logits[:3] = np.log([0.2, 0.5, 0.3])
    scores = Scores(TokenBytes(BYTES), 2, ())
    scores.add(0, logits, 0)
    [entry] = scores.told(1)
    names = [BYTES.decode([token]) for token in range(3)]

    assert (entry["token"], entry["bytes"]) == (names[0], list(names[0].encode()))
    assert entry["logprob"] == pytest.approx(math.log(0.2), abs=1e-6)
    assert [each["token"] for each in entry["top_logprobs"]] == [names[1], names[2]]
    assert entry["top_logprobs"][0]["logprob"] == pytest.approx(math.log(0.5), abs=1e-6)


def test_no_probability_at_all_is_a_number():
    """A token whose logit is minus infinity has the least log probability that JSON is given."""
    logits = FLAT.copy()
    logits[3] = -np.inf
    scores = Scores(TokenBytes(BYTES), 0, ())
    scores.add(3, logits, 0)

    assert scores.told(None)[0]["logprob"] == LEAST


def shown(tokens, stop=()) -> list[tuple[str, bytes]]:
    """Feed tokens as a generation does; return each piece with the bytes of the entries that came with it."""
    pieces, scores, steps = Pieces(BYTES, stop), Scores(TokenBytes(BYTES), 0, ()), []
    for place, token in enumerate(tokens):
        scores.add(token, FLAT, pieces.decoded)
        piece = pieces.add(token)
        over = pieces.stopped is not None or place == len(tokens) - 1
        piece += pieces.rest() if over else ""
        entries = scores.told(None if over and pieces.stopped is None else pieces.shown)
        steps.append((piece, bytes(byte for entry in entries for byte in entry["bytes"])))
        if over:
            break
    return steps


@given(st.text("aé☃", min_size=1, max_size=8), st.lists(st.sampled_from(["é", "a☃", "aa"]), max_size=2))
def test_entries_come_with_their_text(text, stop):
    """Whatever the cuts and stop strings, the entries' bytes are those of the piece that they came with."""
    for piece, data in shown(BYTES.encode(text, add_special_tokens=False).ids, stop):
        assert data == piece.encode()


def test_tokens_of_half_a_character_are_told_at_the_end():
    """When the text ends inside a character, its tokens are told all the same: they were made and are counted."""
    assert shown(BYTES.encode("a☃", add_special_tokens=False).ids[:-1]) == [("a", b"a"), ("", b""), ("", b"\xe2\x98")]
