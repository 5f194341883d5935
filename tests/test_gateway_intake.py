"""What of HTTP/1.1 is read and what is refused: framings, heads, targets, and compressed bodies."""

import asyncio
import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BodyTooLarge, InvalidRequest, RequestRefused, Unauthorized, fault
from gateway.serving.inflate import inflate
from gateway.serving.intake import HEAD_LIMIT_BYTES, Incoming, Intake

LIMIT = 1000
CODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "deflate-raw": lambda data: zlib.compress(data, wbits=-15),
}


def read(data: bytes, *, admit=lambda _headers: None) -> list[Incoming | RequestRefused]:
    """Read bytes with an intake of its own."""
    return Intake(LIMIT, admit).feed(data)


def refused(data: bytes) -> tuple[int, str]:
    """Return the status and the words of the one refusal that the bytes get."""
    (error,) = read(data)
    assert isinstance(error, RequestRefused)
    return fault(error).status, str(error)


def post(*headers: bytes, version: bytes = b"1.1") -> bytes:
    """Make the head of a POST."""
    return b"\r\n".join([b"POST /v1/chat/completions HTTP/" + version, *headers]) + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (post(), 400, "exactly one Host header, got None"),
        (post(b"Host: a", b"Host: b"), 400, "exactly one Host header, got 'a, b'"),
        (post(b"Host: a", version=b"2.0"), 400, "HTTP/2.0 is not spoken here"),
        (b"GET /\r\n\r\n", 400, "HTTP/0.9 is not spoken here"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "HTTP/2 is not spoken here"),
        (post(b"Host: a", b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400, "HTTP/1.1"),
        (post(b"Host: a", b"Transfer-Encoding: gzip, chunked"), 400, "chunked alone"),
        (post(b"Host: a", b"Transfer-Encoding: chunked", version=b"1.0"), 400, "chunked alone"),
        (post(b"Host: a", b"Transfer-Encoding: chunked") + b"-1\r\n", 400, "chunk size"),
        (post(b"Host: a", b"Transfer-Encoding: chunked") + b"f" * 17 + b"\r\n", 400, "overflow"),
        (post(b"Host: a", b"Content-Length: 18446744073709551616"), 400, "overflow"),
        (post(b"Host: a", b"Content-Length: +3"), 400, "Content-Length"),
        (post(b"Host: a", b"Content-Length: 3, 3"), 400, "Content-Length"),
        (post(b"Host: a", b"X: a", b" folded"), 400, "whitespace"),
        (post(b"Host: a", b"X: a\0b"), 400, "header value"),
        (post(b"Host: a", "N\u00e4me: a".encode()), 400, "header token"),
        (post(b"Host : a"), 400, "header token"),
        (b"GET / HTTP/1.1\nHost: a\n\n", 400, "CRLF"),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400, "url"),
        (b"GET http://[::1 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "the request's target is no URL"),
        (b"FETCH / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "method"),
        (post(b"Host: a", b"X: " + b"x" * 2**20), 431, "head is too long"),
        (post(b"Host: a", *[b"X: y"] * 40_000), 431, "head is too long"),
        (b"GET /" + b"x" * 2**20, 431, "head is too long"),
        (b"GET /" + b"x" * 2**14 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 431, "target is too long"),
        (post(b"Host: a", b"Content-Encoding: br"), 415, "allowed is one of gzip, deflate"),
        (post(b"Host: a", b"Content-Encoding: gzip, gzip"), 415, "allowed is one of gzip, deflate"),
        (post(b"Host: a", b"Content-Length: 1001"), 413, "the body has 1001 bytes; at most 1000"),
    ],
)
def test_refused_at_its_head(data: bytes, status: int, words: str) -> None:
    """What is ambiguous, too long, or not HTTP/1.1 is refused with the reason; nothing after it is read."""
    got, said = refused(data)

    assert got == status
    assert words in said


@pytest.mark.parametrize(
    "head", [b"Content-Encoding: br", b"Content-Length: 1001", b"Transfer-Encoding: gzip, chunked"]
)
def test_nothing_behind_a_refusal_is_read(head: bytes) -> None:
    """What came in the same piece as a refused request, be it another's beginning, begins nothing."""
    intake = Intake(LIMIT, lambda _headers: None)
    behind = post(b"Host: a", b"Expect: 100-continue", b"Content-Length: 5")
    came = intake.feed(post(b"Host: a", head) + behind + b"hello" + behind)

    assert len(came) == 1
    assert (intake.closed, intake.reading, intake.expecting) == (True, False, False)
    assert intake.feed(behind) == []


