"""The file as a whole: what a good one gives, what each bad one is told, and that nothing else can come of it."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from config.document import MAX_DEPTH
from config.load import MAX_FILE_BYTES, load, parse
from config.problems import ConfigError
from config.settings import Settings
from config.units import Allowance

ROOT = Path(__file__).parent.parent
ENVIRON = {"KEY": "sk-very-secret"}

GOOD = """\
server:
  listen: "[::1]:0"
  keys:
    - {name: team-a, sha256: "%s", models: [chat, minilm]}
cache:
  semantic: {embedder: minilm, threshold: 0.9}
devices: {gpus: [0, 1], host_memory: 8GiB}
models:
  minilm: {task: embed, onnx: {path: var/models/minilm}}
  atlas: {task: chat, onnx: {path: /models/atlas, threads: 2}, pool: {min: 1, max: 2, keep_warm: 10m}}
  local: {task: chat, command: {run: "serve --port {port}", env: {TOKEN: "Bearer ${KEY}"}}}
  gpt: {task: chat, http: {url: "https://api.example.com/v1/", key: "${KEY}"}}
routes:
  chat: {split: {local: 90, atlas: 10}, fallback: [gpt], cache: {unstated: bypass}}
  any: {candidates: [atlas, local]}
""" % ("AB" * 32)

MODELS = "models: {a: {task: chat, onnx: {path: x}}, e: {task: embed, onnx: {path: x}}}\n"


def attempt(text: str) -> Settings | ConfigError:
    """Read a text, and return its settings or its error."""
    try:
        return parse(text, ENVIRON, source="f.yaml")
    except ConfigError as error:
        return error


def message(text: str, environ: dict[str, str] = ENVIRON) -> str:
    """Return what the author of a bad text is told."""
    with pytest.raises(ConfigError) as caught:
        parse(text, environ, source="f.yaml")
    return str(caught.value)


def test_a_good_file_gives_typed_values() -> None:
    """Sizes, times, addresses and secrets arrive as plain typed values, and what is left out has its default."""
    settings = parse(GOOD, ENVIRON, source="f.yaml")
    assert (settings.server.listen.host, settings.server.listen.port) == ("::1", 0)
    assert settings.server.keys[0].sha256 == "ab" * 32
    assert settings.cache is not None
    assert settings.cache.semantic is not None
    assert settings.cache.semantic.threshold == 0.9
    assert settings.cache.exact.disk_bytes == 4 * 2**30
    assert settings.devices.gpus == (0, 1)
    assert settings.devices.host_memory == Allowance(size_bytes=8 * 2**30)
    assert settings.models["atlas"].pool.keep_warm_s == 600.0
    assert settings.models["minilm"].pool.keep_warm_s is None
    assert settings.models["gpt"].http is not None
    assert settings.models["gpt"].http.url == "https://api.example.com/v1"
    assert settings.models["gpt"].http.key == SecretStr("sk-very-secret")
    assert settings.models["local"].command is not None
    assert settings.models["local"].command.env["TOKEN"].get_secret_value() == "Bearer sk-very-secret"
    assert settings.routes["chat"].split == {"local": 90, "atlas": 10}
    assert settings.routes["chat"].cache.unstated == "bypass"


def test_settings_of_the_same_file_are_equal_and_frozen() -> None:
    """Two readings of one file are equal, and a value cannot be changed afterwards."""
    first, second = (parse(GOOD, ENVIRON, source="f.yaml") for _ in range(2))
    assert first == second
    with pytest.raises(ValueError, match="frozen"):
        first.server.max_body_bytes = 1  # type: ignore[misc]


def test_a_secret_is_never_printed() -> None:
    """Neither repr nor str of the settings has a secret's value."""
    settings = parse(GOOD, ENVIRON, source="f.yaml")
    assert "very-secret" not in f"{settings!r} {settings}"


