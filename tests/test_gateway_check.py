"""`warmgate check`, `schema` and `--version`: what they print, and how they ask a gateway that runs."""

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from config.load import load
from config.plain import plain
from gateway.main import main, own_url
from gateway.pages.asking import CannotAsk, in_force

FILE = "server: {listen: '127.0.0.1:%d'}\nmodels: {a: {task: chat, command: {run: 'sh {port}'}, pool: {max: %d}}}\n"


@contextmanager
def answering(body: bytes, status: int = 200, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Answer every request with this, and give the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/admin/config" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def state(path: Path, file: Path) -> bytes:
    """Return what a gateway says that runs with the settings of `path` and says that they are from `file`."""
    return json.dumps({"generation": 4, "file": str(file), "settings": plain(load(path, {}))}).encode()


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Run the command line and return its exit status, output and errors."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code, *capsys.readouterr()


def written(path: Path, port: int, maximum: int) -> Path:
    """Write a config file."""
    path.write_text(FILE % (port, maximum), encoding="utf-8")
    return path


def test_two_files_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--against` tells line by line what changes from the other file to this one, or that nothing does."""
    one, other = written(tmp_path / "one.yaml", 1, 2), written(tmp_path / "other.yaml", 1, 3)
    assert said(capsys, "check", str(one), "--against", str(other)) == (
        0,
        (
            f"{one}: 1 models, 0 routes, no faults\n"
            f"against {other}:\n"
            "  models.a.pool.max: 3 → 2: takes effect at once, without a restart\n"
        ),
        "",
    )
    assert said(capsys, "check", str(one), "--against", str(one))[1].endswith(":\n  nothing changes\n")


def test_a_fault_of_either_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A faulty file, or a faulty one to compare it with, ends with the faults and status 2."""
    good, bad = written(tmp_path / "good.yaml", 1, 1), written(tmp_path / "bad.yaml", 1, 0)
    for arguments in (("check", str(bad)), ("check", str(good), "--against", str(bad))):
        status, _, errors = said(capsys, *arguments)
        assert status == 2
        assert errors == f"{bad}:2: models.a.pool.max: 0 is not a whole number ≥ 1\n"


@pytest.mark.parametrize(
    ("server", "key"),
    [
        ("listen: '0.0.0.0:8080'", "server.listen"),
        ("listen: 'gateway.example:8080'", "server.listen"),
        ("grpc: '[::]:8081'", "server.grpc"),
        ("listen: 'localhost:8080', grpc: '[::1]:8081'", None),
        (f"listen: '0.0.0.0:8080', keys: [{{name: a, sha256: '{'0' * 64}'}}]", None),
    ],
)
def test_an_address_that_nobody_else_may_use_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], server: str, key: str | None
) -> None:
    """Who listens for other machines and has no keys for them is told that they are refused; it is no fault."""
    file = tmp_path / "f.yaml"
    file.write_text(f"server: {{{server}}}\n{FILE.splitlines()[1] % 1}\n", encoding="utf-8")
    status, _, errors = said(capsys, "check", str(file), "--against", str(file))
    assert status == 0
    assert said(capsys, "check", str(file), "--against", str(file), "--strict")[0] == (0 if key is None else 2)
    if key is None:
        assert errors == ""
    else:
        assert errors.startswith(f"{file}:1: {key}: other machines reach")
        assert errors.endswith("and are refused: without 'server.keys' only this machine is served\n")


def test_files_that_the_settings_name_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be served here is told with its line, and is no fault of the file: it may be meant for elsewhere."""
    manifest = "task: embed\ninputs: {ids: i, mask: m}\noutput: o\nlimits: {max_tokens: 8, max_batch: 1}\n"
    for name, files in {"whole": ("model.onnx", "tokenizer.json"), "part": ("model.onnx",), "empty": ()}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(b"")
        if files:
            (tmp_path / name / "model.yaml").write_text(manifest, encoding="utf-8")
    file = tmp_path / "f.yaml"
    models = {
        "sound": ("embed", "whole"),
        "c": ("predict", "whole"),
        "a": ("embed", "part"),
        "b": ("chat", "empty"),
    }
    lines = [f"  {name}: {{task: {task}, onnx: {{path: {tmp_path / path}}}}}" for name, (task, path) in models.items()]
    (tmp_path / "c.pem").write_text("nothing", encoding="utf-8")
    tls = f"server: {{listen: '127.0.0.1:0', tls: {{certificate: {tmp_path}/c.pem, key: {tmp_path}/c.pem}}}}"
    file.write_text("\n".join([tls, "models:", *lines]), encoding="utf-8")

    status, output, errors = said(capsys, "check", str(file))

    assert (status, output) == (
        0,
        f"{file}: 4 models, 0 routes, no faults in itself, but 4 that this machine cannot serve\n",
    )
    assert said(capsys, "check", str(file), "--strict") == (2, output, errors)
    end = "cannot be served on this machine"
    told = errors.splitlines()
    assert told[0] == f"{file}:1: server.tls: {tmp_path}/c.pem: no PEM file, it has no line '-----BEGIN …': {end}"
    assert told[1] == f"{file}:4: models.c.onnx.path: the model in {tmp_path}/whole does embed, not predict: {end}"
    assert told[2] == f"{file}:5: models.a.onnx.path: {tmp_path}/part/tokenizer.json does not exist: {end}"
    assert told[3].startswith(f"{file}:6: models.b.onnx.path: {tmp_path}/empty/model.yaml: ")
    assert len(told) == 4


def test_what_is_lacking_here_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A program that is not there, places that cannot be written to, and odd URLs are told of, each with its line."""
    (tmp_path / "taken").touch()
    lines = [
        f"server: {{listen: '127.0.0.1:0', access_log: {tmp_path}}}",
        f"cache: {{directory: {tmp_path}/taken/cache}}",
        f"batch: {{directory: {tmp_path}/taken}}",
        "models:",
        "  a: {task: chat, command: {run: 'no-such-program {port}'}}",
        f"  b: {{task: chat, command: {{run: '{tmp_path}/taken {{port}}'}}}}",
        "  c: {task: chat, command: {run: 'own {port}', env: {PATH: /nowhere}}}",
        "  d: {task: chat, http: {url: 'https://api.example.com'}}",
        "  e: {task: chat, http: {url: 'https://api.example.com/v1/chat/completions'}}",
        "  f: {task: chat, command: {run: 'sh {port}'}}",
        "  g: {task: chat, http: {url: 'https://api.example.com/v1'}}",
    ]
    file = tmp_path / "f.yaml"
    file.write_text("\n".join(lines), encoding="utf-8")

    status, output, errors = said(capsys, "check", str(file))

    assert (status, output.endswith("no faults in itself, but 1 that this machine cannot serve\n")) == (0, True)
    assert said(capsys, "check", str(file), "--strict") == (2, output, errors)
    none = "no replica can start"
    url = "https://api.example.com"
    assert errors.splitlines() == [
        f"{file}:3: batch.directory: {tmp_path}/taken is not a directory: cannot be served on this machine",
        f"{file}:1: server.access_log: {tmp_path} is a directory: requests are not written down",
        (
            f"{file}:2: cache.directory: {tmp_path}/taken is not a directory:"
            " what is cached or learned does not outlive a restart"
        ),
        f"{file}:5: models.a.command.run: no program 'no-such-program' is on the PATH: {none}",
        f"{file}:6: models.b.command.run: no program '{tmp_path}/taken' is at {tmp_path}/taken: {none}",
        f"{file}:7: models.c.command.run: no program 'own' is on the PATH: {none}",
        f"{file}:8: models.d.http.url: {url} has no path, so that requests go to {url}/…: most upstreams want {url}/v1",
        (
            f"{file}:9: models.e.http.url: {url}/v1/chat/completions is the address of one kind of request:"
            f" those paths are put behind it, so write {url}/v1"
        ),
    ]


def test_what_would_be_refused_here_promises_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the machine cannot serve an edit no change of it takes effect, and none is said to."""
    before, file = written(tmp_path / "before.yaml", 1, 1), tmp_path / "f.yaml"
    text = FILE % (1, 2) + f"  b: {{task: embed, onnx: {{path: {tmp_path}/none}}}}\n"
    file.write_text(text.replace("models: {a: {", "models:\n  a: {").replace("}}}\n", "}}\n", 1), encoding="utf-8")

    status, output, errors = said(capsys, "check", str(file), "--against", str(before))

    refused = "would be refused on this machine with the whole edit; what is in force would stay"
    assert output.splitlines()[1:] == [
        f"against {before}:",
        f"  models.a.pool.max: 1 → 2: {refused}",
        f"  models.b: added: {refused}",
    ]
    assert (status, errors.count("cannot be served on this machine")) == (0, 1)


def test_a_gateway_that_serves_the_file_is_asked_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where a gateway answers that was started from the same file, the check tells what the edit changes in it."""
    before = written(tmp_path / "before.yaml", 1, 1)
    file = tmp_path / "f.yaml"
    with answering(state(before, file)) as port:
        written(before, port, 1)
        written(file, port, 2)
        _, output, _ = said(capsys, "check", str(file))
    assert output.splitlines()[1:] == [
        f"against http://127.0.0.1:{port} (generation 4):",
        (
            f"  server.listen: '127.0.0.1:1' → '127.0.0.1:{port}': listens there, and at the old address no more;"
            " open connections stay"
        ),
        "  models.a.pool.max: 1 → 2: takes effect at once, without a restart",
    ]


def test_another_gateway_is_asked_only_where_it_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A gateway of another file is not compared with by itself, and is with `--url`."""
    file, other = written(tmp_path / "f.yaml", 1, 2), written(tmp_path / "other.yaml", 1, 1)
    with answering(state(other, other)) as port:
        written(file, port, 2)
        assert said(capsys, "check", str(file))[1] == f"{file}: 1 models, 0 routes, no faults\n"
        assert "models.a.pool.max: 1 → 2" in said(capsys, "check", str(file), "--url", f"http://127.0.0.1:{port}/")[1]


def test_no_gateway_is_a_fault_only_where_one_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nobody listens, a check is as good as ever; with `--url` it says so."""
    with answering(b"") as port:
        pass  # the port was free, and is again
    file = written(tmp_path / "f.yaml", port, 1)
    assert said(capsys, "check", str(file)) == (0, f"{file}: 1 models, 0 routes, no faults\n", "")
    url = f"http://127.0.0.1:{port}"
    assert said(capsys, "check", str(file), "--url", url)[::2] == (
        1,
        f"warmgate: {url} cannot be asked: no server listens there\n",
    )


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (403, b'{"error": "only loopback"}', 'answers with status 403: {"error": "only loopback"}'),
        (200, b"<html>", "does not answer as a warmgate does"),
        (200, b"\xff\xfe", "does not answer as a warmgate does"),
        (200, b"[" * 100_000, "does not answer as a warmgate does"),
        (200, b'{"file": "f", "generation": 1, "settings": []}', "does not answer as a warmgate does"),
    ],
)
def test_what_is_no_gateway_of_ours_is_told_apart(status: int, body: bytes, words: str) -> None:
    """Whatever answers in place of a gateway gives one error that says what it did."""
    with answering(body, status) as port, pytest.raises(CannotAsk) as caught:
        in_force(f"http://127.0.0.1:{port}", None, 5.0)
    assert str(caught.value) == f"http://127.0.0.1:{port}/admin/config {words}"


def test_https_trusts_the_certificate_of_the_file_and_no_other(tmp_path: Path) -> None:
    """A gateway with TLS is known by its own certificate, whatever its name; a stranger is not asked."""
    file = written(tmp_path / "f.yaml", 1, 1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificates = []
    for name in ("ours", "other"):
        issued = trustme.CA().issue_cert("gateway.example")
        certificates.append(tmp_path / f"{name}.pem")
        issued.private_key_and_cert_chain_pem.write_to_path(certificates[-1])
    context.load_cert_chain(certificates[0])
    with answering(state(file, file), tls=context) as port:
        assert in_force(f"https://127.0.0.1:{port}", certificates[0], 5.0).generation == 4
        for stranger in (certificates[1], None):
            with pytest.raises(CannotAsk, match="certificate verify failed"):
                in_force(f"https://127.0.0.1:{port}", stranger, 5.0)


@pytest.mark.parametrize("url", ["ftp://h", "127.0.0.1:1", "http://", "http://h:99999", "http://[", "http://a b\n"])
def test_what_is_no_url_is_told(url: str) -> None:
    """A URL that cannot be asked is an error in words, whatever is wrong with it."""
    with pytest.raises(CannotAsk, match="cannot be asked"):
        in_force(url, None, 0.1)


@pytest.mark.parametrize(
    ("server", "url"),
    [
        ("listen: '127.0.0.1:9123'", "http://127.0.0.1:9123"),
        ("listen: '0.0.0.0:9123'", "http://127.0.0.1:9123"),
        ("listen: '[::]:9123'", "http://[::1]:9123"),
        ("listen: '127.0.0.1:0'", None),
    ],
)
def test_the_quickstart_tells_the_address_of_its_file(tmp_path: Path, server: str, url: str | None) -> None:
    """It is the one that the file listens at, as it is reached from this machine; none where the kernel chooses."""
    file = tmp_path / "f.yaml"
    file.write_text(f"server: {{{server}}}\n{FILE.splitlines()[1] % 1}\n", encoding="utf-8")
    assert own_url(str(file)) == url


def test_a_check_tells_how_it_goes_without_secrets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable that is not set is a fault still; a stand-in does for the check, and the message has one that fits."""
    monkeypatch.delenv("NOBODYS_KEY", raising=False)
    file = tmp_path / "f.yaml"
    file.write_text(
        "models: {far: {task: chat, http: {url: 'https://example.com/v1', key: '${NOBODYS_KEY}'}}}\n"
        f"cache: {{directory: {tmp_path}, shared: {{url: '${{NOBODYS_KEY}}'}}}}\n"
    )
    status, _, errors = said(capsys, "check", str(file))
    assert status == 2
    assert "NOBODYS_KEY is not set\n" in errors
    monkeypatch.setenv("NOBODYS_KEY", errors.split("such as NAME=")[1].split(",")[0])
    assert said(capsys, "check", str(file))[0] == 0


def test_the_schema_and_the_version_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`warmgate schema` prints config/schema.json, and `--version` the version."""
    written = Path(__file__).parent.parent / "config" / "schema.json"
    assert said(capsys, "schema")[1] == written.read_text(encoding="utf-8")
    assert said(capsys, "--version")[1].startswith("warmgate 0.")
