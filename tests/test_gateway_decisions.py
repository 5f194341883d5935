"""Identity, cacheability, Cache-Control, routes, errors: the trunk's pure decisions."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.contract import (
    BackendError,
    DeadlineExceeded,
    Event,
    Finish,
    Job,
    Message,
    QueueFull,
    Reasoning,
    Refusal,
    Sampling,
    Scores,
    StartFailed,
    Task,
    Text,
    ToolCall,
    UpstreamFailed,
    Usage,
    Vectors,
    WorkerDied,
)
from cache.flight import FlightLaggedError
from gateway.analyze import CachePolicy, analyze, tokens_made
from gateway.answer import Answer, Head, UnreadableAnswerError, pack, unpack
from gateway.caching.cache_control import CacheStatus, parse
from gateway.caching.identity import compatibility, fingerprint, scoped
from gateway.caching.write_gate import write_gate
from gateway.callers import deadline
from gateway.errors import _TABLE, Forbidden, InvalidRequest, RequestRefused, UnknownModel, fault
from gateway.request import Caller, Directives, Request
from gateway.routes import Route, Routes

ANYONE = Caller(scope="")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(),
    lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    max_leaves=8,
)


def asked(text: str = "hi", system: str = "be kind", **sampling: object) -> Request:
    """Make a chat request."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    job = Job(Task.CHAT, messages=tuple(Message(**m) for m in messages), sampling=Sampling(**sampling))
    return Request("m", job, {"messages": messages, **sampling}, asked=text)


def with_fields(fields: dict[str, object]) -> Request:
    """Make a chat request of these fields."""
    return Request("m", Job(Task.CHAT), fields)


@given(st.dictionaries(st.text(), JSON, min_size=1))
def test_fingerprint_ignores_the_order_of_keys(fields):
    """The same fields in another order have the same fingerprint."""
    assert fingerprint(with_fields(dict(reversed(fields.items())))) == fingerprint(with_fields(fields))


@given(st.dictionaries(st.text(), JSON), st.dictionaries(st.text(), JSON))
def test_different_fields_have_different_fingerprints(one, other):
    """Fingerprints are equal only where the canonical JSON is."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (fingerprint(with_fields(one)) == fingerprint(with_fields(other))) is same


def test_compatibility_varies_with_all_but_the_last_text():
    """Two questions under one system prompt are compatible; another system prompt or another limit is not."""
    base = compatibility(asked("one"))

    assert compatibility(asked("two")) == base
    assert compatibility(asked("one", system="be rude")) != base
    assert compatibility(asked("one", max_tokens=5)) != base


@given(st.text(), st.text(), st.text(), st.text())
def test_scopes_never_share_a_key(scope, version, other_scope, other_version):
    """A key belongs to one tenant and one version."""
    one, other = scoped(b"d", "s" + scope, version), scoped(b"d", "s" + other_scope, other_version)
    if "\x00" not in scope + version + other_scope + other_version:
        assert (one == other) is ((scope, version) == (other_scope, other_version))


@pytest.mark.parametrize(
    ("sampling", "directives", "policy", "cacheable", "reason"),
    [
        ({}, Directives(), CachePolicy(), True, "unstated"),
        ({}, Directives(), CachePolicy(unstated=False), False, "unstated-temperature"),
        ({"temperature": 0.0}, Directives(), CachePolicy(unstated=False), True, "pinned"),
        ({"temperature": 0.7}, Directives(), CachePolicy(), False, "temperature"),
        ({"temperature": 0.7}, Directives(), CachePolicy(sampled=True), True, "sampled"),
        ({"temperature": 0.7, "seed": 3}, Directives(), CachePolicy(), True, "pinned"),
        ({}, Directives(no_store=True), CachePolicy(), False, "no-store"),
        ({}, Directives(), CachePolicy(enabled=False), False, "route"),
    ],
)
def test_cacheability(sampling, directives, policy, cacheable, reason):
    """What pins the answer down is cached, what is sampled is not, unless the route says otherwise."""
    features = analyze(asked(**sampling), ANYONE, directives, policy, 1.0)

    assert (features.cacheable, features.reason) == (cacheable, reason)


@pytest.mark.parametrize(
    ("text", "by_meaning"), [("a question", True), ("", False), ("x" * 4097, False), ("x" * 4096, True)]
)
def test_long_texts_do_not_match_by_meaning(text, by_meaning):
    """A text beyond the embedder's window is only matched exactly."""
    assert analyze(asked(text), ANYONE, Directives(), CachePolicy(), 1.0).by_meaning is by_meaning


