"""A model directory's `model.yaml`: what the graph takes, gives and allows. Knows neither the graph nor its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from backends.contract import Task, TensorSpec
from backends.frames import MAX_ARRAYS
from backends.tensors import DATATYPES

_KEYS = {
    Task.EMBED: {"task", "inputs", "output", "limits"},
    Task.PREDICT: {"task", "inputs", "output", "limits", "labels"},
    Task.CHAT: {"task", "inputs", "output", "limits", "prompt"},
    Task.INFER: {"task", "inputs", "outputs", "limits"},
}
_INPUTS = {Task.EMBED: {"ids", "mask"}, Task.PREDICT: {"ids", "mask"}, Task.CHAT: {"ids", "past_length"}}


class ManifestError(ValueError):
    """A model directory that cannot be served; the message names file, key and what is needed."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """How a chat model sees a question: `question` holds `{text}` once; `stop` is the token that ends an answer."""

    question: str
    stop: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """One model: `inputs` maps our words to the graph's names; `labels` is there for predict, `prompt` for chat.

    `max_tokens` bounds one row (for chat: prompt and answer together), `max_batch` the rows of one run. `takes` and
    `gives` are its tensors for the Open Inference Protocol. A model of the task infer reads no text: it has only those,
    and its `max_batch` is 0 where the first dimension of its tensors is no batch. `tokens` is the output of an embed
    model that has a vector of each token, int8.
    """

    task: Task
    inputs: Mapping[str, str]
    output: str
    max_tokens: int
    max_batch: int
    labels: tuple[str, ...] = ()
    prompt: Prompt | None = None
    takes: tuple[TensorSpec, ...] = ()
    gives: tuple[TensorSpec, ...] = ()
    tokens: str = ""


def read_manifest(directory: Path) -> Manifest:
    """Read `model.yaml` and, where it names one, the labels file. Raises ManifestError."""
    file = directory / "model.yaml"
    try:
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ManifestError(f"{file}: {_why(error)}") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{file}: a map of task, inputs, output and limits is needed")
    return _manifest(file, content)


def _why(error: Exception) -> str:
    """Return why a file cannot be read, without its name."""
    return getattr(error, "strerror", None) or str(error)


def _manifest(file: Path, content: dict[str, Any]) -> Manifest:
    task = content.get("task")
    if task not in list(_KEYS):
        raise ManifestError(f"{file}: task: {task!r}; one of {', '.join(_KEYS)} is needed")
    task = Task(task)
    optional = {"tokens"} & content.keys() if task is Task.EMBED else set()
    _same_keys(f"{file}: ", content, _KEYS[task] | optional)
    return _tensor_manifest(file, content) if task is Task.INFER else _text_manifest(file, content, task)


def _text_manifest(file: Path, content: dict[str, Any], task: Task) -> Manifest:
    _same_keys(f"{file}: inputs: ", content["inputs"], _INPUTS[task])
    _same_keys(f"{file}: limits: ", content["limits"], {"max_tokens", "max_batch"})
    labels = _labels(file.parent / str(content["labels"])) if task is Task.PREDICT else ()
    takes, gives = _as_tensors(task, len(labels))
    return Manifest(
        task=task,
        inputs={ours: str(theirs) for ours, theirs in content["inputs"].items()},
        output=str(content["output"]),
        max_tokens=_limit(file, content, "max_tokens", 1),
        max_batch=_limit(file, content, "max_batch", 1),
        labels=labels,
        prompt=_prompt(file, content["prompt"]) if task is Task.CHAT else None,
        takes=takes,
        gives=gives,
        tokens=str(content.get("tokens", "")),
    )


def _tensor_manifest(file: Path, content: dict[str, Any]) -> Manifest:
    _same_keys(f"{file}: limits: ", content["limits"], {"max_batch"})
    max_batch = _limit(file, content, "max_batch", 0)
    takes, gives = (_specs(f"{file}: {part}: ", content[part], max_batch) for part in ("inputs", "outputs"))
    return Manifest(Task.INFER, {}, "", max_tokens=0, max_batch=max_batch, takes=takes, gives=gives)


def _as_tensors(task: Task, labels: int) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return how a model of texts looks to a client that knows only tensors."""
    if task is Task.CHAT:
        return (TensorSpec("text_input", "BYTES", (1,)),), (TensorSpec("text_output", "BYTES", (1,)),)
    takes = (TensorSpec("text", "BYTES", (-1,)),)
    if task is Task.EMBED:
        return takes, (TensorSpec("embedding", "FP32", (-1, -1)),)
    return takes, (TensorSpec("label", "BYTES", (-1,)), TensorSpec("probabilities", "FP32", (-1, labels)))


def _specs(where: str, found: object, max_batch: int) -> tuple[TensorSpec, ...]:
    if not isinstance(found, dict) or not 1 <= len(found) <= MAX_ARRAYS:
        raise ManifestError(f"{where}{found!r}; a map of 1 to {MAX_ARRAYS} names to datatype and shape is needed")
    return tuple(_spec(f"{where}{name}: ", str(name), each, max_batch) for name, each in found.items())


def _spec(where: str, name: str, found: object, max_batch: int) -> TensorSpec:
    _same_keys(where, found, {"datatype", "shape"})
    assert isinstance(found, dict)
    datatype, shape = found["datatype"], found["shape"]
    if datatype not in DATATYPES:
        raise ManifestError(f"{where}datatype: {datatype!r}; one of {', '.join(DATATYPES)} is needed")
    if not isinstance(shape, list) or not all(type(size) is int and size >= -1 for size in shape):
        raise ManifestError(f"{where}shape: {shape!r}; a list of sizes is needed, -1 for any size")
    if max_batch > 0 and shape[:1] != [-1]:
        raise ManifestError(f"{where}shape: {shape!r}; the first size is the batch and must be -1, or max_batch be 0")
    return TensorSpec(name, datatype, tuple(shape))


def _limit(file: Path, content: dict[str, Any], key: str, least: int) -> int:
    value = content["limits"][key]
    if type(value) is not int or value < least:
        raise ManifestError(f"{file}: limits: {key}: {value!r}; a whole number above {least - 1} is needed")
    return value


def _same_keys(where: str, found: object, needed: set[str]) -> None:
    if not isinstance(found, dict) or set(found) != needed:
        got = ", ".join(map(str, found)) if isinstance(found, dict) else repr(found)
        raise ManifestError(f"{where}found {got}; exactly {', '.join(sorted(needed))} are needed")


def _prompt(file: Path, found: object) -> Prompt:
    _same_keys(f"{file}: prompt: ", found, {"question", "stop"})
    assert isinstance(found, dict)
    prompt = Prompt(str(found["question"]), str(found["stop"]))
    if prompt.question.count("{text}") != 1:
        raise ManifestError(f"{file}: prompt: question: {prompt.question!r}; it must hold {{text}} once")
    return prompt


def _labels(file: Path) -> tuple[str, ...]:
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{file}: {_why(error)}") from error
