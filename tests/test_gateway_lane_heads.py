"""Heads that are known: read without a parser, and never otherwise than with it."""

import re
from collections.abc import Iterator
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.caching import cache_control
from gateway.callers.auth import Gatekeeper, Key
from gateway.lane.heads import END, MEANING, WEIGHED, Heads
from gateway.serving.intake import Incoming, Intake
from gateway.surfaces import anthropic
from gateway.surfaces.oip.surface import HEADER_LENGTH

LIMIT = 1000
GATEWAY = Path(__file__).parent.parent / "gateway"
# Who calls is known by these; of the others the server reads how the request is framed, and answers those by itself.
OF_THE_CALLER = {"api-key", "authorization", "x-api-key", "host"}
OF_THE_FRAME = {"content-length", "content-encoding", "transfer-encoding", "expect", "upgrade"}


def request(body: bytes, *headers: str, path: str = "/a?b=c", version: str = "1.1") -> bytes:
    """Write a request with a length."""
    lines = [f"POST {path} HTTP/{version}", "Host: x", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + END + body


REQUESTS = [
    request(b"one"),
    request(b"two"),
    request(b"three"),
    request(b"four", "X-A: 1"),
    request(b"", "X-A: 1"),
    request(b"\r\n\r\n"),
    request(b"x" * LIMIT),
    request(b"x" * (LIMIT + 1)),
    request(b"x" * 10**5),
    request(b"one").replace(b"Content-Length: 3", b"content-length: 3"),
    request(b"one").replace(b"Content-Length: 3", b"Content-Length: 03"),
    request(b"one", "X-Length: y\r\nContent-Length: 3"),
    request(b"one", "Connection: close"),
    request(b"one", version="1.0"),
    request(b"one", "Expect: 100-continue"),
    request(b"one", "Content-Encoding: gzip"),
    request(b"one", "Upgrade: h2c", "Connection: Upgrade"),
    request(b"one").replace(b"Content-Length: 3", b"Transfer-Encoding: chunked")[:-3] + b"3\r\none\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\n" + request(b"one"),
    b"rubbish\r\n\r\n",
]


def read(data: bytes) -> tuple[Intake, list[Incoming | str]]:
    """Read bytes with a parser."""
    intake = Intake(LIMIT, lambda _: None)
    return intake, [turn if isinstance(turn, Incoming) else str(turn) for turn in intake.feed(data)]


@given(st.lists(st.sampled_from(REQUESTS), max_size=12))
def test_a_known_head_means_what_a_parser_reads(requests: list[bytes]) -> None:
    """Whatever was learned before, each request means what it means alone, and keeps its connection open."""
    heads = Heads(Gatekeeper([]), LIMIT)
    for data in requests:
        intake, came = read(data)
        begins = data.find(END) + len(END)
        known = heads.get(data[:begins]) or heads.of_another_length(data[:begins])
        if known is not None and len(data) == begins + known.body_bytes:
            assert came == [known.again(data[begins:])]
            assert known.incoming.keep_alive
            assert known.incoming.version == "1.1"
        if intake.noted is not None:
            heads.learn(*intake.noted, "127.0.0.1")


def test_another_length_is_known_at_once() -> None:
    """One request teaches all that differ in their bodies."""
    heads = Heads(Gatekeeper([]), LIMIT)
    noted = read(request(b"one"))[0].noted
    assert noted is not None
    heads.learn(*noted, "127.0.0.1")
    other = request(b"more than one")
    known = heads.of_another_length(other[: other.find(END) + len(END)])
    assert known is not None
    assert known.body_bytes == len(b"more than one")


def test_callers_are_told_apart() -> None:
    """Each key has groups of its own; what no key opens has none."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    heads = Heads(Gatekeeper([Key("k", digest), Key("l", digest.replace("b", "c"))]), LIMIT)

    def group(key: str, **more: str) -> object:
        return heads.group_of("POST", "/a", "", {"authorization": f"Bearer {key}", **more}, "127.0.0.1")

    assert group("abc") is group("abc") is not None
    assert group("abcd") is None
    assert group("abc", **{"anthropic-version": "2"}) is not group("abc")
    assert group("abc", **{"cache-control": "no-cache"}) is None


def names_read() -> Iterator[tuple[str, str]]:
    """Yield the headers of requests that the gateway looks at, each with the file."""
    for path in GATEWAY.rglob("*.py"):
        if path.is_relative_to(GATEWAY / "batch"):
            continue
        for name in re.findall(
            r'headers\.get\(\s*"([a-z-]+)"|"([a-z-]+)" in headers', path.read_text(encoding="utf-8")
        ):
            yield "".join(name), path.name


def test_every_header_that_is_looked_at_has_its_place() -> None:
    """A new one must be weighed by the usual way, or part requests whose bodies are the same."""
    placed = WEIGHED | set(MEANING) | OF_THE_CALLER | OF_THE_FRAME
    assert {pair for pair in names_read() if pair[0] not in placed} == set()
    assert {cache_control.TAGS, HEADER_LENGTH, *anthropic._HEADERS} <= placed
