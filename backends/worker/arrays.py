"""Tensors as arrays and back, and runs of a session on them. Knows the datatypes, and nothing of jobs.

A BF16 number, which numpy does not have, is its 16 bits here; an element of BYTES is a string, as the runtime has it.
"""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from backends.contract import BadJob, Tensor, TensorSpec
from backends.frames import Buffer
from backends.tensors import pack_elements, unpack_elements

Values = NDArray[Any]

_BF16_OF_ONNX = 16
_NUMPY: Mapping[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "BF16": np.uint16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}


def made_up(spec: TensorSpec) -> Values:
    """Return zeros or empty strings, one where any size is allowed."""
    shape = [1 if size == -1 else size for size in spec.shape]
    return np.full(shape, "" if spec.datatype == "BYTES" else 0, _NUMPY[spec.datatype])


def decode(tensor: Tensor) -> Values:
    """Return a tensor's elements, in its own memory where that is aligned. Its data is as long as its shape asks.

    Raises BadJob where they are none of its datatype.
    """
    flat = _strings(tensor) if tensor.datatype == "BYTES" else _numbers(tensor)
    if tensor.datatype == "BOOL" and np.any(flat.view(np.uint8) > 1):
        raise BadJob(f"input '{tensor.name}' of the datatype BOOL has bytes that are neither 0 nor 1", "inputs")
    try:
        return flat.reshape(tensor.shape)
    except (ValueError, OverflowError) as error:
        raise BadJob(f"input '{tensor.name}' has a shape that no array can have: {error}", "inputs") from error


def encode(values: Values) -> Buffer:
    """Return the data of a tensor, in the array's own memory but for strings."""
    if values.dtype == np.object_:
        return pack_elements([each.encode() for each in values.ravel()])
    return np.ascontiguousarray(values).data.cast("B") if values.size else b""


def run(
    session: ort.InferenceSession, takes: Sequence[TensorSpec], gives: Sequence[TensorSpec], feed: Mapping[str, Values]
) -> list[Values]:
    """Run a session and return the outputs `gives`. Raises what the runtime raises."""
    names = [spec.name for spec in gives]
    if all(spec.datatype != "BF16" for spec in (*takes, *gives)):
        found: list[Values] = session.run(names, feed)
        return found
    # Only values that name their own type can be BF16; bound outputs come to the host, whatever device made them.
    binding = session.io_binding()
    for spec in takes:
        kind = (_BF16_OF_ONNX,) if spec.datatype == "BF16" else ()
        make = ort.OrtValue.ortvalue_from_numpy_with_onnx_type if kind else ort.OrtValue.ortvalue_from_numpy
        binding.bind_ortvalue_input(spec.name, make(feed[spec.name], *kind))
    for name in names:
        binding.bind_output(name, "cpu")
    session.run_with_iobinding(binding)
    return list(map(_values, binding.get_outputs()))


def _numbers(tensor: Tensor) -> Values:
    return np.require(np.frombuffer(tensor.data, _NUMPY[tensor.datatype]), requirements="A")


def _strings(tensor: Tensor) -> Values:
    elements = unpack_elements(tensor.name, tensor.data, math.prod(tensor.shape))
    # As large as the data is, whatever the shape said.
    flat = np.empty(len(elements), np.object_)
    for place, each in enumerate(elements):
        try:
            flat[place] = each.decode()
        except UnicodeDecodeError as error:
            raise BadJob(
                f"element {place} of input '{tensor.name}' is not UTF-8, which this model needs", "inputs"
            ) from error
    return flat


def _values(value: ort.OrtValue) -> Values:
    if value.element_type() != _BF16_OF_ONNX:
        array: Values = value.numpy()
        return array
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, np.uint16).reshape(value.shape())
