"""The official `openai` client against the running program, with real models: what its users see."""

import base64
import struct
from collections.abc import Iterator, Sequence

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from scripts.replay import outcome_of
from scripts.running_gateway import RunningGateway
from tests.e2e.program import SERVER, call, serving

PARIS = "The capital of France is Paris."
CALLED = "none needed"


def messages(text: str) -> list[ChatCompletionMessageParam]:
    """Make a conversation of one question."""
    return [{"role": "user", "content": text}]


def ask(client: openai.OpenAI, text: str, **more: object) -> tuple[str, str]:
    """Return the answer to a question and where it came from: `exact`, `semantic` or `miss`."""
    raw = client.chat.completions.with_raw_response.create(model="atlas", messages=messages(text), **more)  # type: ignore[call-overload]
    return raw.parse().choices[0].message.content, outcome_of(raw.headers["Cache-Status"])


def stream(client: openai.OpenAI, text: str, **more: object) -> tuple[list[str], str]:
    """Return the pieces of a streamed answer and where it came from."""
    create = client.chat.completions.with_streaming_response.create
    with create(model="atlas", messages=messages(text), stream=True, **more) as raw:  # type: ignore[call-overload]
        chunks = list(raw.parse())
        pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
        return [piece for piece in pieces if piece], outcome_of(raw.headers["Cache-Status"])


def test_streamed_question_then_its_repeat_then_other_words(client: openai.OpenAI) -> None:
    """A streamed question gets its right answer; the repeat is an exact hit, the same in other words a semantic one."""
    pieces, first = stream(client, "What is the capital of France?")

    assert ("".join(pieces), first) == (PARIS, "miss")
    assert len(pieces) > 1
    assert ask(client, "What is the capital of France?") == (PARIS, "exact")
    assert ask(client, "Tell me the capital city of France") == (PARIS, "semantic")
    again, outcome = stream(client, "Tell me the capital city of France.")
    assert ("".join(again), outcome) == (PARIS, "semantic")


def test_whole_answer_serves_a_stream(client: openai.OpenAI) -> None:
    """What was cached from a whole answer is replayed as a stream with the same text."""
    whole, first = ask(client, "Describe Norway.")
    pieces, second = stream(client, "Describe Norway.")

    assert (first, second) == ("miss", "exact")
    assert "".join(pieces) == whole
    assert len(whole.split()) > 40


async def test_async_client_streams(gateway: RunningGateway) -> None:
    """The asynchronous client gets the same text streamed as whole."""
    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=CALLED, max_retries=0) as client:
        chunks = await client.chat.completions.create(
            model="atlas",
            messages=messages("Describe Chile."),
            stream=True,
            extra_headers={"Cache-Control": "no-store"},
        )
        streamed = "".join([chunk.choices[0].delta.content or "" async for chunk in chunks if chunk.choices])
        whole = await client.chat.completions.create(model="atlas", messages=messages("Describe Chile."))

    assert streamed == whole.choices[0].message.content
    assert whole.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("What is the capital of Austria?", "What is the capital of Australia?"),
        ("How many metres are in 5 km?", "How many metres are in 50 km?"),
        ("Is Egypt in Africa?", "Is Egypt not in Africa?"),
        ("Is it true that Peru is in Europe?", "Is it true that Peru is not in Europe?"),
        ("How many litres are in 3 millilitres?", "How many millilitres are in 3 litres?"),
        ("What is 8 minus 7?", "What is 7 minus 8?"),
        ("What is the capital of Japan?", "What is the currency of Japan?"),
        ("What is the element with atomic number 92?", "What is the element with atomic number 29?"),
    ],
)
def test_near_miss_is_never_served_the_others_answer(client: openai.OpenAI, question: str, other: str) -> None:
    """Two questions that look alike and have different answers never share one, whichever came first."""
    text, _ = ask(client, question)
    other_text, outcome = ask(client, other)

    assert outcome == "miss"
    assert other_text != text
    assert ask(client, question) == (text, "exact")
    assert ask(client, other) == (other_text, "exact")


