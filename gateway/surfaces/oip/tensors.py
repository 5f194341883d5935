"""Tensors between a wire and the canonical bytes: what a datatype is, and JSON to bytes and back.

A tensor's size is checked against what the client sent before anything is made of its size. Knows no transport.
"""

import json
import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson

from backends.contract import Tensor
from gateway.errors import InvalidRequest
from gateway.fields import refuse

BYTES = "BYTES"
LENGTH_BYTES = 4
# Strings are counted one by one while everybody else waits.
MAX_STRINGS = 2**20
_MAX_RANK = 64
_MAX_NAME = 256
_MAX_SIZE = 2**63 - 1

NUMPY: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
"""The datatypes whose elements JSON can write, as numpy knows them."""

_RAW_ONLY = {"FP16": 2, "BF16": 2}
_WIDTHS = {name: dtype.itemsize for name, dtype in NUMPY.items()} | _RAW_ONLY
DATATYPES = (*_WIDTHS, BYTES)


def width(datatype: str) -> int:
    """Return the bytes of one element; 0 where they differ."""
    return _WIDTHS.get(datatype, 0)


def count(name: str, shape: Sequence[int]) -> int:
    """Return how many elements a shape has. Raises `InvalidRequest` for what no tensor can have."""
    if len(shape) > _MAX_RANK:
        raise InvalidRequest(f"input '{name}' has {len(shape)} dimensions; at most {_MAX_RANK} are allowed", "shape")
    if wrong := [size for size in shape if type(size) is not int or not 0 <= size <= _MAX_SIZE]:
        raise InvalidRequest(
            f"the shape of input '{name}' must have whole numbers from 0 to {_MAX_SIZE}, got {str(wrong[0])[:80]}",
            "shape",
        )
    elements = math.prod(shape)
    if elements > _MAX_SIZE:
        raise InvalidRequest(f"input '{name}' has a shape of more than {_MAX_SIZE} elements", "shape")
    return elements


def check_name(name: object) -> str:
    """Return a tensor's name if it is one; whatever is told of the tensor later repeats it."""
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME:
        raise refuse("name", name, f"a string of 1 to {_MAX_NAME} characters")
    return name


def check_datatype(name: str, datatype: object) -> str:
    """Return the datatype if it is one."""
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise refuse("datatype", datatype, f"one of {', '.join(DATATYPES)} for input '{name}'")
    return datatype


