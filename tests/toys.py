"""Model directories small enough to build in a test: an embedder, a classifier, a decoder of whole numbers, tensors.

`python -m tests.toys DIRECTORY` writes one of each tensor model, by its name.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.manifest import read_manifest
from backends.worker.spec import WorkerSpec

WORDS = 63  # a vocabulary of 67, a prime: the decoder then wanders through all of it
CONTEXT = 32
MAX_BATCH = 4
ENDLESS = "w41"
"""A question to which the decoder finds no end before its context is full."""
VOCABULARY = {"<question>": 0, "<answer>": 1, "<end>": 2, "<unk>": 3, **{f"w{n}": n + 4 for n in range(WORDS)}}


def embedder(directory: Path, known: int = len(VOCABULARY)) -> Path:
    """Write a model whose vector is the normalised sum of its tokens' random vectors (8 dimensions).

    It fails for token ids from `known` on, which its tokenizer has all the same.
    """
    _write(directory, _row_graph(width=8, softmax=False, known=known), _rows_yaml("embed", "vector"))
    return directory


def classifier(directory: Path) -> Path:
    """Write a model with the labels even, odd and none."""
    _write(directory, _row_graph(width=3, softmax=True), _rows_yaml("predict", "scores") + "labels: labels.txt\n")
    (directory / "labels.txt").write_text("even\nodd\nnone\n")
    return directory


def decoder(directory: Path, context: int = CONTEXT) -> Path:
    """Write a chat model whose next token depends on every earlier token and its position (see `continuation`)."""
    _write(
        directory,
        _decoder_graph(context),
        "task: chat\ninputs: {ids: ids, past_length: past_length}\noutput: logits\n"
        'prompt: {question: "<question>{text}<answer>", stop: "<end>"}\n'
        f"limits: {{max_tokens: {context}, max_batch: {MAX_BATCH}}}\n",
    )
    return directory


def simple(directory: Path) -> Path:
    """Write OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1 for rows of 16 INT32, at most 8 of them."""
    return _pairs(directory, "INT32")


def simple_int8(directory: Path) -> Path:
    """Write `simple` for INT8, which wraps around."""
    return _pairs(directory, "INT8")


def simple_string(directory: Path) -> Path:
    """Write `simple` for whole numbers in decimal digits, as BYTES."""
    return _pairs(directory, "BYTES")


def simple_identity(directory: Path) -> Path:
    """Write OUTPUT0 = INPUT0 for rows of BYTES of any width."""
    return identity(directory, "BYTES", (-1, -1))


def identity_fp32(directory: Path) -> Path:
    """Write OUTPUT0 = INPUT0 for rows of FP32 of any width."""
    return identity(directory, "FP32", (-1, -1))


def identity_fp16(directory: Path) -> Path:
    """Write OUTPUT0 = INPUT0 for rows of FP16 of any width."""
    return identity(directory, "FP16", (-1, -1))


def identity_bf16(directory: Path) -> Path:
    """Write OUTPUT0 = INPUT0 for rows of BF16 of any width."""
    return identity(directory, "BF16", (-1, -1))


def identity_bool(directory: Path) -> Path:
    """Write OUTPUT0 = INPUT0 for rows of BOOL of any width."""
    return identity(directory, "BOOL", (-1, -1))


def nan_inf(directory: Path) -> Path:
    """Write OUTPUT0 = [not a number, infinity, minus infinity], whatever FP32 [1] INPUT0 is; no batch."""
    odd = np.array([np.nan, np.inf, -np.inf], np.float32)
    nodes = [helper.make_node("Add", ["INPUT0", "odd"], ["OUTPUT0"])]
    tensors = {"INPUT0": ("FP32", (1,)), "OUTPUT0": ("FP32", (3,))}
    return tensor_model(directory, nodes, tensors, max_batch=0, constants=[_constant("odd", odd)])


def zeros(directory: Path) -> Path:
    """Write OUTPUT0 = as many zero UINT8 as the INT64 in INPUT0 says; no batch."""
    value = helper.make_tensor("zero", TensorProto.UINT8, [1], [0])
    nodes = [helper.make_node("ConstantOfShape", ["INPUT0"], ["OUTPUT0"], value=value)]
    return tensor_model(directory, nodes, {"INPUT0": ("INT64", (1,)), "OUTPUT0": ("UINT8", (-1,))}, max_batch=0)


def identity(directory: Path, datatype: str, shape: tuple[int, ...], max_batch: int = 8) -> Path:
    """Write OUTPUT0 = INPUT0."""
    nodes = [helper.make_node("Identity", ["INPUT0"], ["OUTPUT0"])]
    tensors = dict.fromkeys(("INPUT0", "OUTPUT0"), (datatype, shape))
    return tensor_model(directory, nodes, tensors, max_batch)


TENSOR_MODELS: Mapping[str, Callable[[Path], Path]] = {
    make.__name__: make
    for make in (
        simple,
        simple_int8,
        simple_string,
        simple_identity,
        identity_fp32,
        identity_fp16,
        identity_bf16,
        identity_bool,
        nan_inf,
    )
}


def tensor_model(
    directory: Path,
    nodes: Sequence[onnx.NodeProto],
    tensors: Mapping[str, tuple[str, tuple[int, ...]]],
    max_batch: int,
    constants: Sequence[onnx.TensorProto] = (),
) -> Path:
    """Write a model of the task infer; `tensors` gives datatype and shape of its inputs and OUTPUTs."""
    parts: dict[str, list[str]] = {"inputs": [], "outputs": []}
    values: dict[str, list[onnx.ValueInfoProto]] = {"inputs": [], "outputs": []}
    for name, (datatype, shape) in tensors.items():
        part = "outputs" if name.startswith("OUTPUT") else "inputs"
        parts[part].append(f"  {name}: {{datatype: {datatype}, shape: {list(shape)}}}\n")
        graph_shape = [None if size == -1 else size for size in shape]
        values[part].append(helper.make_tensor_value_info(name, _ONNX_TYPES[datatype], graph_shape))
    described = "".join(f"{part}:\n{''.join(lines)}" for part, lines in parts.items())
    graph = helper.make_graph(nodes, "tensors", values["inputs"], values["outputs"], list(constants))
    _write_graph(directory, graph, f"task: infer\n{described}limits: {{max_batch: {max_batch}}}\n")
    return directory


_ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "INT8": TensorProto.INT8,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "UINT8": TensorProto.UINT8,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}


def _pairs(directory: Path, datatype: str) -> Path:
    """Write the sum and the difference, through INT32, as the runtime adds no INT8 and no text."""
    node = helper.make_node
    nodes = [
        node("Cast", ["INPUT0"], ["a"], to=TensorProto.INT32),
        node("Cast", ["INPUT1"], ["b"], to=TensorProto.INT32),
        node("Add", ["a", "b"], ["sum"]),
        node("Sub", ["a", "b"], ["difference"]),
        node("Cast", ["sum"], ["OUTPUT0"], to=_ONNX_TYPES[datatype]),
        node("Cast", ["difference"], ["OUTPUT1"], to=_ONNX_TYPES[datatype]),
    ]
    tensors = dict.fromkeys(("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1"), (datatype, (-1, 16)))
    return tensor_model(directory, nodes, tensors, max_batch=8)


def spec(directory: Path) -> WorkerSpec:
    """Return what a worker is told about a model directory."""
    return WorkerSpec(directory, read_manifest(directory))


def continuation(prompt: Sequence[int], count: int) -> list[int]:
    """Return what the decoder makes of `prompt`, computed without it: up to `count` tokens, ending before `<end>`."""
    ids = list(prompt)
    while len(ids) < len(prompt) + count:
        token = (sum(ids) + 7 * (len(ids) - 1)) % len(VOCABULARY)
        if token == VOCABULARY["<end>"]:
            break
        ids.append(token)
    return ids[len(prompt) :]


def words(ids: Sequence[int]) -> str:
    """Return the text that the toys' tokenizer makes of ids."""
    return tokenizer().decode(list(ids))


