"""The very bytes of an upstream's answer, as a cache keeps them: told again they differ in the reply's id alone."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import Finish, Text, Usage, Vectors
from gateway.answer import Answer, Head, pack, unpack
from gateway.caching.wording import Wording, kept
from tests.anthropic_server import RECORDED_STREAM, RECORDED_WHOLE

FRESH = "msg-fresh"
CHUNK = b'data: {"id":"a1","choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_1"}]}}],"id2":"a1"}\n\n'


def again(data: bytes) -> bytes | None:
    """Keep bytes, and tell them again."""
    wording = kept(data, b"")
    return None if wording is None else wording.told(FRESH)


@pytest.mark.parametrize(
    ("data", "old"),
    [
        (b'{"id":"x-1","choices":[{"message":{"tool_calls":[{"id":"call_7"}]}}]}', [b"x-1"]),
        (b'{\n  "object" : "o", "id"\t:  "x-1" }\n', [b"x-1"]),
        (CHUNK * 3 + b"data: [DONE]\n\n", [b'"id":"a1"']),
        (CHUNK + CHUNK.replace(b"a1", b"b2") + b": c\r\n\r\ndata: [DONE]\n\n", [b'"id":"a1"', b'"id":"b2"']),
        (CHUNK.replace(b'"a1"', b'""') + CHUNK, [b'"id":"a1"']),
        (RECORDED_STREAM, [b"msg_01ABC"]),
        (RECORDED_WHOLE, [b"msg_01ABC"]),
        (b'data: {"id":null}\n\ndata: {"x":"\\"id\\":\\"a1\\""}\n\n', []),
        (b"no JSON at all", []),
        (b"", []),
    ],
)
def test_only_the_id_of_the_reply_is_another(data, old):
    """Each of its places is, however the JSON is spaced; ids of calls, and what looks like one in a text, stay."""
    expected = data
    for each in old:
        expected = expected.replace(each, each.replace(each.rpartition(b'":"')[2].strip(b'"'), FRESH.encode()))
    assert again(data) == expected
    assert all(each not in expected for each in old)


@pytest.mark.parametrize("data", [b'{"id":7}', b'{"id":"a\\u0031"}', b'{"id":"x"}\x00', b'data: {"id":"\\/"}\n\n'])
def test_where_the_id_is_not_clear_nothing_is_kept(data):
    """An id that is no text or is written in escapes, and bytes that cannot be marked: the events tell the answer."""
    assert kept(data, b"") is None


@given(st.lists(st.dictionaries(st.sampled_from(["id", "choices", "message", "x"]), st.text() | st.none()), min_size=1))
def test_whatever_a_stream_says_no_other_byte_changes(chunks):
    """Told again with ids of the same length and of one letter, a stream differs in nothing but those."""
    data = b"".join([b"data: " + orjson.dumps({**chunk, "id": "i" * 9}) + b"\r\n\r\n" for chunk in chunks])
    wording = kept(data, b"")
    assert wording is not None
    assert wording.told("j" * 9) == data.replace(b'"id":"iiiiiiiii"', b'"id":"jjjjjjjjj"')


def test_an_answer_keeps_its_wording_beside_its_events():
    """Both come back; the text is in the store once, so the bytes add little."""
    pieces = [f" word{number}" for number in range(300)]
    template = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"choices":[{"delta":%s}]}\n\n'
    data = b"".join([template % orjson.dumps({"content": piece}) for piece in pieces])
    head = Head("m", "v", 1.0, verbatim="openai /chat/completions stream", content_type="text/event-stream")
    events = (*map(Text, pieces), Usage(1, 300), Finish("stop"))

    packed = pack(Answer(head, events, Wording(data)))
    found = unpack(packed)

    assert (found.head, found.events) == (head, events)
    assert found.wording is not None
    assert found.wording.told("chatcmpl-2") == data.replace(b"chatcmpl-1", b"chatcmpl-2")
    assert len(packed) < 2 * len(pack(Answer(Head("m", "v", 1.0), events))) < len(data) / 3
    assert pack(found) == packed


def test_vectors_are_kept_once():
    """The bytes of embeddings are as many as their vectors, and say nothing else."""
    head = Head("m", "v", 1.0, verbatim="openai /embeddings", content_type="application/json")
    found = unpack(pack(Answer(head, (Vectors(b"\x00" * 8, (1, 2)), Finish("stop")), Wording(b'{"data":[]}'))))

    assert found.wording is None
    assert found.head.verbatim == ""


def test_spoilt_bytes_are_told_by_the_events():
    """What does not inflate any more is no wording; the answer is still one."""
    wording = kept(CHUNK * 5, b"dictionary")
    assert wording is not None
    for spoilt in (wording.deflated[:-3], b"\xff" + wording.deflated[1:], b""):
        assert type(wording)(spoilt, wording.dictionary).told(FRESH) is None
    assert type(wording)(wording.deflated, b"other").told(FRESH) is None