def from_raw(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """Take bytes that came as they are. Raises `InvalidRequest` where they are not what the shape says."""
    elements = count(name, shape)
    if datatype == BYTES:
        _check_strings(name, elements)
        found = count_strings(name, data)
        if found != elements:
            raise InvalidRequest(
                f"unexpected number of string elements {found} for inference input '{name}', expecting {elements}"
            )
    elif elements * width(datatype) != len(data):
        raise InvalidRequest(
            f"unexpected total byte size {len(data)} for input '{name}', expecting {elements * width(datatype)}"
            f" for {datatype} of shape {list(shape)}"
        )
    return Tensor(name, datatype, tuple(shape), data)


def _check_strings(name: str, elements: int) -> None:
    if elements > MAX_STRINGS:
        raise InvalidRequest(f"input '{name}' has {elements} strings; at most {MAX_STRINGS} are read at once", "shape")


def count_strings(name: str, data: bytes) -> int:
    """Count the elements of a BYTES tensor, each of which begins with its length."""
    place = found = 0
    while place < len(data) and found <= MAX_STRINGS:
        after = place + LENGTH_BYTES
        if after > len(data) or (place := after + int.from_bytes(data[place:after], "little")) > len(data):
            raise InvalidRequest(f"incomplete string data for inference input '{name}': element {found} is cut off")
        found += 1
    return found


def strings(data: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor that is well-formed."""
    found = []
    place = 0
    while place < len(data):
        after = place + LENGTH_BYTES
        place = after + int.from_bytes(data[place:after], "little")
        found.append(data[after:place])
    return found


def pack_strings(values: Sequence[bytes]) -> bytes:
    """Make the data of a BYTES tensor."""
    return b"".join([part for value in values for part in (struct.pack("<I", len(value)), value)])


def text_tensor(name: str, texts: Sequence[str]) -> Tensor:
    """Make a BYTES tensor of one dimension."""
    return Tensor(name, BYTES, (len(texts),), pack_strings([text.encode() for text in texts]))


def from_json(name: str, datatype: str, shape: Sequence[int], data: object) -> Tensor:
    """Read JSON values, nested as the shape says or flat. Raises `InvalidRequest`."""
    if datatype in _RAW_ONLY:
        raise InvalidRequest(
            f"the data of input '{name}' is {datatype}, which JSON cannot write: send it as binary data", "data"
        )
    elements = count(name, shape)
    values = _flat(name, shape, data)
    if len(values) != elements:
        raise InvalidRequest(
            f"unable to parse 'data' of input '{name}': its shape {list(shape)} has {elements} elements,"
            f" and {len(values)} were sent",
            "data",
        )
    return from_values(name, datatype, shape, values)


def from_values(name: str, datatype: str, shape: Sequence[int], values: Sequence[Any]) -> Tensor:
    """Make a tensor of Python values, as many as its shape says. Raises `InvalidRequest` where one does not fit."""
    if datatype == BYTES:
        _check_strings(name, len(values))
    kinds = set(map(type, values))
    if datatype == BYTES:
        if not kinds <= {str, bytes}:
            raise InvalidRequest(f"the data of input '{name}' must be strings, since it is BYTES", "data")
        encoded = [value.encode() if type(value) is str else value for value in values]
        return Tensor(name, BYTES, tuple(shape), pack_strings(encoded))
    dtype = NUMPY[datatype]
    allowed = {"b": {bool, int}, "f": {int, float}}.get(dtype.kind, {int})
    if not kinds <= allowed or (dtype.kind == "b" and not set(values) <= {0, 1}):
        words = " and ".join(sorted(kind.__name__ for kind in kinds))
        raise InvalidRequest(f"the data of input '{name}' does not fit {datatype}: it holds {words}", "data")
    try:
        with np.errstate(over="ignore"):  # what is beyond FP32 becomes an infinity, as it does everywhere
            packed = np.array(values, dtype).tobytes()
    except OverflowError as error:
        raise InvalidRequest(f"the data of input '{name}' does not fit {datatype}: {error}", "data") from error
    return Tensor(name, datatype, tuple(shape), packed)


def _flat(name: str, shape: Sequence[int], data: object) -> list[Any]:
    """Return the values in row-major order. Where lists lie in lists, each must be as long as the shape says."""
    if not isinstance(data, list):
        raise refuse("data", data, f"a list for input '{name}'")
    level: list[Any] = data
    for depth, size in enumerate(shape):
        kinds = set(map(type, level))
        if list not in kinds:
            break
        if depth == 0 and len(level) != size:
            raise _unlike(name, shape)
        if kinds != {list} or depth + 1 == len(shape) or set(map(len, level)) != {shape[depth + 1]}:
            raise _unlike(name, shape)
        level = list(chain.from_iterable(level))
    return level


def _unlike(name: str, shape: Sequence[int]) -> InvalidRequest:
    return InvalidRequest(
        f"unable to parse 'data' of input '{name}': its lists are not nested as the shape {list(shape)} says", "data"
    )


def to_json(tensor: Tensor) -> orjson.Fragment:
    """Write a tensor's elements as a flat JSON list. Raises `InvalidRequest` for what JSON cannot write."""
    if tensor.datatype in _RAW_ONLY:
        raise InvalidRequest(
            f"output '{tensor.name}' is {tensor.datatype}, which JSON cannot write: ask for it with 'binary_data'"
        )
    if tensor.datatype == BYTES:
        return orjson.Fragment(_json_strings(tensor))
    values = np.frombuffer(tensor.data, NUMPY[tensor.datatype])
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        # JSON has no such numbers; these are the words that clients in Python and C++ read.
        return orjson.Fragment(json.dumps(values.tolist()))
    return orjson.Fragment(orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY))


def _json_strings(tensor: Tensor) -> bytes:
    try:
        return orjson.dumps([value.decode() for value in strings(tensor.data)])
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"output '{tensor.name}' holds bytes that are no UTF-8 text: ask for it with 'binary_data'"
        ) from error