def test_a_route_may_leave_meaning_out():
    """Its answers are cached, for the same request alone."""
    features = analyze(asked("a question"), ANYONE, Directives(), CachePolicy(semantic=False), 1.0)
    assert (features.cacheable, features.by_meaning) == (True, False)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Directives()),
        ("", Directives()),
        ("no-store", Directives(no_store=True)),
        ("No-Cache, max-age=5", Directives(no_cache=True, max_age_s=5)),
        ('max-age="7"', Directives(max_age_s=7)),
        ("only-if-cached,foo=bar", Directives(only_if_cached=True)),
    ],
)
def test_cache_control(header, expected):
    """The directives of RFC 9111 are understood, others ignored."""
    assert parse(header) == expected


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "²"])
def test_bad_max_age_is_refused(value):
    """A max-age that is no number is named."""
    with pytest.raises(InvalidRequest, match="max-age"):
        parse(f"max-age={value}")


@given(st.text())
def test_any_cache_control_is_read_or_refused(header):
    """No header raises anything but a refusal."""
    with contextlib.suppress(InvalidRequest):
        assert isinstance(parse(header), Directives)


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (CacheStatus(hit=True, detail="exact", ttl_s=9, age_s=1), "warmgate; hit; ttl=9; detail=exact"),
        (CacheStatus(forward="miss", stored=True), "warmgate; fwd=miss; stored"),
        (CacheStatus(forward="miss", collapsed=True), "warmgate; fwd=miss; collapsed"),
        (CacheStatus(forward="bypass", detail="temperature"), "warmgate; fwd=bypass; detail=temperature"),
    ],
)
def test_cache_status_header(status, header):
    """The header is what RFC 9211 defines."""
    assert status.header() == header


@given(
    st.lists(
        st.builds(Text, st.text(), st.integers(0, 3))
        | st.builds(Usage, st.integers(0, 9), st.integers(0, 9))
        | st.builds(Vectors, st.binary(), st.tuples(st.integers(0, 9), st.integers(0, 9)))
        | st.builds(Scores, st.binary(), st.tuples(st.integers(0, 9), st.integers(0, 9)), st.tuples(st.text()))
        | st.builds(Finish, st.sampled_from(["stop", "length"]))
    )
)
def test_packed_answers_come_back_equal(events):
    """What was packed is unpacked to an equal answer."""
    answer = Answer(Head("m", "v", 1.5), tuple(events))

    assert unpack(pack(answer)) == answer


@given(st.binary())
def test_bytes_that_are_no_answer_are_refused(data):
    """Whatever a store returns, it is an answer or one named error."""
    with contextlib.suppress(UnreadableAnswerError):
        assert isinstance(unpack(data), Answer)


@pytest.mark.parametrize(
    ("events", "refused"),
    [
        ((Text("a"), Finish("stop")), None),
        ((Text("a"),), "incomplete"),
        ((Text("a"), Finish("length")), "finish_reason length"),
        ((Text("a"), Finish("content_filter")), "finish_reason content_filter"),
    ],
)
def test_only_complete_answers_pass_the_write_gate(events, refused):
    """Cut off, truncated and filtered answers are never stored."""
    features = analyze(asked(), ANYONE, Directives(), CachePolicy(), 1.0)

    assert write_gate(features, Answer(Head("m", "v", 0.0), events)) == refused


