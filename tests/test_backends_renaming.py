"""Renaming the model in a client's own bytes: the name changes, and nothing else does."""

import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import BadJob
from backends.renaming import renamed

JSON = "application/json"
FORM = 'multipart/form-data; boundary="b-1"'


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model":"a"}', b'{"model":"new"}'),
        (b' { "x" : [{"model":"a"}, "model", ":"] , "model" : "a" , "y":{"model":"a"}}',
         b' { "x" : [{"model":"a"}, "model", ":"] , "model" : "new" , "y":{"model":"a"}}'),
        (b'{"n": 18446744073709551616000, "f": 1.0, "e": 1e400, "model": "a", "n": 1}',
         b'{"n": 18446744073709551616000, "f": 1.0, "e": 1e400, "model": "new", "n": 1}'),
        (b'{"model": "a", "model": "b"}', b'{"model": "new", "model": "new"}'),
        (b'{"mod\\u0065l": "a", "x": "\\"model\\": \\"a\\""}', b'{"mod\\u0065l": "new", "x": "\\"model\\": \\"a\\""}'),
        (b'{"a": "model", "model": "c"}', b'{"a": "model", "model": "new"}'),
        (b'{"a": "x\\"model", "model": "c"}', b'{"a": "x\\"model", "model": "new"}'),
        (b'{"model": null, "x": "a"}', b'{"model": null, "x": "a"}'),
        (b'{"model": {"model": "a"}}', b'{"model": {"model": "a"}}'),
    ],
)  # fmt: skip
def test_only_the_top_level_name_changes(body, expected):
    """Nested fields, other values, duplicate keys, large numbers and spaces stay as they came."""
    assert renamed(body, JSON, "new") == expected


def test_a_body_that_has_the_name_is_not_even_copied():
    """The usual case costs a look."""
    body = b'{"model":"same","messages":[]}'
    assert renamed(body, JSON, "same") is body


def test_an_endless_string_takes_no_endless_time():
    """A quote that is never closed is read once."""
    assert renamed(b'{"' + b"a" * 100_000, JSON, "new").startswith(b'{"a')


MANY = 2**17


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"model":"a","x":[""' + b',""' * MANY + b'],"model":"b"}', b'"model":"new"}'),
        (b'{"x":[1' + b',{"model":"a"}' * MANY + b'],"mod\\u0065l":"a"}', b'"mod\\u0065l":"new"}'),
        (b'{"model":"a","x":"' + rb"\\\"" * MANY + b'","model":"b"}', b'"model":"new"}'),
    ],
)
def test_a_large_body_takes_no_step_for_each_string(before, after):
    """A hundred thousand strings are gone through in few steps of Python's, wherever the key comes again."""
    steps = 0

    def count(_frame: object, _event: str, _arg: object) -> Any:
        nonlocal steps
        steps += 1
        return count

    sys.settrace(count)
    try:
        found = renamed(before, JSON, "new")
    finally:
        sys.settrace(None)
    assert found.endswith(after)
    assert len(found) - len(before) in (2, 4)
    assert steps < 10_000


def test_a_body_of_endless_fields_is_refused():
    """No request has so many, and each of them may be the model's key."""
    with pytest.raises(BadJob, match="more than 16384 fields"):
        renamed(b'{"model":"a"' + b',"model":"a"' * 2**14 + b"}", JSON, "new")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.sampled_from(["model", '"model":"x"']),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("model"), inner),
)


@given(
    st.dictionaries(st.text() | st.just("model"), VALUES),
    st.text() | st.sampled_from(["model", 'a"model":"b', "\\"]),
    st.text(min_size=1),
    st.booleans(),
    st.randoms(),
)
def test_the_object_is_the_same_but_for_the_name(fields, old, name, indented, random):
    """Whatever the other fields are, and wherever it stands: `model` is the new one, and all else is equal."""
    keys = [*fields.keys() - {"model"}, "model"]
    random.shuffle(keys)
    fields = {key: old if key == "model" else fields[key] for key in keys}
    body = orjson.dumps(fields, option=orjson.OPT_INDENT_2 if indented else None)
    assert orjson.loads(renamed(body, JSON, name)) == {**fields, "model": name}


def form(*parts: bytes) -> bytes:
    """Build a form of whole parts."""
    return b"".join(b"--b-1\r\n" + part + b"\r\n" for part in parts) + b"--b-1--\r\n"


FILE = (
    b'Content-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav\r\n\r\n'
    b"\x00model\r\n--b\r\n"
)


@pytest.mark.parametrize(
    "head", [b'Content-Disposition: form-data; name="model"', b"content-disposition:form-data;name=model"]
)
def test_the_field_of_a_form_changes(head):
    """Its content is exchanged; files and other fields stay."""
    before = form(FILE, head + b"\r\n\r\nwhisper-1", b'Content-Disposition: form-data; name="x"\r\n\r\nmodel')
    assert renamed(before, FORM, "näher") == before.replace(b"whisper-1", "näher".encode())


def test_a_part_with_endless_headers_stays():
    """Nor does the gateway itself take it for a field; its headers are not even read."""
    head = b'Content-Disposition: form-data; name="model"\r\n' + b"a: b\r\n" * 1000
    body = form(head + b"\r\nwhisper-1")
    assert renamed(body, FORM, "new") == body


@pytest.mark.parametrize("body", [form(FILE), b"", b"--b-1--", b"no form"])
def test_a_form_without_the_field_stays(body):
    """There is nothing to rename."""
    assert renamed(body, FORM, "new") == body
    assert renamed(body, "multipart/form-data", "new") == body