def test_no_cache_section_means_no_cache() -> None:
    """A file without `cache` remembers nothing; one with an empty section has the exact cache alone."""
    assert parse(MODELS, {}, source="f.yaml").cache is None
    cache = parse(MODELS + "cache: {}\n", {}, source="f.yaml").cache
    assert cache is not None
    assert cache.semantic is None
    assert cache.exact.memory_bytes == 256 * 2**20


def test_anchors_may_be_used() -> None:
    """A value may be written once and used again by an alias."""
    text = "models: {a: {task: chat, onnx: &o {path: x}, pool: &p {max: 3}}, b: {task: chat, onnx: *o, pool: *p}}"
    models = parse(text, {}, source="f.yaml").models
    assert models["a"] == models["b"]


def test_all_faults_are_told_together() -> None:
    """One reading reports every fault, in the order of the lines."""
    text = "server: {listen: x}\nmodels:\n  a: {task: chat, onnx: {path: 1}, pool: {mix: 1}}\nserver: {}\nz:\n"
    assert [line.split(": ")[1] for line in message(text).splitlines()] == [
        "server.listen",
        "models.a.onnx.path",
        "models.a.pool.mix",
        "server",
        "z",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "models:\n  a: {task: chat, onnx: {path: 1}, pool: {min: 3}}\nroutes:\n  r: {candidates: [a, b]}\n",
            ["models.a.onnx.path", "models.a.pool.min", "routes.r.candidates[1]"],
        ),
        (
            "models:\n  a: {task: chat, onnx: {path: x}, pool: {min: 3, max: 2}}\n  b: {task: chat, onxx: {path: x}}\n",
            ["models.a.pool.min", "models.b.onxx"],
        ),
        (
            "models:\n  a: {task: chat, onnx: {path: x}, pool: {min: 3, max: two}}\n",
            ["models.a.pool.max"],
        ),
        (
            (
                "models:\n  a: {task: chats, onnx: {path: x}}\n  b: {task: chat, onnx: {path: x}}\n"
                "routes:\n  a: {candidates: [a, b, c]}\n  r: {split: {b: 1}, candidates: [b]}\n"
            ),
            ["models.a.task", "routes.a.candidates[2]", "routes.r", "routes.r.candidates[0]"],
        ),
        (
            MODELS + "cache: {semantic: {embedder: a, threshold: 2}}\nserver: {listen: x, grpc: 'localhost:1'}\n"
            "batch: {file_roots: [x], keep: }\n",
            [
                "cache.semantic.threshold",
                "cache.semantic.embedder",
                "server.listen",
                "batch.keep",
                "batch.file_roots[0]",
            ],
        ),
        (
            (
                "models:\n  a: {task: chat, onnx: {path: x}}\nserver:\n  keys:\n    - {name: k, models: [z]}\n"
                "    - {name: k, sha256: x}\n"
            ),
            ["server.keys[0].sha256", "server.keys[1].sha256"],
        ),
    ],
)
def test_faults_between_settings_are_told_with_the_others(text: str, expected: list[str]) -> None:
    """A fault of one value does not hide those between other values, and makes none up between what it touches."""
    assert [line.split(": ")[1] for line in message(text).splitlines()] == expected


def test_a_flood_of_faults_is_cut_short() -> None:
    """A file with thousands of unknown keys is told of the first ones, and of how many more there are."""
    lines = message("".join(f"k{index}: 1\n" for index in range(5000))).splitlines()
    assert len(lines) == 51
    assert lines[-1].startswith("f.yaml: and ")


def test_a_secret_from_the_environment_is_never_in_an_error() -> None:
    """An unusable secret is named by its variable, and its value is not shown."""
    text = "models: {a: {task: chat, http: {url: 'http://u', key: '${KEY}'}}}"
    assert message(text, {"KEY": "sk\nsecret"}).endswith("the secret from KEY is not one line of printable characters")
    assert message(text, {"KEY": ""}).endswith("the secret from KEY is empty")


