"""Where the inputs of a batch come from: lines, files below the roots, and nothing that lies elsewhere."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batch import files, lines
from gateway.batch.contract import BatchPolicy
from gateway.batch.outbound import Outbound
from gateway.batch.sources import Sources
from gateway.errors import InvalidRequest

PLENTY = 2**30


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    """Yield the data in pieces."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def read_lines(data: bytes, size: int = 7, most: int = PLENTY) -> list[tuple[str, object]]:
    """Read all inputs of a file."""

    async def read() -> list[tuple[str, object]]:
        return [found async for found in lines.values(pieces(data, size), most)]

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("data", "values"),
    [
        (b"", []),
        (b"\n \r\n\n", []),
        (b"one\ntwo words\r\n\n  three  ", ["one", "two words", "three"]),
        (b'"one"\n{"input": "two"}\n', ["one", {"input": "two"}]),
        (b'\xef\xbb\xbf"one"', ["one"]),
        (b'"Well", she said\n"x"', ['"Well", she said', '"x"']),
        (b"12\n[1]\nnull", ["12", "[1]", "null"]),
        ("é…\n".encode(), ["é…"]),
        (b"[INST] go [/INST]\n[1] see above", ["[INST] go [/INST]", "[1] see above"]),
        (b"a\n[", ["a", "["]),
    ],
)
def test_a_file_holds_json_lines_or_plain_text(data, values):
    """The first line that says something decides which; blank lines are none."""
    assert [value for _, value in read_lines(data)] == values


@given(
    st.lists(st.text(min_size=1).filter(lambda text: text.strip()) | st.dictionaries(st.text(), st.booleans())),
    st.integers(1, 50),
)
def test_the_size_of_the_pieces_does_not_matter(values, size):
    """However the bytes arrive, every JSON line is read as it was written."""
    data = b"".join(json.dumps(value).encode() + b"\n" for value in values)

    assert [value for _, value in read_lines(data, size)] == values


@given(st.binary(), st.integers(1, 9))
def test_any_bytes_are_read_or_refused(data, size):
    """Whatever a file holds, it is inputs or one clear error."""
    with contextlib.suppress(InvalidRequest):
        found = read_lines(data, size)
        assert [where for where, _ in found] == [
            f"line {place}"
            for place, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1)
            if line.strip()
        ]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'"a"\n\nb', "line 3 is not valid JSON"),
        (b"a\n\xff\xfe", "line 2 is not valid UTF-8"),
        (b'["a", "b"]', "JSON lines are wanted"),
        (b'\n[\n  {"prompt": "a"}\n]\n', "JSON lines are wanted"),
        (b'\xef\xbb\xbf[ {"prompt": "a"},\n', "JSON lines are wanted"),
        (b'["' + b"x" * (lines.MAX_LINE_BYTES + 1), "JSON lines are wanted"),
        (b"a\n" + b"x" * (lines.MAX_LINE_BYTES + 1), "line 2 has more than"),
        (b"a\n" + b"x" * (lines.MAX_LINE_BYTES + 1) + b"\n", "line 2 has more than"),
    ],
)
def test_a_bad_line_is_named(data, message):
    """The error says which line it is."""
    with pytest.raises(InvalidRequest, match=message):
        read_lines(data, 65536)


