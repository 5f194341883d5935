"""Tensors between wires and bytes: what goes in comes out, whatever it is; what does not fit is refused."""

import json
import math

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import Tensor
from gateway.errors import InvalidRequest
from gateway.surfaces.oip import tensors

SHAPES = st.lists(st.integers(0, 4), min_size=0, max_size=4)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=20,
)


def elements(datatype: str) -> st.SearchStrategy[object]:
    """Draw an element as JSON has it."""
    if datatype == "BYTES":
        return st.text(max_size=5)
    dtype = tensors.NUMPY[datatype]
    if dtype.kind == "b":
        return st.booleans()
    if dtype.kind == "f":
        return st.floats(width=64 if dtype.itemsize == 8 else 32)
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max))


@st.composite
def tensor_values(draw: st.DrawFn) -> tuple[str, list[int], list[object]]:
    """Draw a datatype, a shape and its values."""
    datatype = draw(st.sampled_from([*tensors.NUMPY, "BYTES"]))
    shape = draw(SHAPES)
    size = math.prod(shape)
    return datatype, shape, draw(st.lists(elements(datatype), min_size=size, max_size=size))


def nested(values: list[object], shape: list[int]) -> list[object]:
    """Nest a flat list as a shape says."""
    if len(shape) < 2:
        return values
    step = math.prod(shape[1:])
    return [nested(values[row * step : (row + 1) * step], shape[1:]) for row in range(shape[0])]


@pytest.mark.parametrize("shape", [[1, [1]], [1, {}], [1, "1"], [1, None], [1, 2.0], [1, True]])
def test_a_shape_of_other_things_than_sizes_is_refused(shape):
    """Whatever lies in it, before the data is held against it."""
    with pytest.raises(InvalidRequest, match="whole numbers") as caught:
        tensors.from_json("x", "FP32", shape, [[1, 2]])
    assert caught.value.param == "shape"


@given(tensor_values())
def test_json_goes_in_and_comes_out(drawn):
    """Flat or nested, the values of a tensor are the same bytes, and the bytes the same values."""
    datatype, shape, values = drawn
    flat = tensors.from_json("x", datatype, shape, values)

    assert tensors.from_json("x", datatype, shape, nested(values, shape)) == flat
    assert tensors.from_raw("x", datatype, shape, flat.data) == flat
    written = json.loads(orjson.dumps(tensors.to_json(flat)))
    again = tensors.from_json("x", datatype, shape, written)
    if datatype.startswith("FP"):  # not a number has many forms, of which JSON knows one
        one, other = (np.frombuffer(each.data, tensors.NUMPY[datatype]) for each in (flat, again))
        np.testing.assert_array_equal(one, other)
    else:
        assert again == flat


@given(
    st.sampled_from(tensors.DATATYPES),
    st.lists(st.integers(-(2**70), 2**70), max_size=70) | SHAPES,
    JSON_VALUES,
)
def test_any_json_is_read_or_refused(datatype, shape, data):
    """Whatever stands for data, it is a tensor of that size or an error of the client's, never another error."""
    try:
        tensor = tensors.from_json("x", datatype, shape, data)
    except InvalidRequest:
        return
    assert tensors.from_raw("x", datatype, shape, tensor.data) == tensor


@given(st.sampled_from(tensors.DATATYPES), SHAPES, st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(datatype, shape, data):
    """Bytes are taken where they are as many as the shape says, and refused otherwise."""
    try:
        tensor = tensors.from_raw("x", datatype, shape, data)
    except InvalidRequest:
        return
    if datatype == "BYTES":
        assert len(tensors.strings(data)) == math.prod(shape)
        assert tensors.pack_strings(tensors.strings(data)) == data
    else:
        assert len(data) == tensors.width(datatype) * math.prod(shape)
    assert tensor.data == data


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_are_bytes_only(datatype):
    """JSON has no form for half precision: its data is refused there in both directions."""
    assert tensors.from_raw("x", datatype, [2], b"\x00<\x00<").data == b"\x00<\x00<"
    with pytest.raises(InvalidRequest, match="binary"):
        tensors.from_json("x", datatype, [1], [1.0])
    with pytest.raises(InvalidRequest, match="binary_data"):
        tensors.to_json(Tensor("x", datatype, (1,), b"\x00<"))


def test_a_number_too_large_for_its_float_is_infinite():
    """What FP32 cannot hold becomes an infinity, as it does in every conversion."""
    assert np.frombuffer(tensors.from_json("x", "FP32", [1], [1e300]).data, "<f4").tolist() == [math.inf]


def test_strings_are_bounded():
    """More strings than are counted at once are refused before they are."""
    many = tensors.MAX_STRINGS + 1
    with pytest.raises(InvalidRequest, match="at most"):
        tensors.from_raw("x", "BYTES", [many], b"\x00\x00\x00\x00" * many)
