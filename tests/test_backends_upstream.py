"""Upstreams: bodies out, events back, and every way in which a server fails, over real sockets."""

import struct

import orjson
import pytest

from backends.contract import (
    BackendError,
    BadJob,
    Finish,
    Job,
    Message,
    Sampling,
    Task,
    Text,
    UpstreamFailed,
    Usage,
    Vectors,
    Verbatim,
)
from backends.upstream import HttpEngine
from backends.upstream_answers import StreamDecoder
from backends.upstream_wire import OpenAIWire
from tests.upstream_house import KEY, chat, collect, serving, text_of, upstream

WIRE = OpenAIWire()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("task", [Task.CHAT, Task.COMPLETION])
async def test_an_answer_is_the_same_streamed_or_whole(task, stream):
    """Both encodings give the text, then the usage, then the finish."""
    job = Job(task, messages=(Message("user", "one two"),), prompt="one two", stream=stream)
    async with upstream() as backend:
        events = await collect(backend, job)
    assert text_of(events) == "echo: one two"
    assert events[-2:] == [Usage(2, 3), Finish("stop")]
    assert len(events) == (5 if stream else 3)


async def test_embeddings_come_in_the_order_of_the_inputs():
    """Base64 rows become one little-endian block, in order, though the server sent them reversed."""
    async with upstream() as backend:
        vectors, usage, finish = await collect(backend, Job(Task.EMBED, inputs=("a", "bbb")))
    assert vectors == Vectors(struct.pack("<6f", 1, 0, 1, 3, 1, 1), (2, 3))
    assert (usage, finish) == (Usage(2), Finish("stop"))


def test_embeddings_as_lists_are_taken_too():
    """A server that ignores `encoding_format` is understood."""
    body = orjson.dumps({"data": [{"index": 0, "embedding": [1, 2.5]}]})
    assert WIRE.answer_events(Job(Task.EMBED, inputs=("a",)), body)[0] == Vectors(struct.pack("<2f", 1, 2.5), (1, 2))


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"embedding": "AAAA"}],
        [{"embedding": "???"}],
        [{"embedding": []}],
        [{"embedding": ["x"]}],
        [{"embedding": [1.0]}, {"embedding": [1.0]}],
        [{}],
        None,
    ],
)
def test_misshapen_embeddings_are_an_upstream_failure(data):
    """Whatever is wrong with the vectors, the message says what came."""
    with pytest.raises(UpstreamFailed, match="no answer of OpenAI's API"):
        WIRE.answer_events(Job(Task.EMBED, inputs=("a",)), orjson.dumps({"data": data}))


def test_a_request_holds_what_the_job_says():
    """Fields that the gateway does not interpret go through untouched; those that it owns win."""
    sampling = Sampling(max_tokens=5, temperature=0.0, stop=("x",))
    job = chat("hi", stream=True, sampling=sampling, extra={"logit_bias": {"5": -1}, "model": "theirs"})
    path, _, body = WIRE.request_of(job, "ours")
    assert path == "/chat/completions"
    assert orjson.loads(body) == {
        "logit_bias": {"5": -1},
        "model": "ours",
        "messages": [{"role": "user", "content": "hi"}],
        "max_tokens": 5,
        "temperature": 0.0,
        "stop": ["x"],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_token_ids_go_through():
    """Prompts and inputs may be token ids."""
    assert orjson.loads(WIRE.request_of(Job(Task.COMPLETION, prompt=(1, 2)), "m").body)["prompt"] == [1, 2]
    assert orjson.loads(WIRE.request_of(Job(Task.EMBED, inputs=((1, 2), "a")), "m").body)["input"] == [[1, 2], "a"]


def test_predict_is_refused():
    """OpenAI's wire has no such request."""
    with pytest.raises(BadJob, match="does not predict"):
        WIRE.request_of(Job(Task.PREDICT, inputs=("a",)), "m")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("cut", "ended before it was complete"),
        ("garbage", "this is no JSON"),
        ("break", "told to break"),
    ],
)
async def test_a_stream_that_goes_wrong_is_a_failure(word, message):
    """A cut, garbage, an error and an unknown part end the stream with what happened."""
    async with upstream() as backend:
        with pytest.raises(UpstreamFailed, match=message):
            await collect(backend, chat(f"some {word} words", stream=True))


@pytest.mark.parametrize(
    "message", [{"function_call": {"name": "f"}}, {"audio": {}, "images": [1]}, {"tool_calls": [{"type": "custom"}]}]
)
async def test_an_answer_that_events_cannot_tell_is_a_failure(message):
    """What cannot be passed on is not dropped in silence."""
    body = orjson.dumps({"choices": [{"message": message, "finish_reason": "stop"}]})
    async with upstream(serving(body, "application/json")) as backend:
        with pytest.raises(UpstreamFailed, match="which this gateway cannot pass on"):
            await collect(backend, chat("tool"))


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_the_clients_errors_are_told_in_the_upstreams_words(status):
    """The request was at fault: the message and the field come from the upstream."""
    async with upstream() as backend:
        with pytest.raises(BadJob, match=f"told to refuse with {status}") as refused:
            await collect(backend, chat(f"status-{status}"))
    assert refused.value.param == "messages"