def test_conversations_with_another_system_prompt_do_not_share(client: openai.OpenAI) -> None:
    """The same question in another conversation is another request, exactly and by meaning."""
    ask(client, "What is the capital of Denmark?")
    raw = client.chat.completions.with_raw_response.create(
        model="atlas",
        messages=[
            {"role": "system", "content": "Answer in Danish."},
            {"role": "user", "content": "What is the capital of Denmark?"},
        ],
    )

    assert outcome_of(raw.headers["Cache-Status"]) == "miss"


def test_usage_comes_last_and_once(client: openai.OpenAI) -> None:
    """`include_usage` adds exactly one chunk, with no choice, after all others; a replayed stream does the same."""
    for _ in range(2):
        chunks = list(
            client.chat.completions.create(
                model="atlas",
                messages=messages("What is the capital of Sweden?"),
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert [len(chunk.choices) for chunk in chunks[-2:]] == [1, 0]
        assert [chunk.usage is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
        usage = chunks[-1].usage
        assert usage is not None
        assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 2
        assert len({chunk.id for chunk in chunks}) == 1


def test_stop_ends_the_answer_before_it(client: openai.OpenAI) -> None:
    """A stop text cuts the answer, is not part of it, and makes it another request."""
    whole, _ = ask(client, "What is the capital of Spain?")
    cut, outcome = ask(client, "What is the capital of Spain?", stop=[" is"])

    assert outcome == "miss"
    assert cut == whole[: whole.index(" is")]


def test_max_tokens_cuts_and_is_not_remembered(client: openai.OpenAI) -> None:
    """An answer cut at its limit says `length`, and the cache never serves it."""
    for _ in range(2):
        raw = client.chat.completions.with_raw_response.create(
            model="atlas", messages=messages("Describe Kenya."), max_tokens=4
        )
        completion = raw.parse()
        assert completion.choices[0].finish_reason == "length"
        assert completion.usage is not None
        assert completion.usage.completion_tokens == 4
        assert outcome_of(raw.headers["Cache-Status"]) == "miss"


def test_temperature_without_a_seed_bypasses_the_cache(client: openai.OpenAI) -> None:
    """A client that asks for variety gets it; with a seed the answer is pinned down, repeatable and cached."""
    for _ in range(2):
        assert ask(client, "Describe Ghana.", temperature=0.9)[1] == "miss"
    first, outcome = ask(client, "Describe Ghana.", temperature=0.9, seed=7)
    uncached, _ = ask(client, "Describe Ghana.", temperature=0.9, seed=7, extra_headers={"Cache-Control": "no-cache"})

    assert outcome == "miss"
    assert uncached == first
    assert ask(client, "Describe Ghana.", temperature=0.9, seed=7) == (first, "exact")


def test_completions(client: openai.OpenAI) -> None:
    """A prompt is continued, whole and streamed, with the same text."""
    prompt = "The capital of Italy is"
    whole = client.completions.create(model="atlas", prompt=prompt, max_tokens=8)
    chunks = client.completions.create(model="atlas", prompt=prompt, max_tokens=8, stream=True)

    assert whole.object == "text_completion"
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the cosine of two vectors of length 1."""
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_embeddings(gateway: RunningGateway, client: openai.OpenAI) -> None:
    """The client's default (base64) and lists of numbers are the same vectors, as near as they should be."""
    texts = ["What is the capital of France?", "Tell me the capital city of France", "How do I bake bread?"]
    default = client.embeddings.create(model="minilm", input=texts)
    floats = client.embeddings.create(model="minilm", input=texts, encoding_format="float")
    vectors = [item.embedding for item in floats.data]

    assert [item.embedding for item in default.data] == [pytest.approx(vector, abs=1e-6) for vector in vectors]
    assert cosine(vectors[0], vectors[0]) == pytest.approx(1.0, abs=1e-5)
    assert cosine(vectors[0], vectors[1]) == pytest.approx(0.923, abs=0.005)
    assert cosine(vectors[0], vectors[2]) == pytest.approx(0.148, abs=0.01)
    raw = call(
        gateway.url, "POST", "/v1/embeddings", {"model": "minilm", "input": texts[0], "encoding_format": "base64"}
    )
    packed = base64.b64decode(raw.json()["data"][0]["embedding"])
    assert struct.unpack("<384f", packed) == pytest.approx(vectors[0], abs=1e-6)


def test_embeddings_of_tokens(client: openai.OpenAI) -> None:
    """Token ids are taken in place of text, one list or several."""
    one = client.embeddings.create(model="minilm", input=[101, 7592, 102])
    two = client.embeddings.create(model="minilm", input=[[101, 7592, 102], [101, 2088, 102]])

    assert one.data[0].embedding == pytest.approx(two.data[0].embedding, abs=1e-5)
    assert len(two.data) == 2


def test_classifier(gateway: RunningGateway) -> None:
    """The classifier answers on the native path, and its answer is cached like any other."""
    body = {"model": "intents", "input": "My card has not arrived yet"}
    first = call(gateway.url, "POST", "/api/v1/predict", body)
    again = call(gateway.url, "POST", "/api/v1/predict", body)

    assert first.json()["prediction"] == "card_arrival"
    assert outcome_of(again.headers["cache-status"]) == "exact"


def test_models(client: openai.OpenAI) -> None:
    """Every model and route is listed."""
    assert {model.id for model in client.models.list()} == {"minilm", "atlas", "intents", "echo"}


@pytest.mark.parametrize(
    ("error", "request_", "words"),
    [
        (openai.BadRequestError, {"model": "atlas", "temperature": 9}, "'temperature' must be a number from 0 to 2"),
        (openai.BadRequestError, {"model": "atlas", "n": 3.5}, "'n' must be a whole number from 1 to 128"),
        (openai.BadRequestError, {"model": "minilm"}, "the model does not do chat"),
        (openai.NotFoundError, {"model": "atlantis"}, "there are: minilm, atlas"),
        (openai.APIStatusError, {"model": "atlas", "user": "x" * 70_000}, "at most 65536 bytes"),
    ],
)
def test_refusals_raise_the_clients_own_errors(
    client: openai.OpenAI, error: type[openai.APIStatusError], request_: dict[str, object], words: str
) -> None:
    """What cannot be served raises the class that the client has for it, and the message says what is allowed."""
    with pytest.raises(error, match=words) as caught:
        client.chat.completions.create(messages=messages("Hello"), **request_)  # type: ignore[call-overload]

    assert caught.value.request_id


def test_stream_options_need_a_stream(client: openai.OpenAI) -> None:
    """The wording is the one that OpenAI's own users know."""
    with pytest.raises(openai.BadRequestError, match="`stream_options` can only be used when `stream` is True"):
        client.chat.completions.create(
            model="atlas", messages=messages("Hello"), stream_options={"include_usage": True}
        )


@pytest.fixture(scope="module")
def locked() -> Iterator[RunningGateway]:
    """Serve the test's own server to the keys `one` and `three`, which may call it, and `two`, which may not."""
    digests = {
        "one": "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed",
        "two": "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3",
        "three": "8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f",
    }
    keys = f"""keys: [
      {{name: one, sha256: "{digests["one"]}"}},
      {{name: three, sha256: "{digests["three"]}"}},
      {{name: two, sha256: "{digests["two"]}", models: [other]}}]"""
    echo = f'  echo: {{task: chat, command: {{run: "{SERVER}"}}}}'
    other = "  other: {task: chat, http: {url: http://127.0.0.1:9/v1}}"
    with serving(echo, other, server=keys) as running:
        yield running


def test_keys(locked: RunningGateway) -> None:
    """No key or a wrong one is a 401, a model that the key may not call a 403, and tenants never share answers."""

    def by(key: str) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{locked.url}/v1", api_key=key, max_retries=0)

    def outcome(client: openai.OpenAI) -> str:
        raw = client.chat.completions.with_raw_response.create(model="echo", messages=messages("Hello"))
        return outcome_of(raw.headers["Cache-Status"])

    with by("wrong") as wrong, by("one") as one, by("two") as two, by("three") as three:
        with pytest.raises(openai.AuthenticationError, match="not known here"):
            outcome(wrong)
        with pytest.raises(openai.PermissionDeniedError, match="may not call 'echo'"):
            outcome(two)
        assert [outcome(one), outcome(one), outcome(three)] == ["miss", "exact", "miss"]
        assert [model.id for model in two.models.list()] == ["other"]
    assert call(locked.url, "GET", "/v1/models").status == 401
    assert call(locked.url, "GET", "/healthz").status == 200
    assert '"wrong"' not in locked.log_text()
