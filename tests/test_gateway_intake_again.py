"""Requests with the head of the one before: read without a parser, and never otherwise than with it."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gateway.intake import Incoming, Intake

LIMIT = 1000


def request(body: bytes, *headers: str, path: str = "/a?b=c", version: str = "1.1") -> bytes:
    """Write a request with a length."""
    lines = [f"POST {path} HTTP/{version}", "Host: x", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


REQUESTS = [
    request(b"one"),
    request(b"two"),
    request(b"three"),
    request(b""),
    request(b"\r\n\r\n"),
    request(b"one", "X-A: 1"),
    request(b"two", "Connection: close"),
    request(b"one", version="1.0"),
    request(b"one", "Expect: 100-continue"),
    request(b"one", "Upgrade: h2c", "Connection: Upgrade"),
    request(b"one").replace(b"Content-Length: 3", b"Transfer-Encoding: chunked")[:-3] + b"3\r\none\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\n" + request(b"one"),
    b"rubbish\r\n\r\n",
]


def read(pieces: Sequence[bytes], intake: Intake | None = None) -> list[object]:
    """Feed one intake, or a fresh one for each piece, up to a refusal."""
    came: list[object] = []
    for piece in pieces:
        reader = intake or Intake(LIMIT, lambda _: None)
        came += [turn if isinstance(turn, Incoming) else str(turn) for turn in reader.feed(piece)]
    return came


@given(st.lists(st.sampled_from(REQUESTS), max_size=8))
def test_a_connection_reads_what_fresh_ones_would(requests):
    """Whatever came before, each request means what it means alone."""
    intake = Intake(LIMIT, lambda _: None)
    for one in requests:
        alone = read([one])
        assert read([one], intake) == alone
        if intake.closed or not all(isinstance(turn, Incoming) and turn.keep_alive for turn in alone):
            break


@given(st.lists(st.sampled_from(REQUESTS[:6]), max_size=5), st.integers(1, 200))
def test_however_the_bytes_are_cut(requests, step):
    """Pieces that are no whole request are put together as ever."""
    data = b"".join(requests)
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert read(pieces, Intake(LIMIT, lambda _: None)) == read(requests)


def test_a_limit_that_shrinks_holds_at_once():
    """The head was seen before; its body has become too long."""
    intake = Intake(LIMIT, lambda _: None)
    assert len(intake.feed(request(b"x" * 100))) == 1
    intake.max_body_bytes = 50
    assert not isinstance(intake.feed(request(b"y" * 100))[0], Incoming)
