"""Requests that are only passed on: how their model is found, and what comes of their replies."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import Finish, Task, WorkerDied
from gateway.answer import Answer, Head
from gateway.caching.wording import Wording
from gateway.errors import InvalidRequest, fault
from gateway.surfaces.passed import PassedFrames, replayed
from gateway.surfaces.relays import RelaySurface
from gateway.surfaces.wire import Call

SURFACE = RelaySurface()
FORM = 'multipart/form-data; boundary="a b"'


def decode(path: str, body: bytes, content_type: str | None = None):
    """Decode a body."""
    headers = {} if content_type is None else {"content-type": content_type}
    return SURFACE.decode(Call("POST", path, headers, body, None), "0" * 24)


def form(*parts: tuple[str, bytes]) -> bytes:
    """Make a form of these parts: a disposition's parameters, and a value."""
    return (
        b"".join(
            b"--a b\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (what.encode(), value)
            for what, value in parts
        )
        + b"--a b--\r\n"
    )


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/v1/moderations", "/moderations"), ("/v1/rerank", "/rerank"), ("/rerank", "/rerank"),
        ("/v2/rerank", "/rerank"), ("/v1/audio/speech", "/audio/speech"),
        ("/v1/images/generations", "/images/generations"),
    ],
)  # fmt: skip
def test_a_request_is_kept_as_it_came(path: str, there: str):
    """The body goes on untouched to the same path below the upstream's base URL."""
    body = b' { "model" : "m", "input":["x"]}'
    request, _ = decode(path, body)

    assert request.model == "m"
    assert request.job.task is Task.RELAY
    assert request.job.verbatim is not None
    assert (request.job.verbatim.path, request.job.verbatim.body) == (there, body)


@pytest.mark.parametrize(
    ("path", "model"), [("/v1/moderations", "omni-moderation-latest"), ("/v1/images/generations", "dall-e-2")]
)
def test_a_request_that_may_name_no_model_has_openai_s_own(path: str, model: str):
    """Where OpenAI's clients may leave the model out, it is the one that OpenAI takes; the body stays as it is."""
    request, _ = decode(path, b'{"input":"x"}')

    assert request.model == model
    assert request.job.verbatim is not None
    assert request.job.verbatim.body == b'{"input":"x"}'


def test_the_model_of_a_form_is_found_beside_its_files():
    """A file that is named like the field, or holds what looks like one, is not taken for it."""
    sound = b'RIFF\r\nContent-Disposition: form-data; name="model"\r\n\r\nwrong'
    body = form(
        ('name="model"; filename="model"', b"wrong"),
        ('name="file"; filename="a.wav"', sound),
        ("name=model", b"whisper"),
    )

    request, encoder = decode("/v1/audio/transcriptions", body, FORM)

    assert request.model == "whisper"
    assert request.job.verbatim is not None
    assert request.job.verbatim.content_type == FORM
    assert encoder.frames is None


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"{}", None, "'model' is missing: it must be a non-empty string"),
        (b"{", None, "not valid JSON"),
        (form(('name="file"; filename="x"', b"y")), FORM, "must have a field 'model'"),
        (b'--a b\r\nContent-Disposition: form-data; name="model"\r\n\r\nm', FORM, "no last boundary"),
        (b"", FORM, "no last boundary"),
        (form(("name=model", b"m")), "multipart/form-data", "name a boundary"),
        (form(*[("name=x", b"y")] * 300), FORM, "more than 256 parts"),
        (form(("name=model", b"m"), ("name=stream", b"maybe")), FORM, "true or false"),
    ],
)
def test_bodies_without_a_model_are_refused(body: bytes, content_type: str | None, words: str):
    """A request whose model cannot be found says what is missing."""
    with pytest.raises(InvalidRequest, match=words):
        decode("/v1/audio/transcriptions", body, content_type)


@given(st.binary(), st.booleans())
def test_any_bytes_are_a_form_or_refused(body: bytes, tail: bool):
    """No bytes raise anything but a refusal."""
    with pytest.raises(InvalidRequest):
        decode("/v1/audio/transcriptions", b"--a b\r\n" + body + (b"\r\n--a b--" if tail else b""), FORM)


def test_sound_is_streamed_and_so_is_what_asks_for_it():
    """Speech goes out as it is made; of the rest, what the client wants streamed."""
    assert decode("/v1/audio/speech", b'{"model":"m"}')[1].frames is not None
    assert decode("/v1/images/generations", b'{"model":"m","stream":true}')[1].frames is not None
    assert decode("/v1/images/generations", b'{"model":"m"}')[1].frames is None
    body = form(("name=model", b"m"), ("name=stream", b"true"))
    assert decode("/v1/audio/transcriptions", body, FORM)[1].frames is not None


def test_the_reply_is_the_upstream_s():
    """Whole or streamed, its bytes and its type are passed on."""
    request, whole = decode("/v1/rerank", b'{"model":"m"}')
    spoken, streamed = decode("/v1/audio/speech", b'{"model":"m"}')
    assert request.job.verbatim is not None
    assert spoken.job.verbatim is not None
    kind = request.job.verbatim.kind
    head = Head("m", "v", 1.0, verbatim=kind, content_type="application/x")

    assert whole.whole(Answer(head, (Finish("stop"),), Wording(b"one two"))) == (b"one two", "application/x", {})
    spoken_head = replace(head, verbatim=spoken.job.verbatim.kind)
    assert isinstance(streamed.frames, PassedFrames)
    assert streamed.frames.passes(spoken_head)
    assert replayed(streamed.frames, Answer(spoken_head, (Finish("stop"),), Wording(b"one two"))) == b"one two"
    assert streamed.frames.content_type(spoken_head) == "application/x"


def test_errors():
    """Before the reply an error has OpenAI's shape; in its midst nothing can be said, and the connection breaks off."""
    trouble = fault(WorkerDied("gone"))

    assert json.loads(SURFACE.failure(trouble).body)["error"]["message"] == "gone"
    with pytest.raises(ConnectionAbortedError, match="gone"):
        SURFACE.failure_frame(trouble)
