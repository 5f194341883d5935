"""What a client may be served by its age: the directives of RFC 9111 and RFC 5861, within the operator's limits."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.contract import Entry
from gateway.caching.cache_control import CacheStatus, entity_tag, is_known, parse, read
from gateway.caching.freshness import Use, jittered, use_of
from gateway.errors import InvalidRequest
from gateway.request import Directives

STORED, TTL, STALE = 1000.0, 100.0, 50.0
ENTRY = Entry(b"k", b"v", STORED, STORED + TTL + STALE, stale_s=STALE)


def use(age: float, header: str | None = None, max_stale_s: float = STALE) -> str:
    """Tell what may be done with an answer of this age that is fresh for 100 seconds."""
    return use_of(ENTRY, STORED + age, parse(header), max_stale_s).value


@pytest.mark.parametrize(
    ("age", "header", "expected"),
    [
        (0, None, "serve"),
        (99, None, "serve"),
        (100, None, "none"),
        (30, "max-age=30", "serve"),
        (30.5, "max-age=30", "none"),
        (0, "max-age=0", "none"),
        (0.1, "max-age=0", "none"),
        (31, "max-age=30, max-stale=1", "serve"),
        (33, "max-age=30, max-stale=1", "none"),
        (120, "max-stale", "serve"),
        (120, "max-stale=20", "serve"),
        (121, "max-stale=20", "none"),
        (151, "max-stale", "none"),
        (40, "min-fresh=60", "serve"),
        (41, "min-fresh=60", "none"),
        (10, "no-cache", "none"),
        (10, "no-cache, max-stale=50", "none"),
        (110, "stale-while-revalidate=20", "renew"),
        (120, "stale-while-revalidate=20", "none"),
        (110, "stale-while-revalidate=20, only-if-cached", "serve"),
        (110, "max-stale=5, stale-while-revalidate=20", "renew"),
        (110, "stale-if-error=20", "spare"),
        (120, "stale-if-error=20", "none"),
        (10, "no-cache, stale-if-error=20", "spare"),
        (10, "max-age=0, stale-if-error=20", "spare"),
        (110, "stale-while-revalidate=5, stale-if-error=20", "spare"),
    ],
)
def test_directives(age, header, expected):
    """Each directive says what it says in the RFCs."""
    assert use(age, header) == expected


@given(
    age=st.floats(-10, 300),
    allowed=st.floats(0, 100),
    seconds=st.lists(st.none() | st.integers(0, 500), min_size=5, max_size=5),
    flags=st.lists(st.booleans(), min_size=2, max_size=2),
)
def test_whatever_a_client_says_the_operator_sets_the_limit(age, allowed, seconds, flags):
    """Nothing is served that is stale for longer than allowed, and without a word for it nothing that is stale."""
    max_age, max_stale, min_fresh, renew, error = seconds
    asked = Directives(
        no_cache=flags[0],
        only_if_cached=flags[1],
        max_age_s=max_age,
        max_stale_s=max_stale,
        min_fresh_s=min_fresh or 0,
        stale_while_revalidate_s=renew or 0,
        stale_if_error_s=error or 0,
    )
    decided = use_of(ENTRY, STORED + age, asked, allowed)

    if age - TTL > allowed:
        assert decided is Use.NONE
    if age >= TTL and max_stale is None and not renew and not error:
        assert decided is Use.NONE
    if asked.no_cache:
        assert decided in (Use.NONE, Use.SPARE)
    if decided is Use.RENEW:
        assert not asked.only_if_cached


@given(st.floats(1, 1e6), st.floats(0, 1), st.binary(min_size=32, max_size=32))
def test_jitter_only_shortens(ttl_s, jitter, key):
    """An answer is never served for longer than the operator said."""
    assert ttl_s * (1 - jitter) <= jittered(ttl_s, jitter, key) <= ttl_s


def test_jitter_spreads():
    """Answers that were made together end one after the other."""
    ends = {jittered(100.0, 0.1, bytes([place]) * 32) for place in range(256)}
    assert len(ends) == 256
    assert max(ends) - min(ends) > 9


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("max-stale", Directives(max_stale_s=math.inf)),
        ('max-stale="7", min-fresh=3', Directives(max_stale_s=7, min_fresh_s=3)),
        (
            "stale-while-revalidate=5, stale-if-error=6",
            Directives(stale_while_revalidate_s=5, stale_if_error_s=6),
        ),
        ("max-age=99999999999999999999", Directives(max_age_s=10**10)),
        ('max-stale=5, note="so, max-stale=9, so", x="', Directives(max_stale_s=5)),
    ],
)
def test_words_for_stale_answers(header, expected):
    """They are read; a number beyond all measure is a very long time."""
    assert parse(header) == expected


def test_of_a_repeated_word_the_strictest_counts():
    """In one line or in several, which are joined: the order does not matter, and a looser one takes nothing back."""
    said = ["max-age=60", "max-age=5", "max-stale", "max-stale=7", "min-fresh=1", "min-fresh=9", "no-cache"]
    said += ["stale-while-revalidate=30", "stale-while-revalidate=3", "stale-if-error=40", "stale-if-error=4"]
    strictest = Directives(
        no_cache=True,
        max_age_s=5,
        max_stale_s=7,
        min_fresh_s=9,
        stale_while_revalidate_s=3,
        stale_if_error_s=4,
    )
    assert parse(", ".join(said)) == parse(",".join(reversed(said))) == strictest
    with pytest.raises(InvalidRequest, match="max-age"):
        parse("max-age=soon, max-age=5")


@pytest.mark.parametrize("name", ["max-stale", "min-fresh", "stale-while-revalidate", "stale-if-error"])
def test_a_bad_number_is_refused_by_name(name):
    """So that a client learns which of its directives is not understood."""
    with pytest.raises(InvalidRequest, match=name):
        parse(f"{name}=soon")


def test_tags_of_a_request():
    """They are named by a header of ours: each once, and no more than there is room for."""
    assert read({"x-warmgate-tags": "news, eu,news"}).tags == ("news", "eu")
    for bad in ("a b", ",".join(f"t{place}" for place in range(17)), "é", "x" * 129):
        with pytest.raises(InvalidRequest, match="X-Warmgate-Tags"):
            read({"x-warmgate-tags": bad})


def test_entity_tags_are_compared_weakly():
    """A client names what it has, with or without the mark of weakness, or anything at all."""
    tag = entity_tag(b"f" * 32, 1000.5)
    assert tag == entity_tag(b"f" * 32, 1000.5) != entity_tag(b"f" * 32, 1000.6)
    assert tag.startswith('W/"')
    for header in (tag, tag.removeprefix("W/"), f'"x", {tag}', "*"):
        assert is_known(header, tag)
    for header in ('"x"', tag[:-2] + '"', ""):
        assert not is_known(header, tag)


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (
            CacheStatus(hit=True, detail="exact", ttl_s=-3, hits=2, items=2),
            "warmgate; hit; ttl=-3; hits=2; items=2; detail=exact",
        ),
        (
            CacheStatus(forward="partial", stored=True, hits=3, items=5),
            "warmgate; fwd=partial; stored; hits=3; items=5",
        ),
        (
            CacheStatus(forward="stale", forward_status=502, ttl_s=-9, detail="stale-if-error"),
            "warmgate; fwd=stale; fwd-status=502; ttl=-9; detail=stale-if-error",
        ),
    ],
)
def test_cache_status(status, header):
    """The header is what RFC 9211 defines, with two words more for requests of several inputs."""
    assert status.header() == header