def test_too_many_bytes_are_not_read_to_their_end():
    """Reading stops with the piece that is too much, though nothing but blank lines came."""
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"\n" * 100

    async def read() -> None:
        async for _ in lines.values(endless(), 1000):
            pass

    with pytest.raises(InvalidRequest, match=r"batch\.max_bytes"):
        asyncio.run(read())
    assert taken == 11


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Make a root with files, links and odd things in it, and a secret beside it."""
    root = tmp_path / "base"
    (root / "deep").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"inside")
    (root / "deep" / "a b.txt").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "base-2").mkdir()
    (tmp_path / "base-2" / "secret").write_bytes(b"secret")
    (root / "out").symlink_to(tmp_path / "secret")
    (root / "up").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "a.txt")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    "path", ["base/a.txt", "base/deep/a%20b.txt", "base/in", "base/deep/../a.txt", "base//./a.txt", "base/a.txt/"]
)
def test_files_below_a_root_are_read(tree, path):
    """Also by a link that stays inside."""
    assert b"".join(files.pieces(f"file://{tree}/{path}", (tree / "base",), PLENTY)) == b"inside"


def test_a_root_may_be_a_link(tree):
    """What the operator names is followed."""
    assert b"".join(files.pieces(f"file://{tree}/base/a.txt", (tree / "base" / "up" / "base",), PLENTY)) == b"inside"


@pytest.mark.parametrize(
    "path",
    [
        "/secret", "/base/../secret", "/base/%2e%2e/secret", "/base/..%2fsecret", "/base/out", "/base/up/secret",
        "/base-2/secret", "/base/deep/../../secret", "/base/loop", "/base/pipe", "/base", "/base/", "/base/deep",
        "/base/none", "/base/a.txt/x", "/base/a.txt%00", "/base/%ff", "/base/" + "x" * 5000,
    ],
)  # fmt: skip
def test_nothing_else_is_read(tree, path):
    """Neither what lies outside, nor what is no regular file; and the error does not tell which it was."""
    with pytest.raises(InvalidRequest, match=r"is no readable file under 'batch\.file_roots'"):
        b"".join(files.pieces(f"file://{tree}{path}", (tree / "base",), PLENTY))


@pytest.mark.parametrize(
    "reference",
    ["file://host/base/a.txt", "file:a.txt", "file://", "file:///dev/zero?x", "file:///etc/passwd#x", "file://%2fetc"],
)
def test_a_reference_has_one_form(reference):
    """It is an absolute path of this machine."""
    with pytest.raises(InvalidRequest, match="is no 'file:///absolute/path'"):
        b"".join(files.pieces(reference, (Path("/"),), PLENTY))


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/stdin", "/proc/self/fd/0"])
def test_devices_are_not_read(path):
    """Even below a root that has them, what never ends is not begun."""
    with pytest.raises(InvalidRequest):
        b"".join(files.pieces(f"file://{path}", (Path("/"),), PLENTY))


def test_a_link_put_in_place_after_the_look_is_not_followed(tree, monkeypatch):
    """Between the resolving of a path and the opening of the file, nothing that is exchanged leads out."""
    root = tree / "base"
    real = os.path.realpath

    def exchange_after(path: Path) -> str:
        resolved = real(path)
        if str(resolved).endswith("a b.txt") and not (root / "deep").is_symlink():
            (root / "deep").rename(root / "moved")
            (root / "deep").symlink_to(tree)
            (tree / "a b.txt").write_bytes(b"secret")
        return resolved

    monkeypatch.setattr(os.path, "realpath", exchange_after)
    with pytest.raises(InvalidRequest):
        b"".join(files.pieces(f"file://{root}/deep/a%20b.txt", (root,), PLENTY))
    assert (root / "deep").is_symlink()


def test_a_large_file_is_refused_before_it_is_read(tree):
    """Its size is known at once."""
    with pytest.raises(InvalidRequest, match="more than 5 bytes"):
        next(files.pieces(f"file://{tree}/base/a.txt", (tree / "base",), 5))


async def read_inputs(inputs: object, **policy: object) -> list[tuple[str, object]]:
    """Read the inputs of an order."""
    outbound = Outbound(lambda: False)
    try:
        async with aclosing(Sources(outbound, lambda: BatchPolicy(**policy)).read(inputs)) as values:
            return [found async for found in values]
    finally:
        await outbound.close()


async def test_inputs_are_inline_or_in_a_file(tree):
    """Each comes with the place where it stands."""
    (tree / "base" / "l.jsonl").write_bytes(b'"x"\n\n{"input": "y"}\n')
    reference = f"file://{tree}/base/l.jsonl"

    assert await read_inputs(["x", {"a": 1}]) == [("inputs[0]", "x"), ("inputs[1]", {"a": 1})]
    assert await read_inputs(reference, file_roots=(tree / "base",)) == [("line 1", "x"), ("line 3", {"input": "y"})]


@pytest.mark.parametrize(
    "inputs",
    [None, [], {}, 1, "", "text", "ftp://host/x", "http://example.com/x", "FILE:///etc/passwd", "file:///etc/passwd",
     "s3://b", "s3://Bucket/key", "s3://bucket/key", "s3://a@b/key", "https://", "https://127.0.0.1/", "\x00"],
)  # fmt: skip
async def test_other_inputs_are_refused(inputs):
    """Other types, schemes and places are one clear error that names the field."""
    with pytest.raises(InvalidRequest) as caught:
        await read_inputs(inputs)

    assert caught.value.param == "inputs"


async def test_a_list_of_references_is_read_file_by_file(tmp_path):
    """The inputs of each follow one another, and each tells where it stands."""
    for name, data in (("one", b"a\nb\n"), ("two", b'"c"\n')):
        (tmp_path / name).write_bytes(data)
    urls = [f"file://{tmp_path}/{name}" for name in ("two", "one")]

    found = await read_inputs(urls, file_roots=(tmp_path,))

    assert found == [("inputs[0], line 1", "c"), ("inputs[1], line 1", "a"), ("inputs[1], line 2", "b")]


async def test_addresses_of_the_web_beside_other_texts_are_texts():
    """A model may well be asked about one; only a list of nothing else refers to files."""
    texts = ["https://example.com/", "what is this?"]

    assert [value for _, value in await read_inputs(texts)] == texts


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (["text", "file:///a"], r"'inputs\[1\]' refers to a file, 'file:///a', and 'inputs\[0\]' does not"),
        (["s3://bucket/key", {"prompt": "x"}], r"'inputs\[0\]' refers to a file"),
        (["file:///a"] * 101, "up to 100 files, got 101"),
        (["file:///a", "https://x y/"], r"is no readable file under 'batch\.file_roots'"),
        ([], "non-empty list"),
        (7, "non-empty list"),
    ],
)
async def test_references_and_inputs_are_not_mixed(inputs, message):
    """A reference among texts is refused, and not read as one of them."""
    with pytest.raises(InvalidRequest, match=message):
        await read_inputs(inputs)
