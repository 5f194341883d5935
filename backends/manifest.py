"""A model directory's `model.yaml`: what the graph takes, gives and allows. Knows neither the graph nor its weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from backends.contract import Task

_KEYS = {
    Task.EMBED: {"task", "inputs", "output", "limits"},
    Task.PREDICT: {"task", "inputs", "output", "limits", "labels"},
    Task.CHAT: {"task", "inputs", "output", "limits", "prompt"},
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

    `max_tokens` bounds one row (for chat: prompt and answer together), `max_batch` the rows of one run.
    """

    task: Task
    inputs: Mapping[str, str]
    output: str
    max_tokens: int
    max_batch: int
    labels: tuple[str, ...] = ()
    prompt: Prompt | None = None


def read_manifest(directory: Path) -> Manifest:
    """Read `model.yaml` and, where it names one, the labels file. Raises ManifestError."""
    file = directory / "model.yaml"
    try:
        content = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ManifestError(f"{file}: {error}") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{file}: a map of task, inputs, output and limits is needed")
    return _manifest(file, content)


def _manifest(file: Path, content: dict[str, Any]) -> Manifest:
    task = content.get("task")
    if task not in list(_KEYS):
        raise ManifestError(f"{file}: task: {task!r}; one of {', '.join(_KEYS)} is needed")
    task = Task(task)
    _same_keys(f"{file}: ", content, _KEYS[task])
    _same_keys(f"{file}: inputs: ", content["inputs"], _INPUTS[task])
    _same_keys(f"{file}: limits: ", content["limits"], {"max_tokens", "max_batch"})
    for key in ("max_tokens", "max_batch"):
        if not isinstance(content["limits"][key], int) or content["limits"][key] < 1:
            raise ManifestError(f"{file}: limits: {key}: {content['limits'][key]!r}; a whole number above 0 is needed")
    return Manifest(
        task=task,
        inputs={ours: str(theirs) for ours, theirs in content["inputs"].items()},
        output=str(content["output"]),
        max_tokens=content["limits"]["max_tokens"],
        max_batch=content["limits"]["max_batch"],
        labels=_labels(file.parent / str(content["labels"])) if task is Task.PREDICT else (),
        prompt=_prompt(file, content["prompt"]) if task is Task.CHAT else None,
    )


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
        raise ManifestError(f"{file}: {error}") from error