@pytest.mark.parametrize("status", [404, 408, 409, 429, 500, 503])
async def test_other_refusals_keep_status_and_retry_after(status):
    """The upstream is at fault or busy: its status and its advice are kept."""
    async with upstream() as backend:
        with pytest.raises(UpstreamFailed, match=f"answered with status {status}: told") as refused:
            await collect(backend, chat(f"status-{status}"))
    assert (refused.value.status, refused.value.retry_after_s) == (status, 7.0)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("retry-after", "0.5", 0.5),
        ("retry-after-ms", "1500", 1.5),
        ("retry-after", "9" * 22, 86400.0),
        ("retry-after-ms", "9" * 400, 86400.0),
        ("retry-after", "1e9", None),
        ("retry-after", "inf", None),
        ("retry-after", ".", None),
    ],
)
def test_advice_to_wait_is_read_up_to_a_day(name, value, expected):
    """What an upstream writes ends as a header of ours, and as the pause of a batch."""
    refused = WIRE.refusal_of(429, {name: value}, b"")
    assert isinstance(refused, UpstreamFailed)
    assert refused.retry_after_s == expected


async def test_a_relay_to_a_server_that_has_no_such_path_is_the_clients_error():
    """What a model cannot do is refused by name, and is not worth another try."""
    job = Job(Task.RELAY, verbatim=Verbatim("openai", "/nowhere", b'{"model":"echo"}'))
    async with upstream() as backend:
        with pytest.raises(BadJob, match=r"does not do this: the upstream answered with status 404") as refused:
            await collect(backend, job)
    assert refused.value.param == "model"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_ours_and_is_not_shown(status):
    """The upstream's words about a key are left out."""
    body = orjson.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
    error = WIRE.refusal_of(status, {}, body)
    assert isinstance(error, UpstreamFailed)
    assert error.status == status
    assert KEY not in str(error)


@pytest.mark.parametrize("status", [400, 500])
async def test_an_upstream_that_echoes_the_key_does_not_spread_it(status):
    """The key is taken out of whatever the upstream says."""
    app = serving(orjson.dumps({"error": f"what is {KEY}?"}), "application/json", status)
    async with upstream(app) as backend:
        with pytest.raises(BackendError, match=r"what is \*\*\*\?"):
            await collect(backend, chat("hi"))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'{"error": "x"}', b'{"detail": [{"loc": 1}]}', b"\xff"])
@pytest.mark.parametrize("status", [302, 400, 502])
def test_any_refusal_has_a_message(status, body):
    """Errors of proxies and of other servers are read as far as they can be."""
    assert str(WIRE.refusal_of(status, {"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, body))


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{}", b'{"choices": [{}]}', b'{"choices": 5}', b'{"choices": [7]}', b'{"error": {"a": 1}}'],
)
async def test_no_answer_at_all_is_a_failure(body):
    """A 200 without an answer in it is an upstream's failure."""
    async with upstream(serving(body, "application/json")) as backend:
        with pytest.raises(UpstreamFailed):
            await collect(backend, chat("hi"))


async def test_a_server_that_does_not_stream_is_understood():
    """Asked for a stream, it answers whole: the events are the same."""
    body = orjson.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "length"}]})
    async with upstream(serving(body, "application/json")) as backend:
        assert await collect(backend, chat("x", stream=True)) == [Text("hi"), Finish("length")]


def test_the_end_comes_last_though_the_usage_comes_later():
    """The finish is held back until the stream ended; usage in every chunk counts once, the last."""
    decoder = StreamDecoder(Job(Task.CHAT))
    assert decoder.feed(b'{"choices": [{"delta": {"role": "assistant", "content": ""}}], "usage": null}') == []
    chunk = b'{"choices": [{"delta": {"content": "a"}, "finish_reason": "eos"}], "usage": {"prompt_tokens": 1}}'
    assert decoder.feed(chunk) == [Text("a")]
    assert decoder.feed(b'{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}') == []
    assert decoder.feed(b"[DONE]") == []
    assert decoder.feed(b'{"choices": [{"delta": {"content": "too late"}}]}') == []
    assert decoder.end() == [Usage(1, 2), Finish("stop")]


@pytest.mark.parametrize(
    ("told", "reason"), [("end_turn", "stop"), ("abort", "abort"), ("insufficient_system_resource",) * 2]
)
def test_a_reason_that_is_not_known_is_told_as_it_came(told, reason):
    """It may stand for an answer that was aborted, so it is not taken for one that ended of itself."""
    body = orjson.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": told}]})
    assert WIRE.answer_events(chat("x"), body)[-1] == Finish(reason)


@pytest.mark.parametrize("count", [b"1e300", b"-1", b"1099511627777"])
def test_usage_beyond_all_measure_is_an_upstream_failure(count):
    """It would be taken from a client's budget, and be written into an answer."""
    body = b'{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":%b}}' % count
    with pytest.raises(UpstreamFailed, match="beyond all measure"):
        WIRE.answer_events(chat("x"), body)


def test_done_without_a_finish_is_cut_off():
    """A server that says [DONE] in the middle of an answer did not complete it."""
    decoder = StreamDecoder(Job(Task.CHAT))
    decoder.feed(b'{"choices": [{"delta": {"content": "a"}}]}')
    with pytest.raises(UpstreamFailed, match="before it was complete"):
        decoder.end()


def test_the_version_tells_upstreams_apart():
    """It changes with the URL and the model, and not with the key."""
    engines = [HttpEngine("http://a/v1", "m", key="k"), HttpEngine("http://a/v1/", "m"), HttpEngine("http://a/v1", "n")]
    assert engines[0].version == engines[1].version != engines[2].version


@pytest.mark.parametrize(
    ("job", "param"),
    [
        (chat("x", extra={"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools"),
        (
            Job(Task.CHAT, messages=(Message("user", "x", {"content": [{"type": "document", "source": {}}]}),)),
            "messages",
        ),
    ],
)
def test_what_another_wire_has_for_itself_is_refused_by_name(job, param):
    """A tool or a part that came over another wire as it is there never reaches a server that may pass it over."""
    with pytest.raises(BadJob) as caught:
        WIRE.request_of(job, "m")
    assert caught.value.param == param
