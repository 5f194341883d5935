"""Tensors of the Open Inference Protocol: datatypes, elements of BYTES, and whether a job's tensors are a model's.

Knows neither the wire that they came over nor the runtime that takes them.
"""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence

from backends.contract import BadJob, Job, Tensor, TensorSpec

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""The size of one element of each datatype, but for BYTES, whose elements have any."""
DATATYPES = (*ITEM_BYTES, "BYTES")

# A worker reads about two million a second, and meanwhile nobody else's job.
MOST_TEXTS = 2**20

_LENGTH = struct.Struct("<I")
_BATCH_NOTE = "; the first dimension is the batch"


def pack_elements(elements: Iterable[bytes]) -> bytes:
    """Return the data of a BYTES tensor: each element behind its length."""
    return b"".join([part for each in elements for part in (_LENGTH.pack(len(each)), each)])


def unpack_elements(name: str, data: bytes | memoryview, count: int) -> list[bytes]:
    """Return the `count` elements of a BYTES tensor's data. Raises BadJob where the data is not exactly those."""
    elements: list[bytes] = []
    view, place, end = memoryview(data), 0, len(data)
    while place < end and len(elements) <= count:
        if end - place < _LENGTH.size:
            raise _bad(
                f"incomplete string length indicator for inference input '{name}', expecting 4 bytes but only "
                f"{end - place} bytes available"
            )
        (length,) = _LENGTH.unpack_from(view, place)
        place += _LENGTH.size
        if length > end - place:
            raise _bad(
                f"incomplete string data for inference input '{name}', expecting string of length {length} but only "
                f"{end - place} bytes available"
            )
        elements.append(bytes(view[place : place + length]))
        place += length
    if len(elements) != count or place < end:
        found = f"{len(elements)}{' or more' if place < end else ''}"
        raise _bad(f"unexpected number of string elements {found} for inference input '{name}', expecting {count}")
    return elements


def check(job: Job, takes: Sequence[TensorSpec], gives: Sequence[TensorSpec], max_batch: int) -> None:
    """Raise BadJob, naming the tensor, where a job's are not those that a model takes and gives.

    The elements of BYTES are not looked at: that takes a time that grows with them. `max_batch` of 0 says that the
    model has no batch dimension.
    """
    _check_outputs(job.outputs, {spec.name for spec in gives})
    known = {spec.name: spec for spec in takes}
    names = [tensor.name for tensor in job.tensors]
    for place, name in enumerate(names):
        if name not in known:
            raise _bad(f"unexpected inference input '{name}'; the model takes {_listed(known)}")
        if name in names[:place]:
            raise _bad(f"input '{name}' already exists in request")
    if len(names) < len(known):
        missing = _listed(name for name in known if name not in names)
        raise _bad(f"expected {len(known)} inputs but got {len(names)} inputs; missing {missing}")
    for tensor in job.tensors:
        _check_tensor(tensor, known[tensor.name], batched=max_batch > 0)
    if max_batch > 0:
        _check_batch(job.tensors, max_batch)


def fits(shape: Sequence[int], declared: Sequence[int]) -> bool:
    """Tell whether a shape is one of those that were declared, where -1 stands for any size."""
    return len(shape) == len(declared) and all(
        size >= 0 and wanted in (-1, size) for size, wanted in zip(shape, declared, strict=True)
    )


def shown(shape: Sequence[int]) -> str:
    """Write a shape as the protocol's other servers do."""
    return f"[{','.join(map(str, shape))}]"


def _check_outputs(wanted: Sequence[str], known: set[str]) -> None:
    for place, name in enumerate(wanted):
        if name not in known:
            raise BadJob(f"unexpected inference output '{name}'; the model gives {_listed(sorted(known))}", "outputs")
        if name in wanted[:place]:
            raise BadJob(f"output '{name}' already exists in request", "outputs")


def _check_tensor(tensor: Tensor, spec: TensorSpec, *, batched: bool) -> None:
    name, shape = tensor.name, tensor.shape
    if tensor.datatype != spec.datatype:
        raise _bad(
            f"inference input '{name}' data-type is '{tensor.datatype}', but the model expects '{spec.datatype}'"
        )
    if not fits(shape, spec.shape):
        note = _BATCH_NOTE if batched else ""
        raise _bad(f"unexpected shape for input '{name}'. Expected {shown(spec.shape)}, got {shown(shape)}{note}")
    elements = math.prod(shape)
    if spec.datatype == "BYTES" and elements > MOST_TEXTS:
        raise _bad(f"input '{name}' has {elements} elements; of BYTES at most {MOST_TEXTS} are taken")
    if spec.datatype in ITEM_BYTES:
        expected = elements * ITEM_BYTES[spec.datatype]
        if expected != len(tensor.data):
            raise _bad(f"input byte size mismatch for input '{name}'. Expected {expected}, got {len(tensor.data)}")


def _check_batch(tensors: Sequence[Tensor], max_batch: int) -> None:
    first = tensors[0]
    for tensor in tensors[1:]:
        if tensor.shape[0] != first.shape[0]:
            raise _bad(
                f"input '{tensor.name}' batch size does not match other inputs: {tensor.shape[0]}, where "
                f"'{first.name}' has {first.shape[0]}"
            )
    if not 1 <= first.shape[0] <= max_batch:
        raise _bad(f"inference request batch-size must be <= {max_batch} and at least 1, got {first.shape[0]}")


def _bad(message: str) -> BadJob:
    return BadJob(message, "inputs")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
