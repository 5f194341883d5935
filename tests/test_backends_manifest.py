"""The page on model directories: each of its examples is one that is read."""

import re
from pathlib import Path

import pytest

from backends.contract import Task, TensorSpec
from backends.manifest import read_manifest

PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_the_page_has_every_task():
    """There is one example for each kind of model that a directory can hold."""
    tasks = [Task(example.split()[1]) for example in EXAMPLES]
    assert sorted(tasks) == [Task.CHAT, Task.EMBED, Task.INFER, Task.PREDICT]


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_read(tmp_path, example):
    """An example of the page is a model.yaml, whose tensors are known."""
    (tmp_path / "model.yaml").write_text(example)
    (tmp_path / "labels.txt").write_text("a\nb\n")
    manifest = read_manifest(tmp_path)

    assert manifest.task == example.split()[1]
    assert all(isinstance(spec, TensorSpec) for spec in (*manifest.takes, *manifest.gives))
    assert manifest.takes
    assert manifest.gives
