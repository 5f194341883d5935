"""The JSON Schema for editors: in step with the settings, kind to good files, and hard on plainly bad ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from config.document import read
from config.load import parse
from config.problems import ConfigError
from config.schema import schema, schema_text

ROOT = Path(__file__).parent.parent
FILES = ["example.yaml", "quickstart.yaml"]
SECRETS = {"HF_TOKEN": "t", "OPENAI_API_KEY": "k", "CALLBACK_SECRET": "s"}
VALIDATOR = Draft202012Validator(schema())


def data_of(text: str) -> Any:
    """Return a file's values as an editor sees them."""
    node, _ = read(text, "f")
    assert node is not None
    return json.loads(json.dumps(node.plain()))


def test_the_file_is_in_step_with_the_settings() -> None:
    """config/schema.json is what `warmgate schema` prints, and is a JSON Schema."""
    written = (ROOT / "config/schema.json").read_text(encoding="utf-8")
    assert written == schema_text(), "run: warmgate schema > config/schema.json"
    Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("name", FILES)
def test_our_files_are_valid_and_name_the_schema(name: str) -> None:
    """The files that we ship have no fault by the schema, and tell editors where it lies."""
    text = (ROOT / "config" / name).read_text(encoding="utf-8")
    assert [error.message for error in VALIDATOR.iter_errors(data_of(text))] == []
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")


MODEL = "models: {a: {task: chat, onnx: {path: x}}}\n"


@pytest.mark.parametrize(
    "text",
    [
        "server: {}\n",
        "models: {a: {task: chat, onnx: {path: x}, http: {url: 'http://u'}}}\n",
        "models: {a: {task: chat}}\n",
        "models: {a: {task: chats, onnx: {path: x}}}\n",
        "models: {a b: {task: chat, onnx: {path: x}}}\n",
        "models: {a: {task: chat, command: {run: serve}}}\n",
        "models: {a: {task: chat, onnx: {path: x}, pool: {maximum: 1}}}\n",
        "models: {a: {task: chat, onnx: {path: x}, pool: {max: 0}}}\n",
        "models: {a: {task: chat, onnx: {path: x}, pool: {keep_warm: always}}}\n",
        MODEL + "servr: {}\n",
        MODEL + "server:\n",
        MODEL + "server: {max_body: 1000}\n",
        MODEL + "server: {max_body: 10mib}\n",
        MODEL + "server: {request_timeout: 0}\n",
        MODEL + "server: {request_timeout: soon}\n",
        MODEL + "server: {listen: 8080}\n",
        MODEL + "server: {tls: {certificate: a.pem}}\n",
        MODEL + "server: {keys: [{name: a, sha256: sk-clear-key}]}\n",
        MODEL + "cache: {semantic: {embedder: e, threshold: 1.1}}\n",
        MODEL + "devices: {gpus: first}\n",
        MODEL + "devices: {host_memory: 80}\n",
        MODEL + "routes: {r: {split: {a: 1}, candidates: [a]}}\n",
        MODEL + "batch: {allow_private: 'no'}\n",
    ],
)
def test_what_is_plainly_bad_is_marked(text: str) -> None:
    """A wrong unit, word, number or key, and a missing one, are faults in the editor as they are at the start."""
    with pytest.raises(ConfigError):
        parse(text, {}, source="f")
    assert not VALIDATOR.is_valid(data_of(text))


MODELS = "models: {a: {task: chat, onnx: {path: x}}, e: {task: embed, onnx: {path: x}}}\n"
LINES = [
    *(
        "server: {listen: %s}",
        "server: {max_body: %s}",
        "server: {request_timeout: %s}",
        "server: {shutdown_timeout: %s}",
    ),
    *("cache: {directory: %s}", "cache: {exact: {disk: %s}}", "devices: {gpus: %s}", "devices: {host_memory: %s}"),
    *("batch: {allow_private: %s}", "batch: {keep: %s}", "batch: {s3_endpoint: %s}", "batch: {callback_secret: %s}"),
    *(
        "cache: {semantic: {embedder: e, threshold: %s}}",
        "routes: {r: {split: {a: %s}}}",
        "routes: {r: {candidates: %s}}",
    ),
    *("server: {keys: [{name: %s, sha256: '" + "0" * 64 + "'}]}", "server: {keys: [{name: k, sha256: %s}]}"),
]
POOLS = [
    "onnx: {path: x}, pool: {keep_warm: %s}",
    "command: {run: %s}",
    "http: {url: %s}",
    "http: {url: 'http://u', api: %s}",
]
VALUES = [
    *(
        "0",
        "1",
        "2",
        "0.5",
        "1.0",
        "true",
        "'x y'",
        "a",
        "e",
        "[a]",
        "[a, e]",
        "[0]",
        "[0, 1]",
        "[]",
        "{}",
        "none",
        "all",
    ),
    *(
        "10m",
        "1.5 h",
        "0s",
        "0ms",
        "1GiB",
        "1.5 kB",
        "80%",
        "100 %",
        "'localhost:1'",
        "'[::1]:0'",
        "predict",
        "anthropic",
    ),
    *("http://u", "'https://u:1/v1/'", "'x {port}'", "/v1", "'é'", "'" + "AB" * 32 + "'", "k:v@1"),
]


@pytest.mark.parametrize("line", [*LINES, *(f"models: {{m: {{task: chat, {pool}}}}}" for pool in POOLS)])
def test_no_good_file_is_marked(line: str) -> None:
    """What the program takes, the schema takes: an editor never marks what is right."""
    taken = 0
    for value in VALUES:
        text = line.replace("%s", value) + ("" if line.startswith("models") else f"\n{MODELS}")
        try:
            parse(text, {}, source="f")
        except ConfigError:
            continue
        taken += 1
        assert [error.message for error in VALIDATOR.iter_errors(data_of(text))] == [], text
    assert taken, "no value was right here"
