"""Moderations, rerankings, audio and images through the running program to an upstream that understands them."""

import base64
import http.client
from collections.abc import Iterator

import openai
import pytest

from scripts.running_gateway import RunningGateway
from tests.e2e.program import ATLAS, SERVER, call, needs, serving

ECHO = f'  ours: {{task: chat, command: {{run: "{SERVER}", model: theirs}}, pool: {{min: 1}}}}'
SOUND = b"RIFF\x00\xff--\r\n--\r\nmodel"


@pytest.fixture(scope="module")
def house() -> Iterator[RunningGateway]:
    """Serve the test's own server, where the model has another name, and atlas."""
    needs("atlas")
    with serving(ECHO, ATLAS) as running:
        yield running


@pytest.fixture(scope="module")
def relayed(house: RunningGateway) -> Iterator[openai.OpenAI]:
    """Yield the official client."""
    with openai.OpenAI(base_url=f"{house.url}/v1", api_key="none needed", max_retries=0) as made:
        yield made


def test_moderations(relayed: openai.OpenAI) -> None:
    """Each text is judged by the upstream, every time anew."""
    for _ in range(2):
        raw = relayed.moderations.with_raw_response.create(model="ours", input=["good", "bad"])
        assert [result.flagged for result in raw.parse().results] == [False, True]
        assert raw.parse().model == "theirs"
        assert "fwd=bypass" in raw.headers["Cache-Status"]


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_rerankings(house: RunningGateway, path: str) -> None:
    """The paths that clients of rerankers call are one."""
    body = {"model": "ours", "query": "red fox", "documents": ["a cat", "a red fox", "a fox"], "top_n": 2}

    answered = call(house.url, "POST", path, body)

    assert [result["index"] for result in answered.json()["results"]] == [1, 2]


def test_speech(relayed: openai.OpenAI) -> None:
    """Sound comes as bytes with the upstream's type."""
    with relayed.audio.speech.with_streaming_response.create(model="ours", voice="alloy", input="hello") as spoken:
        assert spoken.read() == b"RIFF\x00\xfftheirs alloy: hello"
        assert spoken.headers["Content-Type"] == "audio/wav"
    with pytest.raises(openai.BadRequestError, match="told to refuse"):
        relayed.audio.speech.create(model="ours", voice="alloy", input="status-400")


def test_a_sound_that_breaks_off_does_not_look_complete(house: RunningGateway) -> None:
    """Nothing can be said of an error in the midst of a sound, so the connection breaks off as the upstream's did."""
    with pytest.raises(http.client.IncompleteRead):
        call(house.url, "POST", "/v1/audio/speech", {"model": "ours", "voice": "alloy", "input": "to be cut"})


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client itself calls it old
def test_transcriptions(relayed: openai.OpenAI) -> None:
    """A form goes on with its file as it came, but for the model's name; the reply keeps its type."""
    heard = relayed.audio.transcriptions.create(model="ours", file=("a.wav", SOUND), language="en")
    plain = relayed.audio.translations.create(model="ours", file=("a.wav", SOUND), response_format="text")

    assert heard.text == f"{len(SOUND)} bytes of a.wav; language=en model=theirs"
    assert str(plain).strip() == f"{len(SOUND)} bytes of a.wav; model=theirs response_format=text"


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client itself calls it old
def test_images(relayed: openai.OpenAI) -> None:
    """Pictures are made, edited and varied by the upstream."""
    made = relayed.images.generate(model="ours", prompt="a fox")
    edited = relayed.images.edit(model="ours", image=("x.png", SOUND), prompt="a cat")
    varied = relayed.images.create_variation(model="ours", image=("x.png", SOUND))

    def text_of(response: object) -> str:
        return base64.b64decode(response.data[0].b64_json).decode()  # type: ignore[attr-defined]

    assert text_of(made) == "a fox"
    assert text_of(edited) == f"{len(SOUND)} bytes of x.png; model=theirs prompt=a cat"
    assert text_of(varied) == f"{len(SOUND)} bytes of x.png; model=theirs"


def test_what_cannot_be_relayed_is_refused(relayed: openai.OpenAI) -> None:
    """Our own models have no such ability; who names no model means OpenAI's own, which an operator may serve."""
    with pytest.raises(openai.BadRequestError, match="does not do relay"):
        relayed.moderations.create(model="atlas", input="x")
    with pytest.raises(openai.NotFoundError, match="'omni-moderation-latest' does not exist") as refused:
        relayed.moderations.create(input="x")

    assert refused.value.param == "model"
