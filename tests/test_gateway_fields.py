"""JSON bodies that are more than they seem."""

import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.fields import parse_object

MOST = 2**17


def test_more_objects_than_are_read() -> None:
    """A body of very many small objects is refused before it is made into objects."""
    with pytest.raises(InvalidRequest, match=f"more than {MOST} objects and lists"):
        parse_object(b'{"a":[' + b"{}," * (MOST - 2) + b"{}]}")

    assert len(parse_object(b'{"a":[' + b"{}," * (MOST - 3) + b"{}]}")["a"]) == MOST - 2


@pytest.mark.parametrize(
    ("value", "many", "what"),
    [(b"1", 2**22, "4194304 values"), (b'""', 2**20, "1048576 strings"), (b'"":1', 2**20, "1048576 strings")],
)
def test_more_values_than_are_read(value: bytes, many: int, what: str) -> None:
    """So is one of very many numbers or strings, be they fields or entries."""
    fields = value.endswith(b":1")
    before, after = (b"{", b"}") if fields else (b'{"a":[', b"]}")
    names = 0 if fields else 1  # the list's own name is a string too
    allowed = many if value == b"1" else many - names

    values = [b'"%d":1' % place for place in range(allowed)] if fields else [value] * allowed

    assert parse_object(before + b",".join(values) + after)
    with pytest.raises(InvalidRequest, match=f"more than {what}"):
        parse_object(before + b",".join([*values, value]) + after)


def test_commas_within_strings_are_text() -> None:
    """They part no values."""
    text = '",' * 2**22

    assert parse_object(orjson.dumps({"a": text})) == {"a": text}


def test_brackets_within_strings_are_text() -> None:
    """A long text of brackets, quotes and backslashes is read as it was written."""
    text = '{["\\' * MOST

    assert parse_object(orjson.dumps({"a": text})) == {"a": text}


@pytest.mark.parametrize("tail", [b'"', b'\\"', b'"\\', b"\\", b'{"'])
def test_time_to_count_grows_with_the_length_alone(tail: bytes) -> None:
    """A body that is no JSON takes about four times as long as a quarter of it."""
    seconds = []
    for size in (MOST, 4 * MOST):
        body = b'{"a":"' + b"{" * (MOST + 1) + tail * size
        started = time.process_time()
        with pytest.raises(InvalidRequest):
            parse_object(body)
        seconds.append(time.process_time() - started)

    assert seconds[1] < 0.1 + 10 * seconds[0]


@given(value=st.recursive(st.text() | st.integers(-(2**63), 2**63 - 1), st.lists, max_leaves=5))
def test_what_is_read_is_what_was_written(value: object) -> None:
    """Any value that JSON has comes out as it went in."""
    assert parse_object(orjson.dumps({"a": value})) == {"a": value}
