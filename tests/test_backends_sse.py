"""Server-sent events: the same events for any cut of the bytes, any line end, and whatever else the stream holds."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.sse import EventTooLongError, SseParser

LINE = st.binary(max_size=12).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
NOISE = st.sampled_from([b": comment", b"event: delta", b"id: 7", b"retry: 10", b"unknown", b":"])
EVENT = st.tuples(st.lists(LINE, min_size=1, max_size=3), st.lists(NOISE, max_size=2))
END = st.sampled_from([b"\n", b"\r\n", b"\r"])


def chunks_of(raw: bytes, cuts: list[int]) -> list[bytes]:
    """Cut bytes at the given places."""
    places = sorted({0, len(raw), *(cut % (len(raw) + 1) for cut in cuts)})
    return [raw[a:b] for a, b in pairwise(places)]


def parse(chunks: list[bytes]) -> list[bytes]:
    """Feed all chunks to one parser."""
    parser = SseParser()
    return [data for chunk in chunks for data in parser.feed(chunk)]


@given(st.lists(EVENT, max_size=6), END, st.booleans(), st.lists(st.integers(0, 10_000), max_size=12))
def test_events_survive_any_cut(events, end, bom, cuts):
    """What was written as events is read as the same data, wherever the chunks were cut."""
    raw = b"\xef\xbb\xbf" if bom else b""
    for lines, noise in events:
        raw += end.join([*noise, *(b"data: " + line for line in lines), b"", b""])
    assert parse(chunks_of(raw, cuts)) == [b"\n".join(lines) for lines, _ in events]


@given(
    st.binary(max_size=80).map(lambda raw: raw.replace(b"x", b"\n\ndata:")), st.lists(st.integers(0, 999), max_size=9)
)
def test_any_bytes_parse_alike_however_cut(raw, cuts):
    """Garbage too gives the same events whole and in pieces, and never an error."""
    assert parse(chunks_of(raw, cuts)) == parse([raw] if raw else [])


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data:a\n\ndata: b\n\n", [b"a", b"b"]),
        (b"data:  two spaces\n\n", [b" two spaces"]),
        (b"data\n\n", [b""]),
        (b"data: \n\n", [b""]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b"data: a\n", []),
        (b"\n\n\n", []),
        (b"event: x\n\n", []),
        (b"datafile: a\n\n", []),
    ],
)
def test_fields(raw, events):
    """The data field and nothing else makes an event."""
    assert parse([raw]) == events


@pytest.mark.parametrize("chunk", [b"data: aaaaaaaa", b"data: aaaaaaaa\n"])
def test_an_endless_event_is_refused(chunk):
    """An event that never ends is not held for ever."""
    parser = SseParser(limit_bytes=100)

    def feed_on() -> None:
        for _ in range(20):
            parser.feed(chunk)

    with pytest.raises(EventTooLongError, match="longer than 100 bytes"):
        feed_on()
