"""Reads the safetensors format: the header's length, a JSON header, raw tensors. Knows nothing of what they mean."""

import json
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]

_DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "|u1"}
_LENGTH_BYTES = 8


def read_safetensors(data: bytes | memoryview) -> dict[str, Array]:
    """Return every tensor by name, as a read-only view into `data`, which the views keep alive.

    Raises ValueError where the bytes are no safetensors file, or where a tensor has a type that is not read here.
    """
    view = memoryview(data).toreadonly()
    header, start = _header(view)
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    return {name: _tensor(name, entry, view[start:]) for name, entry in tensors.items()}


def _header(view: memoryview) -> tuple[dict[str, object], int]:
    """Return the parsed header, and where the tensors begin."""
    if len(view) < _LENGTH_BYTES:
        raise ValueError(f"safetensors: {len(view)} bytes, at least {_LENGTH_BYTES} are needed")
    end = _LENGTH_BYTES + int.from_bytes(view[:_LENGTH_BYTES], "little")
    if end > len(view):
        raise ValueError(f"safetensors: the header should end at byte {end}, the data ends at {len(view)}")
    try:
        header = json.loads(bytes(view[_LENGTH_BYTES:end]))
    except ValueError as error:
        raise ValueError(f"safetensors: the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"safetensors: the header is a JSON {type(header).__name__}, not an object")  # noqa: TRY004
    return header, end


def _tensor(name: str, entry: object, body: memoryview) -> Array:
    match entry:
        case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(begin), int(end)]} if _are_sizes(shape):
            pass
        case _:
            raise ValueError(f"safetensors: tensor {name!r} lacks a dtype, shape or data_offsets: {entry!r}")
    if kind not in _DTYPES:
        raise ValueError(f"safetensors: tensor {name!r} has type {kind}; read are {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[kind])
    if not 0 <= begin <= end <= len(body) or end - begin != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"safetensors: tensor {name!r} of shape {shape} and type {kind} cannot lie at {begin}..{end}")
    return np.frombuffer(body[begin:end], dtype).reshape(shape)


def _are_sizes(shape: list[object]) -> bool:
    return all(isinstance(size, int) and size >= 0 for size in shape)


def floats(tensors: Mapping[str, Array], name: str) -> npt.NDArray[np.float32]:
    """Return one tensor as float32. Raises KeyError with the name where it is missing."""
    return tensors[name].astype(np.float32, copy=False)
