"""Whether a question's tensors are those that a model takes, told before any model starts for it. Pure."""

from collections.abc import Sequence

from backends.contract import Tensor, TensorSpec
from gateway.catalog import ModelInfo
from gateway.errors import InvalidRequest
from gateway.fields import cut


def check_fit(info: ModelInfo, inputs: Sequence[Tensor], outputs: Sequence[str]) -> None:
    """Check names, datatypes, shapes and batch size. Raises `InvalidRequest`."""
    _check_once("input", [tensor.name for tensor in inputs])
    _check_once("output", outputs)
    specs = {spec.name: spec for spec in info.inputs}
    for tensor in inputs:
        if tensor.name not in specs:
            raise InvalidRequest(f"unexpected inference input '{cut(tensor.name)}' for model '{info.name}'", "inputs")
        _check_tensor(info, specs[tensor.name], tensor)
    if len(inputs) != len(specs):
        names = ", ".join(specs)
        raise InvalidRequest(
            f"expected {len(specs)} inputs but got {len(inputs)} inputs for model '{info.name}'; it takes: {names}",
            "inputs",
        )
    _check_batch(info, inputs)
    given = [spec.name for spec in info.outputs]
    for name in outputs:
        if name not in given:
            raise InvalidRequest(
                f"unexpected inference output '{cut(name)}' for model '{info.name}'; it gives: {', '.join(given)}",
                "outputs",
            )


def _check_once(kind: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise InvalidRequest(f"{kind} '{cut(twice)}' already exists in request", f"{kind}s")


def _check_tensor(info: ModelInfo, spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype != spec.datatype:
        raise InvalidRequest(
            f"inference input '{spec.name}' data-type is '{tensor.datatype}',"
            f" but model '{info.name}' expects '{spec.datatype}'",
            "datatype",
        )
    fits = len(tensor.shape) == len(spec.shape) and all(
        expected in (-1, size) for expected, size in zip(spec.shape, tensor.shape, strict=True)
    )
    if not fits:
        raise InvalidRequest(
            f"unexpected shape for input '{spec.name}' for model '{info.name}'."
            f" Expected {list(spec.shape)}, got {list(tensor.shape)}",
            "shape",
        )


def _check_batch(info: ModelInfo, inputs: Sequence[Tensor]) -> None:
    if info.max_batch < 1 or not inputs:
        return
    sizes = {tensor.shape[0] for tensor in inputs}
    if len(sizes) > 1:
        raise InvalidRequest(f"the inputs for model '{info.name}' differ in their batch size: {sorted(sizes)}", "shape")
    if max(sizes) > info.max_batch:
        raise InvalidRequest(f"inference request batch-size must be <= {info.max_batch} for '{info.name}'", "shape")
    if min(sizes) < 1:
        raise InvalidRequest(f"inference request batch-size must be >= 1 for '{info.name}'", "shape")