def test_long_head_is_not_kept() -> None:
    """A header that never ends is cut off near the limit, however much of it arrives."""
    intake = Intake(LIMIT, lambda _headers: None)
    assert intake.feed(post(b"Host: a")[:-2] + b"X: ") == []
    tracemalloc.start()
    fed = 0
    while not intake.closed:
        intake.feed(b"x" * 4096)
        fed += 4096
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert fed <= HEAD_LIMIT_BYTES + 4096
    assert peak < 8 * HEAD_LIMIT_BYTES


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a?b=%20", "/a", "b=%20"),
        (b"http://somewhere/a?b", "/a", "b"),
        (b"http://somewhere", "/", ""),
        (b"*", "*", ""),
        (b"/v1/models/a%2Fb", "/v1/models/a/b", ""),
        (b"/a%00%0a", "/a\0\n", ""),
        (b"/%ff", "/\N{REPLACEMENT CHARACTER}", ""),
        (b"/../../etc/passwd", "/../../etc/passwd", ""),
    ],
)
def test_target_becomes_path_and_query(target: bytes, path: str, query: str) -> None:
    """A target may be a path or a whole URL; escapes are undone once, and nothing is resolved."""
    (came,) = read(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")

    assert isinstance(came, Incoming)
    assert (came.path, came.query) == (path, query)


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ([b"Content-Length: 1000"], False),
        ([b"Transfer-Encoding: chunked"], True),
        ([b"Expect: 100-continue", b"Content-Length: 5"], True),
    ],
)
def test_client_is_looked_at_before_a_long_body(headers: list[bytes], asked: bool) -> None:
    """Before a body of unknown or great length is read its client is known; the refusal says for which path it is."""

    def admit(_headers: object) -> None:
        raise Unauthorized("who?")

    came = read(post(b"Host: a", *headers), admit=admit)

    assert [(type(error), error.path) for error in came if isinstance(error, RequestRefused)] == (
        [(Unauthorized, "/v1/chat/completions")] if asked else []
    )


def test_great_body_needs_a_known_client() -> None:
    """A body that could not have come with its head is not read for a stranger."""

    def admit(_headers: object) -> None:
        raise Unauthorized("who?")

    intake = Intake(2**20, admit)
    (error,) = intake.feed(post(b"Host: a", b"Content-Length: 70000"))

    assert isinstance(error, Unauthorized)
    assert intake.closed


@pytest.mark.parametrize("coding", CODERS)
@given(data=st.binary(max_size=LIMIT))
def test_compressed_body_is_undone(coding: str, data: bytes) -> None:
    """Each coding gives back what went in, `deflate` with and without zlib's head."""
    assert asyncio.run(inflate(CODERS[coding](data), coding.removesuffix("-raw"), LIMIT)) == data


@pytest.mark.parametrize("coding", CODERS)
async def test_compressed_body_that_is_broken(coding: str) -> None:
    """What ends too early, goes on behind its end, or is no such coding at all is refused."""
    body, coding = CODERS[coding](b"hello" * 100), coding.removesuffix("-raw")
    for broken in (body[:-1], body[: len(body) // 2], body + b"x", body + body, b"", b"\xff\xfe no coding"):
        with pytest.raises(InvalidRequest, match=coding):
            await inflate(broken, coding, LIMIT)


@given(data=st.binary(max_size=100), coding=st.sampled_from(["gzip", "deflate"]))
def test_no_bytes_break_the_undoing(data: bytes, coding: str) -> None:
    """Any bytes are either undone or refused."""
    with contextlib.suppress(InvalidRequest, BodyTooLarge):
        asyncio.run(inflate(data, coding, LIMIT))


async def test_bomb_is_refused_at_the_limit() -> None:
    """A body that would become a thousand times its size takes no more than the limit and one step; others run."""
    limit = 4 * 2**20
    bomb = gzip.compress(bytes(256 * 2**20))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    others = asyncio.create_task(count())
    tracemalloc.start()
    with pytest.raises(BodyTooLarge, match="at most 4194304 bytes are read"):
        await inflate(bomb, "gzip", limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    others.cancel()

    assert peak < 3 * limit
    assert turns >= 4


async def test_body_of_exactly_the_limit_is_read() -> None:
    """The limit itself is allowed."""
    assert len(await inflate(gzip.compress(bytes(LIMIT)), "gzip", LIMIT)) == LIMIT
