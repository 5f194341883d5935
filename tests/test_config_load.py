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


def message(text: str, environ: dict[str, str] = ENVIRON) -> str:
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


# Each pair is a file and the whole text that its author gets; the fragments end up in `models:` or at the top.
BAD = {
    "empty": ("", "f.yaml: empty: it must at least have models"),
    "only a comment": ("# nothing\n", "f.yaml: empty: it must at least have models"),
    "a list": ("- a\n- b\n", "f.yaml:1: not a mapping: write keys such as server: and models:"),
    "text": ("hello", "f.yaml:1: not a mapping: write keys such as server: and models:"),
    "a tab": ("models:\n\ta: 1\n", "f.yaml:2: not YAML: a tab; indent with spaces"),
    "an open bracket": (
        "models: [1\n",
        "f.yaml:2: not YAML: expected ',' or ']', but got '<stream end>'"
        " while parsing a flow sequence that begins in line 1",
    ),
    "two documents": (MODELS + "---\na: b\n", "f.yaml:2: a second document: the file must hold one"),
    "a control character": ("a: b\nc: \x00", "f.yaml:2: not YAML: the character U+0000 is not allowed"),
    "a tag": ("models: !!python/name:os.system x", "f.yaml:1: models: the tag '!!python/name:os.system' is not read here: remove it"),
    "an unknown alias": ("models: *m", "f.yaml:1: models: *m names no anchor before it"),
    "an alias of itself": ("models: &m {a: *m}", "f.yaml:1: models.a: *m names no anchor before it"),
    "a list as a key": ("[a]: b", "f.yaml:1: a key must be plain text"),
    "a key twice": (
        MODELS + "server:\n  max_body: 1MiB\n  max_body: 2MiB\n",
        "f.yaml:4: server.max_body: is written twice, first in line 3: remove one",
    ),
    "no value": (MODELS + "cache:\n", "f.yaml:2: cache: has no value: give it one, or remove the key"),
    "no models": ("server: {}\n", "f.yaml:1: models: is missing"),
    "models without one": ("models: {}\n", "f.yaml:1: models: there is none: name at least one model"),
    "an unknown section": (
        MODELS + "servr: {}\n",
        "f.yaml:2: servr: unknown key; did you mean 'server'? (allowed: server, cache, devices, models, routes)",
    ),
    "an unknown key": (
        "models:\n  a:\n    task: chat\n    onnx: {path: x}\n    pool:\n      maximum: 3\n",
        "f.yaml:6: models.a.pool.maximum: unknown key; did you mean 'max'? (allowed: min, max, queue, start_timeout, keep_warm)",
    ),
    "a word for a number": (
        "models:\n  a:\n    task: chat\n    onnx: {path: x}\n    pool:\n      max: two\n",
        "f.yaml:6: models.a.pool.max: 'two' is not a whole number ≥ 1",
    ),
    "a switch for a number": (
        "models: {a: {task: chat, onnx: {path: x, threads: true}}}",
        "f.yaml:1: models.a.onnx.threads: true is not a whole number ≥ 1",
    ),
    "a list for a section": (MODELS + "server: [1]\n", "f.yaml:2: server: a list is not a mapping"),
    "a mapping for a list": (MODELS + "server: {keys: {}}\n", "f.yaml:2: server.keys: a mapping is not a list"),
    "a size without its unit": (
        MODELS + "server: {max_body: 1000}\n",
        "f.yaml:2: server.max_body: 1000 has no unit: write a size such as 256MiB"
        " (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)",
    ),
    "a size that is too small": (MODELS + "server: {max_body: 1B}\n", "f.yaml:2: server.max_body: '1B' is less than 1KiB"),
    "a time in words": (
        MODELS + "server: {request_timeout: soon}\n",
        "f.yaml:2: server.request_timeout: 'soon' is not a time such as 90s (units: ms, s, m, h, d)",
    ),
    "a port that is too large": (
        MODELS + "server: {listen: 'localhost:70000'}\n",
        "f.yaml:2: server.listen: 'localhost:70000' is not an address such as 127.0.0.1:8080 or [::1]:8080,"
        " with a port from 0 to 65535",
    ),
    "an impossible address": (
        MODELS + "server: {listen: '127.0.0.300:1'}\n",
        "f.yaml:2: server.listen: '127.0.0.300:1' has no valid address:"
        " Octet 300 (> 255) not permitted in '127.0.0.300'",
    ),
    "a key in place of its digest": (
        MODELS + "server: {keys: [{name: a, sha256: sk-clear-key}]}\n",
        "f.yaml:2: server.keys[0].sha256: is not the SHA-256 digest of a key: 64 hexadecimal digits, in quotes",
    ),
    "a task that does not exist": (
        "models: {a: {task: chats, onnx: {path: x}}}",
        "f.yaml:1: models.a.task: 'chats' is not one of chat, completion, embed, predict; did you mean 'chat'?",
    ),
    "a name with a space": (
        "models: {a b: {task: chat, onnx: {path: x}}}",
        "f.yaml:1: models.a b: 'a b' is not a name: up to 128 letters, digits and . _ : / @ + -,"
        " the first a letter or digit",
    ),
    "no engine": (
        "models: {a: {task: chat}}",
        "f.yaml:1: models.a: has no engine: give it one of onnx, command, http",
    ),
    "two engines": (
        "models: {a: {task: chat, onnx: {path: x}, http: {url: 'http://u'}}}",
        "f.yaml:1: models.a: has the engines onnx and http: keep one",
    ),
    "a command without its port": (
        "models: {a: {task: chat, command: {run: 'serve'}}}",
        "f.yaml:1: models.a.command.run: 'serve' does not contain {port}:"
        " the command must listen on the port that it is given there",
    ),
    "a command with an open quote": (
        "models: {a: {task: chat, command: {run: \"x ' {port}\"}}}",
        "f.yaml:1: models.a.command.run: \"x ' {port}\" is not a command line: no closing quotation",
    ),
    "a URL of another kind": (
        "models: {a: {task: chat, http: {url: 'ftp://u'}}}",
        "f.yaml:1: models.a.http.url: 'ftp://u' is not a URL such as https://api.example.com/v1 (http or https, no query)",
    ),
    "a password in a URL": (
        "models: {a: {task: chat, http: {url: 'http://me:sk-clear-key@u'}}}",
        "f.yaml:1: models.a.http.url: a user or password in a URL would be printed: put the secret in key",
    ),
    "a variable that is not set": (
        "models:\n  a:\n    task: chat\n    http:\n      url: http://u\n      key: ${NOT_SET}\n",
        "f.yaml:6: models.a.http.key: the environment variable NOT_SET is not set",
    ),
    "an unclosed variable": (
        "models: {a: {task: chat, http: {url: 'http://u', key: '${sk-clear-key'}}}",
        "f.yaml:1: models.a.http.key: a '${' must begin ${NAME}, with a NAME of letters, digits and _",
    ),
    "a secret that is no text": (
        "models: {a: {task: chat, http: {url: 'http://u', key: 12345}}}",
        "f.yaml:1: models.a.http.key: a secret must be text, such as ${NAME} of an environment variable (quote it)",
    ),
    "min above max": (
        "models: {a: {task: chat, onnx: {path: x}, pool: {min: 3, max: 2}}}",
        "f.yaml:1: models.a.pool.min: 3 is more than pool.max, which is 2",
    ),
    "replicas of an upstream": (
        "models: {a: {task: chat, http: {url: 'http://u'}, pool: {max: 2, queue: 9}}}",
        "f.yaml:1: models.a.pool.max: an http upstream has no replicas of ours: remove it",
    ),
    "an embedder that does not exist": (
        MODELS + "cache: {semantic: {embedder: ee}}\n",
        "f.yaml:2: cache.semantic.embedder: 'ee' is not a model of task embed; did you mean 'e'? (there are e)",
    ),
    "an embedder of another task": (
        MODELS + "cache: {semantic: {embedder: a}}\n",
        "f.yaml:2: cache.semantic.embedder: 'a' has the task chat: the embedder needs one of task embed",
    ),
    "a threshold above 1": (
        MODELS + "cache: {semantic: {embedder: e, threshold: 90}}\n",
        "f.yaml:2: cache.semantic.threshold: 90 is not a number above 0 and up to 1",
    ),
    "a route to nowhere": (
        MODELS + "routes: {r: {candidates: [b]}}\n",
        "f.yaml:2: routes.r.candidates[0]: 'b' is not a model (there are a, e)",
    ),
    "a route of two tasks": (
        MODELS + "routes: {r: {candidates: [a, e]}}\n",
        "f.yaml:2: routes.r.candidates[1]: 'e' has the task embed, and a has chat: a route has one task",
    ),
    "a route that names a model twice": (
        MODELS + "routes: {r: {split: {a: 1}, fallback: [a]}}\n",
        "f.yaml:2: routes.r.fallback[0]: 'a' is named twice in this route",
    ),
    "a route with both ways": (
        MODELS + "routes: {r: {split: {a: 1}, candidates: []}}\n",
        "f.yaml:2: routes.r: needs exactly one of split and candidates",
    ),
    "a route without a model": (MODELS + "routes: {r: {split: {}}}\n", "f.yaml:2: routes.r: names no model"),
    "a route named like a model": (
        MODELS + "routes: {a: {candidates: [a]}}\n",
        "f.yaml:2: routes.a: is the name of a model too: rename one",
    ),
    "a key for an unknown model": (
        MODELS + "server: {keys: [{name: k, sha256: '%s', models: [x]}]}\n" % ("0" * 64),
        "f.yaml:2: server.keys[0].models[0]: 'x' is not a model or route (there are a, e)",
    ),
    "devices by name": (
        MODELS + "devices: {gpus: first}\n",
        "f.yaml:2: devices.gpus: 'first' is not none, all, or a list of indices such as [0, 1]",
    ),
    "memory in words": (
        MODELS + "devices: {host_memory: most}\n",
        "f.yaml:2: devices.host_memory: 'most' is not a size such as 256MiB"
        " (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), or a share such as 80%",
    ),
    "keep-warm in words": (
        "models: {a: {task: chat, onnx: {path: x}, pool: {keep_warm: always}}}",
        "f.yaml:1: models.a.pool.keep_warm: 'always' is not a time such as 90s (units: ms, s, m, h, d), or predict",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_told_line_key_value_and_what_is_allowed(text: str, expected: str) -> None:
    """Each fault has exactly one line of text, which names where it is, what was written and what is allowed."""
    assert message(text) == expected


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
    """A missing file, a directory and an impossible name are each told as such."""
    for path, expected in ((tmp_path / "no.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
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


WORDS = st.sampled_from(
    ["models", "a", "task", "chat", "onnx", "path", "server", "keys", ":", ": ", "{", "}", "[", "]", ",", "\n", "  "]
    + ["- ", "&a ", "*a", "<<", "!!int ", "'", '"', "|", ">", "#", "?", "%YAML 1.1\n", "---\n", "\t", "${KEY}", "1e999"]
    + ["cache", "null", "9" * 5000, "0x1", ".inf", "\ufeff", "\x85", "\u2028", "\ud800"]
)


@given(st.one_of(st.text(), st.lists(WORDS, max_size=30).map("".join)))
def test_any_text_gives_settings_or_a_config_error(text: str) -> None:
    """Whatever the text, the reader returns settings or raises its one error with at least one problem."""
    try:
        settings = parse(text, ENVIRON, source="f.yaml")
    except ConfigError as error:
        assert error.problems
        assert str(error)
    else:
        assert isinstance(settings, Settings)


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
    try:
        parse("\n".join(lines), ENVIRON, source="f.yaml")
    except ConfigError as error:
        assert all(problem.line is not None for problem in error.problems)
        assert "very-secret" not in str(error)


def test_the_quickstart_file_is_good() -> None:
    """The quickstart's file has its three models, both caches, and listens on this machine alone."""
    settings = load(ROOT / "config/quickstart.yaml", {})
    assert set(settings.models) == {"minilm", "intents", "atlas"}
    assert str(settings.server.listen) == "127.0.0.1:8080"
    assert settings.cache is not None
    assert settings.cache.semantic is not None
