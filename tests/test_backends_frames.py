"""Frames: what is encoded comes back whatever the cuts, and bytes that lie are refused by name."""

import contextlib
import math
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.frames import (
    ALIGNMENT,
    ARRAYS_LIMIT_BYTES,
    HEADER_LIMIT_BYTES,
    ITEM_BYTES,
    Array,
    Decoder,
    Frame,
    FrameError,
    encode,
)

_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_headers = st.dictionaries(st.text().filter(lambda key: key != "arrays"), _values, max_size=5)


@st.composite
def _arrays(draw: st.DrawFn) -> Array:
    dtype = draw(st.sampled_from(sorted(ITEM_BYTES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    size = math.prod(shape) * ITEM_BYTES[dtype]
    return Array(draw(st.binary(min_size=size, max_size=size)), shape, dtype)


_frames = st.builds(Frame, _headers, st.lists(_arrays(), max_size=3).map(tuple))


_cuts = st.lists(st.integers(1, 200), min_size=1, max_size=8)


@given(st.lists(_frames, max_size=4), _cuts, st.sampled_from([16, 50, 4096]))
def test_frames_survive_any_cuts(frames, cuts, read_bytes):
    """A stream cut at arbitrary places gives back exactly the frames that were encoded, small ones and large ones."""
    stream = b"".join(encode(frame.header, frame.arrays) for frame in frames)
    decoded, place = [], 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("backends.frames.READ_BYTES", read_bytes)
        decoder = Decoder()
        while place < len(stream):
            for cut in cuts:
                decoded += decoder.feed(stream[place : place + cut])
                place += cut

    assert decoded == frames


def test_a_large_frame_is_received_where_it_stays():
    """The memory of a frame larger than a read is its arrays' own, and the next frame gets other memory."""
    data = bytes(range(256)) * 4096
    frames = [encode({"n": n}, [Array(data, (len(data),), "uint8")]) for n in range(2)]
    decoder = Decoder()
    first, second = decoder.feed(b"".join(frames))

    assert isinstance(first.arrays[0].data, memoryview)
    assert first.arrays[0].data == second.arrays[0].data == data
    assert np.frombuffer(first.arrays[0].data, np.uint8).ctypes.data % ALIGNMENT == 0


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for(data):
    """Arbitrary bytes raise FrameError or nothing, and never another error."""
    with contextlib.suppress(FrameError):
        Decoder().feed(data)


@given(_headers, st.binary(max_size=64))
def test_a_garbled_header_is_refused(header, noise):
    """A frame whose header was overwritten raises FrameError or still is a map; nothing else happens."""
    whole = bytearray(encode(header))
    whole[8 : 8 + len(noise)] = noise[: len(whole) - 8]
    try:
        frames = Decoder().feed(whole)
    except FrameError:
        return
    assert all(isinstance(frame.header, dict) for frame in frames)


def _raw(header, arrays=b"") -> bytes:
    packed = msgpack.packb(header)
    return struct.pack("<II", len(packed), len(arrays)) + packed + arrays


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (struct.pack("<II", HEADER_LIMIT_BYTES + 1, 0), "header of 67108865 bytes"),
        (struct.pack("<II", 1, ARRAYS_LIMIT_BYTES + 1), "arrays of 268435457 bytes"),
        (_raw([1, 2]), "header of type list"),
        (struct.pack("<II", 1, 0) + b"\xc1", "not msgpack"),
        (_raw({1: 2}), "not msgpack"),
        (_raw({"arrays": [["float32", [2]]]}, b"1234"), "arrays of 4 bytes, where the header describes 8"),
        (_raw({}, b"1234"), "arrays of 4 bytes, where the header describes 0"),
        (_raw({"arrays": [["float64", [1]]]}, b"12345678"), "describes no array"),
        (_raw({"arrays": [["float32", [-1]]]}, b""), "describes no array"),
        (_raw({"arrays": [["float32", [True]]]}, b"1234"), "describes no array"),
        (_raw({"arrays": {"a": 1}}), "arrays must be a list"),
        (_raw({"arrays": [["float32", [0] * 9]]}), "describes no array"),
        (_raw({"arrays": [["float32", [0]]] * 65}), "at most 64"),
    ],
)
def test_a_lie_is_named(data, complaint):
    """Every way in which a frame can contradict itself or the limits is refused, and the message says which."""
    with pytest.raises(FrameError, match=complaint):
        Decoder().feed(data)


def test_the_limits_are_refused_before_the_bytes_come():
    """Eight bytes that announce too much are enough to be refused: nothing is stored for them."""
    with pytest.raises(FrameError):
        Decoder().feed(struct.pack("<II", 2**32 - 1, 2**32 - 1))


def test_an_array_that_contradicts_its_shape_is_not_sent():
    """Encoding checks each array, so that a mistake shows on the side that made it."""
    with pytest.raises(FrameError, match="describes 8"):
        encode({}, [Array(b"1234", (2,))])


def test_what_msgpack_cannot_hold_is_not_sent():
    """A header with a foreign object, or a number beyond 64 bits, raises FrameError."""
    with pytest.raises(FrameError):
        encode({"a": object()})
    with pytest.raises(FrameError):
        encode({"a": 2**64})


def test_numpy_goes_through_without_conversion():
    """A float32 array's memory arrives as it was."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)

    [frame] = Decoder().feed(encode({"kind": "x"}, [Array(array.data.cast("B"), array.shape)]))

    assert np.frombuffer(frame.arrays[0].data, np.float32).reshape(frame.arrays[0].shape).tolist() == array.tolist()
