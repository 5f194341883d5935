"""Whether a graph's tensors are those that its model.yaml declares. Knows nothing of jobs."""

from collections.abc import Mapping, Sequence

import onnxruntime as ort

from backends.contract import TensorSpec
from backends.manifest import Manifest, ManifestError
from backends.tensors import shown

_DATATYPES: Mapping[str, str] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(bfloat16)": "BF16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(string)": "BYTES",
}


def check_declaration(session: ort.InferenceSession, manifest: Manifest) -> None:
    """Raise ManifestError, naming the tensor, where the graph and the manifest contradict each other."""
    taken = {spec.name for spec in manifest.takes}
    found = {each.name: each for each in session.get_inputs()}
    if undeclared := [name for name in found if name not in taken]:
        raise ManifestError(
            f"inputs: the graph needs {', '.join(undeclared)} too; all of {', '.join(found)} are needed"
        )
    _check("inputs", manifest.takes, found)
    _check("outputs", manifest.gives, {each.name: each for each in session.get_outputs()})
    bf16 = next((spec.name for spec in (*manifest.takes, *manifest.gives) if spec.datatype == "BF16"), None)
    texts = next((spec.name for spec in manifest.takes if spec.datatype == "BYTES"), None)
    if bf16 is not None and texts is not None:
        raise ManifestError(f"inputs: {texts}: BYTES beside BF16 ({bf16}) are more than the runtime's interface takes")


def _check(where: str, specs: Sequence[TensorSpec], graph: Mapping[str, ort.NodeArg]) -> None:
    for spec in specs:
        if spec.name not in graph:
            raise ManifestError(f"{where}: {spec.name}: the graph has no such tensor; it has {', '.join(graph)}")
        tensor = graph[spec.name]
        datatype = _DATATYPES.get(tensor.type)
        if datatype is None:
            known = ", ".join(_DATATYPES)
            raise ManifestError(f"{where}: {spec.name}: the graph's is a {tensor.type}; only {known} can be served")
        if datatype != spec.datatype:
            raise ManifestError(f"{where}: {spec.name}: datatype: {spec.datatype}; the graph's is {datatype}")
        sizes = [size if isinstance(size, int) else -1 for size in tensor.shape]
        # The runtime tells of a tensor whose rank is unknown what it tells of a scalar.
        if sizes and not _agree(spec.shape, sizes):
            raise ManifestError(f"{where}: {spec.name}: shape: {shown(spec.shape)}; the graph's is {shown(sizes)}")


def _agree(declared: Sequence[int], graph: Sequence[int]) -> bool:
    """Tell whether every declared size is the graph's, or narrows what the graph leaves open."""
    return len(declared) == len(graph) and all(
        theirs in (-1, ours) for ours, theirs in zip(declared, graph, strict=True)
    )
