"""What keeps the program from starting is one clear message and an exit code; what does not must not keep it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.running_gateway import ROOT
from tests.e2e.program import DEADLINE_S, SERVER, config

ECHO = f'  echo: {{task: chat, command: {{run: "{SERVER}"}}}}'


def serve(text: str, directory: Path, command: str = "serve") -> subprocess.CompletedProcess[str]:
    """Run the program until it gives up."""
    file = directory / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    arguments = [
        sys.executable,
        "-m",
        "gateway.main",
        command,
        *(["--config"] if command == "serve" else []),
        str(file),
    ]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def test_busy_port(tmp_path: Path) -> None:
    """A port that somebody else listens on is named, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve(config(tmp_path, ECHO).replace("127.0.0.1:0", f"127.0.0.1:{port}"), tmp_path)

    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"warmgate: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("missing", ["model.yaml", "model.onnx", "tokenizer.json"])
def test_missing_model_file(tmp_path: Path, missing: str) -> None:
    """A model's file that is not there is named, with where such files come from; the exit code is 1."""
    model = tmp_path / "model"
    model.mkdir()
    for name, text in {"model.yaml": MANIFEST, "model.onnx": "x", "tokenizer.json": "{}"}.items():
        if name != missing:
            (model / name).write_text(text, encoding="utf-8")
    ended = serve(config(tmp_path, f"  m: {{task: embed, onnx: {{path: {model}}}}}"), tmp_path)

    assert ended.returncode == 1
    assert f"{model / missing} does not exist" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


MANIFEST = """task: embed
inputs: {ids: input_ids, mask: attention_mask}
output: embedding
limits: {max_tokens: 256, max_batch: 32}
"""


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("server: {listen: 127.0.0.1:0, prot: 5}\nmodels: {}\n", ":1: server.prot: "),
        ("server:\n  max_body: lots\nmodels:\n  m: {task: embed, onnx: {path: x}}\n", ":2: server.max_body: "),
        ("models:\n  m: {task: sing, onnx: {path: x}}\n", ":2: models.m.task: "),
        ("models: [\n", ":2: "),
    ],
    ids=["unknown-key", "bad-size", "bad-task", "no-yaml"],
)
def test_bad_config(tmp_path: Path, command: str, text: str, words: str) -> None:
    """A faulty file is told of by its name, line and key, and the exit code is 2."""
    ended = serve(text, tmp_path, command)

    assert ended.returncode == 2
    assert f"gateway.yaml{words}" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_check_of_a_good_config(tmp_path: Path) -> None:
    """`warmgate check` says that there is nothing to say."""
    ended = serve(config(tmp_path, ECHO), tmp_path, "check")

    assert ended.returncode == 0
    assert "1 models, 0 routes, no faults" in ended.stdout
