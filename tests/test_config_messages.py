"""What the author of each kind of bad file is told, word for word."""

import pytest

from config.load import parse
from config.problems import ConfigError

MODELS = "models: {a: {task: chat, onnx: {path: x}}, e: {task: embed, onnx: {path: x}}}\n"

# Each pair is a file and the whole text that its author gets; the fragments end up in `models:` or at the top.
BAD = {
    "empty": ("", "f.yaml: empty: it must at least have models"),
    "only a comment": ("# nothing\n", "f.yaml: empty: it must at least have models"),
    "a list": ("- a\n- b\n", "f.yaml:1: not a mapping: write keys such as server: and models:"),
    "text": ("hello", "f.yaml:1: not a mapping: write keys such as server: and models:"),
    "a tab": ("models:\n\ta: 1\n", "f.yaml:2: not YAML: a tab; indent with spaces"),
    "an open bracket": (
        "models: [1\n",
        (
            "f.yaml:2: not YAML: expected ',' or ']', but got '<stream end>'"
            " while parsing a flow sequence that begins in line 1"
        ),
    ),
    "two documents": (MODELS + "---\na: b\n", "f.yaml:2: a second document: the file must hold one"),
    "a control character": ("a: b\nc: \x00", "f.yaml:2: not YAML: the character U+0000 is not allowed"),
    "a tag": (
        "models: !!python/name:os.system x",
        "f.yaml:1: models: the tag '!!python/name:os.system' is not read here: remove it",
    ),
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
        "f.yaml:2: servr: unknown key; did you mean 'server'? (allowed: server, cache, devices, models, routes, batch)",
    ),
    "an unknown key": (
        "models:\n  a:\n    task: chat\n    onnx: {path: x}\n    pool:\n      maximum: 3\n",
        (
            "f.yaml:6: models.a.pool.maximum: unknown key; did you mean 'max'?"
            " (allowed: min, max, queue, start_timeout, start_wait, keep_warm, gpus, start_time, wake_time,"
            " host_memory, gpu_memory, schedule)"
        ),
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
        (
            "f.yaml:2: server.max_body: 1000 has no unit: write a size such as 256MiB"
            " (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)"
        ),
    ),
    "a size that is too small": (
        MODELS + "server: {max_body: 1B}\n",
        "f.yaml:2: server.max_body: '1B' is less than 1KiB",
    ),
    "a time in words": (
        MODELS + "server: {request_timeout: soon}\n",
        "f.yaml:2: server.request_timeout: 'soon' is not a time such as 90s (units: ms, s, m, h, d)",
    ),
    "a host with a port": (
        MODELS + "server: {hosts: [a.example, 'b.example:80']}\n",
        "f.yaml:2: server.hosts[1]: 'b.example:80' is not a host's name such as gateway.example.org, without a port",
    ),
    "a port that is too large": (
        MODELS + "server: {listen: 'localhost:70000'}\n",
        (
            "f.yaml:2: server.listen: 'localhost:70000' is not an address such as 127.0.0.1:8080 or [::1]:8080,"
            " with a port from 0 to 65535"
        ),
    ),
    "an impossible address": (
        MODELS + "server: {listen: '127.0.0.300:1'}\n",
        (
            "f.yaml:2: server.listen: '127.0.0.300:1' has no valid address:"
            " Octet 300 (> 255) not permitted in '127.0.0.300'"
        ),
    ),
    "a key in place of its digest": (
        MODELS + "server: {keys: [{name: a, sha256: sk-clear-key}]}\n",
        "f.yaml:2: server.keys[0].sha256: is not the SHA-256 digest of a key: 64 hexadecimal digits, in quotes",
    ),
    "a task that does not exist": (
        "models: {a: {task: chats, onnx: {path: x}}}",
        (
            "f.yaml:1: models.a.task: 'chats' is not one of chat, completion, embed, predict, infer, relay;"
            " did you mean 'chat'?"
        ),
    ),
    "a name with a space": (
        "models: {a b: {task: chat, onnx: {path: x}}}",
        (
            "f.yaml:1: models.a b: 'a b' is not a name: up to 128 letters, digits and . _ : / @ + -,"
            " the first a letter or digit"
        ),
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
        (
            "f.yaml:1: models.a.command.run: 'serve' does not contain {port}:"
            " the command must listen on the port that it is given there"
        ),
    ),
    "a command with an open quote": (
        'models: {a: {task: chat, command: {run: "x \' {port}"}}}',
        'f.yaml:1: models.a.command.run: "x \' {port}" is not a command line: no closing quotation',
    ),
    "a URL of another kind": (
        "models: {a: {task: chat, http: {url: 'ftp://u'}}}",
        (
            "f.yaml:1: models.a.http.url: 'ftp://u' is not a URL such as https://api.example.com/v1"
            " (http or https, no query)"
        ),
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
    "two keys of one name": (
        MODELS + f"server: {{keys: [{{name: k, sha256: '{'0' * 64}'}}, {{name: k, sha256: '{'1' * 64}'}}]}}\n",
        "f.yaml:2: server.keys[1].name: 'k' names two keys: give each its own name",
    ),
    "one key under two names": (
        MODELS + f"server: {{keys: [{{name: k, sha256: '{'0' * 64}'}}, {{name: l, sha256: '{'0' * 64}'}}]}}\n",
        "f.yaml:2: server.keys[1].sha256: is the digest of k too: give each client its own key",
    ),
    "a key that may do nothing": (
        MODELS + "server: {keys: [{name: k, sha256: '%s', requests_per_minute: 0}]}\n" % ("0" * 64),
        "f.yaml:2: server.keys[0].requests_per_minute: 0 is not a whole number ≥ 1",
    ),
    "gRPC at the address of HTTP": (
        MODELS + "server: {grpc: 'localhost:1', listen: 'localhost:1'}\n",
        "f.yaml:2: server.grpc: 'localhost:1' is server.listen too: give each its own port",
    ),
    "a certificate that is not there": (
        MODELS + "server: {tls: {certificate: no.pem, key: pyproject.toml}}\n",
        "f.yaml:2: server.tls.certificate: 'no.pem' is not a file",
    ),
    "a certificate without its key": (
        MODELS + "server: {tls: {certificate: pyproject.toml}}\n",
        "f.yaml:2: server.tls.key: is missing",
    ),
    "tensors for an upstream": (
        "models: {a: {task: infer, http: {url: 'http://u'}}}",
        "f.yaml:1: models.a.task: 'infer' needs the engine onnx: nothing else takes tensors",
    ),
    "a relay to nothing": (
        "models: {a: {task: relay, onnx: {path: x}}}",
        "f.yaml:1: models.a.task: 'relay' needs the engine command or http: onnx has nothing to pass through to",
    ),
    "an API that does not exist": (
        "models: {a: {task: chat, http: {url: 'http://u', api: claude}}}",
        "f.yaml:1: models.a.http.api: 'claude' is not one of openai, anthropic",
    ),
    "an embedder at Anthropic": (
        "models: {a: {task: embed, http: {url: 'http://u', api: anthropic}}}",
        "f.yaml:1: models.a.task: 'embed' is not chat, which is all that an upstream with the api anthropic does",
    ),
    "a relative file root": (
        MODELS + "batch: {file_roots: [tests]}\n",
        "f.yaml:2: batch.file_roots[0]: 'tests' is not an absolute path",
    ),
    "a file root that is not there": (
        MODELS + "batch: {file_roots: [/no/such]}\n",
        "f.yaml:2: batch.file_roots[0]: '/no/such' is not a directory",
    ),
    "an unsigned callback secret": (
        MODELS + "batch: {callback_secret: '${NOT_SET}'}\n",
        "f.yaml:2: batch.callback_secret: the environment variable NOT_SET is not set",
    ),
    "devices by name": (
        MODELS + "devices: {gpus: first}\n",
        "f.yaml:2: devices.gpus: 'first' is not none, all, or a list of indices such as [0, 1]",
    ),
    "memory in words": (
        MODELS + "devices: {host_memory: most}\n",
        (
            "f.yaml:2: devices.host_memory: 'most' is not a size such as 256MiB"
            " (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB), or a share such as 80%"
        ),
    ),
    "keep-warm in words": (
        "models: {a: {task: chat, onnx: {path: x}, pool: {keep_warm: always}}}",
        "f.yaml:1: models.a.pool.keep_warm: 'always' is not a time such as 90s (units: ms, s, m, h, d), or predict",
    ),
}


@pytest.mark.parametrize(("text", "expected"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_told_line_key_value_and_what_is_allowed(text: str, expected: str) -> None:
    """Each fault has exactly one line of text, which names where it is, what was written and what is allowed."""
    with pytest.raises(ConfigError) as caught:
        parse(text, {}, source="f.yaml")
    assert str(caught.value) == expected