def question(text: str) -> list[int]:
    """Return the ids of a question in the decoder's template."""
    return [VOCABULARY[word] for word in ("<question>", *text.split(), "<answer>")]


def _write(directory: Path, graph: onnx.GraphProto, manifest: str) -> None:
    _write_graph(directory, graph, manifest)
    tokenizer().save(str(directory / "tokenizer.json"))


def _write_graph(directory: Path, graph: onnx.GraphProto, manifest: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(directory / "model.onnx"))
    (directory / "model.yaml").write_text(manifest)


def tokenizer() -> Tokenizer:
    """Return a tokenizer of the words w0 to w62 and the template's special tokens."""
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    made.add_special_tokens(["<question>", "<answer>", "<end>"])
    return made


def _rows_yaml(task: str, output: str) -> str:
    limits = f"limits: {{max_tokens: {CONTEXT}, max_batch: {MAX_BATCH}}}\n"
    return f"task: {task}\ninputs: {{ids: ids, mask: mask}}\noutput: {output}\n{limits}"


def _constant(name: str, value: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def _row_graph(*, width: int, softmax: bool, known: int = len(VOCABULARY)) -> onnx.GraphProto:
    table = np.random.default_rng(7).normal(size=(len(VOCABULARY), width)).astype(np.float32)
    output = "scores" if softmax else "vector"
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["each"]),
        helper.make_node("Cast", ["mask"], ["mask_f"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask_f", "last"], ["mask_3"]),
        helper.make_node("Mul", ["each", "mask_3"], ["real"]),
        helper.make_node("ReduceSum", ["real", "one"], ["sum"], keepdims=0),
        helper.make_node("Softmax", ["sum"], [output], axis=-1)
        if softmax
        else helper.make_node("LpNormalization", ["sum"], [output], axis=-1, p=2),
    ]
    return helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["B", "T"]) for name in ("ids", "mask")],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", width])],
        [_constant("table", table[:known]), _constant("last", np.array([2])), _constant("one", np.array([1]))],
    )


