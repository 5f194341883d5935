"""The marks of a body are counted alike whatever its length, and wherever it is cut into pieces."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import json_marks
from gateway.json_marks import has_pair, marks_of

BODIES = st.lists(st.sampled_from([b"[", b"{", b'"', b",", b":", b" ", b"\n", b"x", b".0", b"e+"])).map(b"".join)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a body be long from the first byte, and pieces of three."""
    monkeypatch.setattr(json_marks, "_LONG_BYTES", 0)
    monkeypatch.setattr(json_marks, "_PIECE_BYTES", 3)


@given(BODIES)
def test_marks_are_counted(body: bytes) -> None:
    """Each is found as often as `bytes.count` finds it, and a name's end unless space may stand before the colon."""
    marks = marks_of(body)

    assert marks[:4] == tuple(body.count(mark) for mark in (b"[", b"{", b'"', b","))
    if re.search(rb"\s:", body):
        assert marks.named is None
    else:
        assert marks.named == len(re.findall(rb'"\s*:', body))


@given(BODIES, st.sampled_from([b".0", b"e+", b'":']))
def test_a_pair_is_found(body: bytes, pair: bytes) -> None:
    """As `in` finds it."""
    assert has_pair(body, pair) == (pair in body)
