"""JSON that names a field twice is refused, however it is written; all other JSON is taken."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.fields import parse_object

# What looks like the end of a name, or hides one.
TEXTS = st.text(st.sampled_from('":\\ \n{}[],a'), max_size=6) | st.text(max_size=3)
JSON = st.recursive(
    st.none() | st.integers(-5, 5) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)
OBJECTS = st.dictionaries(TEXTS, JSON, max_size=4)
SPACES = st.text(st.sampled_from(" \t\r\n"), max_size=2)


class Pairs(list[tuple[str, Any]]):
    """An object with its names as they are written."""


def written(value: object, space: str) -> str:
    """Write JSON with space wherever it may be."""
    match value:
        case Pairs():
            inner = ",".join(f"{space}{json.dumps(name)}{space}:{written(each, space)}" for name, each in value)
            return f"{space}{{{inner}}}{space}"
        case dict():
            return written(Pairs(value.items()), space)
        case list():
            return f"{space}[{','.join(written(each, space) for each in value)}]{space}"
    return f"{space}{json.dumps(value)}{space}"


@given(OBJECTS, SPACES)
@example({"a\\": "b", "c": 'the end is \\":'}, "")
@example({"arguments": '{"a": 1, "b" : 2}'}, " ")
def test_names_that_are_there_once_are_taken(value, space):
    """Whatever its texts look like, JSON without a name twice is read as it is."""
    assert parse_object(written(value, space).encode()) == value
    assert parse_object(orjson.dumps(value)) == value


@given(value=OBJECTS, name=TEXTS, both=st.tuples(JSON, JSON), space=SPACES, within=st.booleans())
@example(value={"a\\": 1, "b": 2}, name="b", both=(1, 2), space="", within=False)
@example(value={"x": '{"a": 1}'}, name="x", both=('{"a": 1}', 2), space="", within=False)
def test_a_name_that_is_there_twice_is_refused(value, name, both, space, within):
    """So is one deep within; the message names it."""
    rest = [(key, each) for key, each in value.items() if key != name]
    twice = Pairs([(name, both[0]), *rest, (name, both[1])])
    body = written(Pairs([("outer", [twice])]) if within else twice, space)

    with pytest.raises(InvalidRequest, match="more than once"):
        parse_object(body.encode())


def test_a_name_in_other_letters_is_the_same_name():
    r"""`\u0061` is `a`."""
    with pytest.raises(InvalidRequest, match="'a' more than once"):
        parse_object(rb'{"a": 1, "\u0061": 2}')


def test_very_many_names_are_looked_through_once():
    """A late second one is found as fast as an early one."""
    names = ",".join(f'"{place}":0' for place in range(200_000))
    with pytest.raises(InvalidRequest, match="'199999' more than once"):
        parse_object(f'{{{names},"199999":1}}'.encode())
