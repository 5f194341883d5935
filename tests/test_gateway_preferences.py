"""What a client prefers, and what becomes of its route then."""

import pytest

from gateway.callers.preferences import NO_PREFERENCES, Preferences, read
from gateway.errors import InvalidRequest
from gateway.routes import Route

ROUTE = Route("chat", ("big", "middle"), (0.5, 0.5), ("spare",))


def test_who_says_nothing_prefers_nothing():
    """Without a header of ours there is nothing to read."""
    assert read({"accept": "*/*"}) is NO_PREFERENCES


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("wait=10", 10.0),
        ('respond-async, wait="3"', 3.0),
        ("Wait = 0; strict, return=minimal", 0.0),
        ("wait=1, wait=2", 1.0),
        ("respond-async", None),
        ("", None),
    ],
)
def test_prefer_wait_is_read_among_other_preferences(header, wait_s):
    """RFC 7240: the first `wait` counts, what is not known is ignored, parameters too."""
    assert read({"prefer": header}).wait_s == wait_s


@pytest.mark.parametrize("header", ["wait", "wait=soon", "wait=-1", "wait=1.5", "wait=1234567890123"])
def test_a_wait_that_is_no_number_of_seconds_is_refused(header):
    """The refusal says what is allowed."""
    with pytest.raises(InvalidRequest, match="whole number of seconds"):
        read({"prefer": header})


def test_a_preference_that_is_not_known_is_refused_by_name():
    """A wrong X-Warmgate-Prefer names what it was, and what is allowed."""
    assert read({"x-warmgate-prefer": " Exact "}) == Preferences(route="exact")
    with pytest.raises(InvalidRequest, match=r"fastest, exact, got 'cheapest'"):
        read({"x-warmgate-prefer": "cheapest"})


def test_the_next_model_is_a_name():
    """X-Warmgate-Next names a model; an empty one names none."""
    assert read({"x-warmgate-next": " coder "}).next_model == "coder"
    assert read({"x-warmgate-next": " "}).next_model is None


def test_exact_takes_no_fallback():
    """Who wants the model that it names is not answered by one that steps in."""
    exact = ROUTE.preferring("exact")

    assert (exact.candidates, exact.weights, exact.fallback) == (ROUTE.candidates, ROUTE.weights, ())


def test_fastest_takes_whichever_model_is_first():
    """Who wants to be served soon has every model of the route for a candidate, and no draw between them."""
    fastest = ROUTE.preferring("fastest")

    assert (fastest.candidates, fastest.weights, fastest.fallback) == (("big", "middle", "spare"), (), ())


def test_a_preference_changes_nothing_where_there_is_one_model():
    """A route without another model stays the very same, so that work on it is shared."""
    alone = Route("one", ("one",))

    assert alone.preferring("exact") is alone
    assert alone.preferring("fastest") is alone
    assert ROUTE.preferring(None) is ROUTE