def test_deep_nesting_and_alias_bombs_are_refused() -> None:
    """Neither a deeply nested text nor aliases of aliases can exhaust the reader."""
    assert message("[" * 10_000).endswith(f"nested deeper than {MAX_DEPTH} levels")
    assert message("{a: " * 10_000).endswith(f"nested deeper than {MAX_DEPTH} levels")
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10))
    assert "aliases written out" in message(bomb)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x7fELF\x02\x01\xff\xfe", ":1: not UTF-8 text: byte 0xff at offset 6"),
        (b"a" * (MAX_FILE_BYTES + 1), ": larger than 1MiB, the most that is read"),
    ],
    ids=["binary", "huge"],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    """Binary files and huge files are refused before they are parsed."""
    path = tmp_path / "f.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value) == f"{path}{expected}"


def test_a_path_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file, a directory, a pipe and an impossible name are each told as such."""
    os.mkfifo(tmp_path / "pipe")
    for path, expected in (
        (tmp_path / "no.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "pipe", "it is no regular file"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert str(caught.value) == f"{path}: cannot be read: {expected}"
    with pytest.raises(ConfigError, match="cannot be read"):
        load("a\0b", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_without_permission_is_named(tmp_path: Path) -> None:
    """A file that may not be read is told as such."""
    path = tmp_path / "f.yaml"
    path.touch(mode=0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load(path, {})


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """A file saved with a byte order mark reads like one without."""
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + MODELS.encode())
    assert set(load(path, {}).models) == {"a", "e"}


WORDS = [
    *(
        "models",
        "a",
        "task",
        "chat",
        "onnx",
        "path",
        "server",
        "keys",
        "cache",
        "null",
        "0x1",
        ".inf",
        "1e999",
        "${KEY}",
    ),
    *(":", ": ", "{", "}", "[", "]", ",", "\n", "  ", "- ", "&a ", "*a", "<<", "!!int ", "'", '"', "|", ">", "#", "?"),
    *("%YAML 1.1\n", "---\n", "\t", "9" * 5000, "\ufeff", "\x85", "\u2028", "\ud800"),
]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS), max_size=30).map("".join)))
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    """Whatever the text, the reader returns settings or raises its one error with at least one problem."""
    outcome = attempt(text)
    assert isinstance(outcome, Settings) or (outcome.problems and str(outcome))


SCALARS = st.one_of(
    st.integers(-2, 10**12).map(str),
    st.floats().map(str),
    st.sampled_from(["true", "no", "~", "''", "'x y'", "10m", "1GiB", "80%", "[]", "[1]", "{}", "{a: 1}", "'${KEY}'"]),
)


@given(data=st.data(), value=SCALARS)
def test_any_value_at_any_place_gives_settings_or_a_config_error(data: st.DataObject, value: str) -> None:
    """Any value put at the place of another one gives settings, or an error that names a line of the file."""
    lines = GOOD.splitlines()
    index = data.draw(st.sampled_from([index for index, line in enumerate(lines) if ": " in line]))
    places = [place for place in range(len(lines[index])) if lines[index].startswith(": ", place)]
    place = data.draw(st.sampled_from(places)) + 2
    rest = lines[index][place:]
    end = min((at for mark in ",}" if (at := rest.find(mark)) >= 0), default=len(rest))
    lines[index] = f"{lines[index][:place]}{value}{rest[end:]}"
    outcome = attempt("\n".join(lines))
    if isinstance(outcome, ConfigError):
        assert all(problem.line is not None for problem in outcome.problems)
        assert "very-secret" not in str(outcome)


def test_the_quickstart_file_is_good() -> None:
    """The quickstart's file has its four models, both caches, and listens on this machine alone."""
    settings = load(ROOT / "config/quickstart.yaml", {})
    assert set(settings.models) == {"minilm", "verifier", "intents", "atlas"}
    assert str(settings.server.listen) == "127.0.0.1:8080"
    assert settings.cache is not None
    assert settings.cache.semantic is not None