def _decoder_graph(context: int) -> onnx.GraphProto:
    """One layer, one head of one number: the value cached for a token is its id, and attention is a plain sum."""
    size = len(VOCABULARY)
    node = helper.make_node
    nodes = [
        node("Cast", ["ids"], ["ids_f"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["ids_f", "axes_head"], ["new_value.0"]),
        node("Neg", ["new_value.0"], ["new_key.0"]),
        # The sum of what is cached, of which only past_length positions are valid.
        node("Unsqueeze", ["past_length", "axis_1"], ["length_2"]),
        node("Less", ["places", "length_2"], ["valid"]),
        node("Squeeze", ["past_value.0", "axes_head"], ["past_2"]),
        node("Squeeze", ["past_key.0", "axes_head"], ["past_key_2"]),
        node("Sub", ["past_2", "past_key_2"], ["past_twice"]),
        node("Where", ["valid", "past_twice", "zero"], ["past_real"]),
        node("ReduceSum", ["past_real", "axis_1"], ["past_double"], keepdims=1),
        node("Mul", ["past_double", "half"], ["past_sum"]),
        node("CumSum", ["ids_f", "axis_1_scalar"], ["new_sum"]),
        node("Add", ["past_sum", "new_sum"], ["sum"]),
        # Each token's position, and the next token from both.
        node("Shape", ["ids"], ["shape"]),
        node("Gather", ["shape", "axis_1_scalar"], ["width"]),
        node("Range", ["zero_i", "width", "one_i"], ["offsets"]),
        node("Add", ["offsets", "length_2"], ["positions"]),
        node("Cast", ["positions"], ["positions_f"], to=TensorProto.FLOAT),
        node("Mul", ["positions_f", "seven"], ["by_position"]),
        node("Add", ["sum", "by_position"], ["total"]),
        node("Mod", ["total", "size"], ["next"], fmod=1),
        node("Unsqueeze", ["next", "axis_2"], ["next_3"]),
        node("Sub", ["tokens", "next_3"], ["distance"]),
        node("Mul", ["distance", "distance"], ["square"]),
        node("Neg", ["square"], ["logits"]),
    ]
    floats = {"zero": 0.0, "half": 0.5, "seven": 7.0, "size": float(size)}
    integers = {"axis_1_scalar": 1, "zero_i": 0, "one_i": 1}
    constants = [
        *(_constant(name, np.array(value, np.float32)) for name, value in floats.items()),
        *(_constant(name, np.array(value, np.int64)) for name, value in integers.items()),
        _constant("axes_head", np.array([1, 3])),
        _constant("axis_1", np.array([1])),
        _constant("axis_2", np.array([2])),
        _constant("places", np.arange(context)[None]),
        _constant("tokens", np.arange(size, dtype=np.float32)[None, None]),
    ]
    value = helper.make_tensor_value_info
    return helper.make_graph(
        nodes,
        "decoder",
        [
            value("ids", TensorProto.INT64, ["B", "T"]),
            value("past_length", TensorProto.INT64, ["B"]),
            *(value(f"past_{each}.0", TensorProto.FLOAT, ["B", 1, context, 1]) for each in ("key", "value")),
        ],
        [
            value("logits", TensorProto.FLOAT, ["B", "T", size]),
            *(value(f"new_{each}.0", TensorProto.FLOAT, ["B", 1, "T", 1]) for each in ("key", "value")),
        ],
        constants,
    )


if __name__ == "__main__":
    for name, make in TENSOR_MODELS.items():
        make(Path(sys.argv[1]) / name)