@pytest.mark.parametrize(("said", "seconds"), [("2", 2.0), ("0.5", 0.5), (".25", 0.25), ("1.", 1.0), ("0.001", 0.001)])
def test_a_deadline_is_a_plain_decimal_number(said, seconds):
    """A time is written in digits, with a point where it has a fraction."""
    assert deadline.parse(said) == seconds


@pytest.mark.parametrize(
    "said",
    [
        "1_0",
        "inf",
        "-inf",
        "infinity",
        "nan",
        "1e3",
        "0x10",
        "+1",
        "-1",
        "0",
        "0.0001",
        "",
        ".",
        " 1",
        "1 s",
        "1,5",
        "\u0661",
    ],
)
def test_no_other_way_to_write_a_deadline(said):
    """What only programs take for a number is refused."""
    with pytest.raises(InvalidRequest, match="X-Request-Timeout must be a number of seconds"):
        deadline.parse(said)


def test_split_is_stable_and_follows_the_weights():
    """The same request always meets the same model, and many meet each by its weight."""
    route = Route("r", ("a", "b"), weights=(90.0, 10.0))
    asked_for = [fingerprint(with_fields({"n": number})) for number in range(2000)]
    drawn = [route.targets(digest) for digest in asked_for]

    assert drawn == [route.targets(digest) for digest in asked_for]
    assert 0.86 < drawn.count(("a",)) / len(drawn) < 0.94


def test_unknown_and_forbidden_models():
    """A name that is not there is told with those that the key may call; one that it may not call is refused."""
    routes = Routes({"a": Route("a", ("a",)), "b": Route("b", ("b",))})

    with pytest.raises(UnknownModel, match="'c' does not exist; there are: a, b"):
        routes.resolve("c", ANYONE)
    with pytest.raises(UnknownModel, match=r"there are: a$"):
        routes.resolve("c", Caller("key:x", ("a",)))
    with pytest.raises(Forbidden, match="may call: a"):
        routes.resolve("b", Caller("key:x", ("a",)))


def test_every_domain_error_has_a_row():
    """No error of ours becomes a 500: each leaf of both trees stands in the table."""
    leaves = {*BackendError.__subclasses__(), *RequestRefused.__subclasses__()}

    assert leaves <= set(_TABLE)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (QueueFull("full", 2.0), 429),
        (WorkerDied("gone"), 502),
        (FlightLaggedError("slow"), 408),
        (UpstreamFailed("bad", 500), 502),
        (UpstreamFailed("slow down", 429), 429),
        (StartFailed("no"), 503),
        (DeadlineExceeded("late"), 504),
    ],
)
def test_statuses(error, status):
    """A full queue is 429, a pool that cannot start 503, a deadline 504, a worker that died 502."""
    assert fault(error).status == status


@given(st.text(st.characters(categories=("Cs", "Lu"))))
def test_every_message_can_be_written_as_utf_8(text):
    """Bytes of a header that are no UTF-8 reach a message as lone surrogates, and its reader as escapes."""
    message = fault(InvalidRequest(text)).message

    assert message.encode().decode() == message


def test_unexpected_errors_keep_their_text_to_the_log():
    """What the table does not know is a 500 that says nothing of the inside."""
    assert "secret" not in fault(RuntimeError("secret")).message


@pytest.mark.parametrize(
    ("event", "tokens"),
    [
        (Text("a"), 1),
        (Text("x" * 400), 100),
        (Reasoning("y" * 40), 10),
        (ToolCall(0, arguments="z" * 4000), 1000),
        (Refusal("no"), 1),
        (Usage(5, 5), 0),
        (Finish("stop"), 0),
    ],
)
def test_pieces_are_counted_by_their_length(event: Event, tokens: int) -> None:
    """Whatever a model makes costs tokens, in many pieces or in one."""
    assert tokens_made(event) == tokens
