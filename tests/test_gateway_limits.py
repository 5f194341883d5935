"""What a key may use: buckets that refill, tokens that are settled, places that are given back."""

import re
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.callers.limits import Limiter, Permit, duration
from gateway.errors import BeyondLimit, RateLimited, fault
from gateway.request import UNLIMITED, Caller, Limits
from tests.fakes import VirtualClock


def caller(requests: int | None = None, tokens: int | None = None, concurrency: int | None = None) -> Caller:
    """Make a caller with these limits."""
    return Caller("key:a", limits=Limits(requests, tokens, concurrency))


def refused(limiter: Limiter, who: Caller, tokens: int = 0) -> RateLimited:
    """Return the refusal that a request gets."""
    with pytest.raises(RateLimited) as caught:
        limiter.admit(who, tokens)
    return caught.value


def test_requests_refill_as_time_goes() -> None:
    """A minute's requests may come at once; then one passes each time that one has been earned."""
    clock = VirtualClock()
    limiter, who = Limiter(clock), caller(requests=60)
    for _ in range(60):
        limiter.admit(who, 0).settle(0)

    error = refused(limiter, who)
    assert error.retry_after_s == pytest.approx(1.0)
    assert "60 requests per minute are used up; try again in 1s" in str(error)
    clock.advance(0.99)
    refused(limiter, who)
    clock.advance(0.02)
    limiter.admit(who, 0)


def test_tokens_are_settled_by_what_was_used() -> None:
    """What was estimated too high comes back at the end, and what was too low becomes a debt."""
    clock = VirtualClock()
    limiter, who = Limiter(clock), caller(tokens=600)
    permit = limiter.admit(who, 500)
    assert "of the key's 600 per minute 100 are left" in str(refused(limiter, who, 200))

    permit.settle(100)
    assert limiter.headers(who)["x-ratelimit-remaining-tokens"] == "500"
    limiter.admit(who, 200).settle(800)
    assert limiter.headers(who)["x-ratelimit-remaining-tokens"] == "0"
    assert refused(limiter, who, 100).retry_after_s == pytest.approx(40.0)
    clock.advance(40.1)
    limiter.admit(who, 100)


def test_request_that_can_never_pass_is_not_to_be_tried_again() -> None:
    """More tokens than a whole minute has is told apart from a bucket that is empty for now."""
    limiter, who = Limiter(VirtualClock()), caller(tokens=600)
    with pytest.raises(BeyondLimit, match="about 601 tokens, with those that it may make; the key has 600") as caught:
        limiter.admit(who, 601)

    told = fault(caught.value)
    assert (told.status, told.retry) == (429, False)
    assert told.headers["x-ratelimit-limit-tokens"] == "600"
    limiter.admit(who, 600)


def test_places_are_given_back_once() -> None:
    """At most so many requests run; to settle one twice gives back one place."""
    limiter, who = Limiter(VirtualClock()), caller(concurrency=2)
    first, _ = limiter.admit(who, 1), limiter.admit(who, 1)
    error = refused(limiter, who)
    assert "2 of 2 requests running" in str(error)
    assert fault(error).retry

    first.settle(0)
    first.settle(0)
    limiter.admit(who, 1)
    refused(limiter, who)


def test_refusal_takes_nothing() -> None:
    """A request that one limit refuses uses up nothing of the others."""
    limiter, who = Limiter(VirtualClock()), caller(requests=5, tokens=10, concurrency=9)
    limiter.admit(who, 10)
    before = limiter.headers(who)
    for _ in range(9):
        refused(limiter, who, 1)

    assert limiter.headers(who) == before


def test_headers_tell_what_is_left() -> None:
    """Limits, what is left and when all of it is back, as OpenAI writes them; a refusal says when to come again."""
    limiter = Limiter(VirtualClock())
    permit = limiter.admit(caller(requests=600, tokens=60_000), 12_000)

    assert permit.headers == {
        "x-ratelimit-limit-requests": "600",
        "x-ratelimit-limit-tokens": "60000",
        "x-ratelimit-remaining-requests": "599",
        "x-ratelimit-remaining-tokens": "48000",
        "x-ratelimit-reset-requests": "100ms",
        "x-ratelimit-reset-tokens": "12s",
    }
    error = refused(limiter, caller(requests=600, tokens=60_000), 48_500)
    assert error.headers["retry-after-ms"] == "500"
    assert error.headers["x-ratelimit-remaining-tokens"] == "48000"


def test_background_work_takes_no_place_and_leaves_half() -> None:
    """It runs beside the requests at a time, and waits while less than half of a bucket would be left after it."""
    clock = VirtualClock()
    limiter, who = Limiter(clock), caller(requests=10, tokens=1000, concurrency=1)
    live = limiter.admit(who, 0)
    behind = [limiter.admit(who, 100, background=True) for _ in range(4)]

    with pytest.raises(RateLimited, match="half is left to requests that somebody waits for; try again in 6s") as late:
        limiter.admit(who, 200, background=True)
    clock.advance(late.value.retry_after_s)
    behind.append(limiter.admit(who, 100, background=True))
    assert "1 of 1 requests running" in str(refused(limiter, who))

    live.settle(0)
    limiter.admit(who, 500).settle(0)
    for permit in behind:
        permit.settle(0)
    assert limiter.headers(who)["x-ratelimit-remaining-tokens"] == "1000"


def test_background_work_of_more_than_half_waits_for_a_full_bucket() -> None:
    """What no half will ever hold passes when nobody has taken anything; what no bucket holds never does."""
    clock = VirtualClock()
    limiter, who = Limiter(clock), caller(requests=1, tokens=1000)
    limiter.admit(who, 10).settle(10)
    with pytest.raises(RateLimited) as late:
        limiter.admit(who, 800, background=True)

    assert late.value.retry_after_s == pytest.approx(60.0)
    clock.advance(late.value.retry_after_s)
    limiter.admit(who, 800, background=True).settle(0)
    with pytest.raises(BeyondLimit):
        limiter.admit(who, 1001, background=True)


def test_only_limits_that_there_are_have_headers() -> None:
    """A key without limits gets none, and costs no account."""
    limiter = Limiter(VirtualClock())

    assert set(limiter.admit(caller(requests=5), 1).headers) == {
        "x-ratelimit-limit-requests",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    }
    assert limiter.admit(Caller("key:b", limits=UNLIMITED), 1).headers == {}
    assert limiter.headers(Caller("key:b")) == {}
    assert list(limiter._accounts) == ["key:a"]


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0ms"), (0.0001, "1ms"), (0.12, "120ms"), (1, "1s"), (8.64, "8.64s"), (360, "6m0s"), (3661, "1h1m1s")],
)
def test_times_as_openai_writes_them(seconds: float, written: str) -> None:
    """Times are rounded up, so that who waits for them has waited long enough."""
    assert duration(seconds) == written


@given(seconds=st.floats(0, 1e7))
def test_every_time_can_be_read_back(seconds: float) -> None:
    """Whatever is written reads as a time that is not shorter."""
    found = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:([\d.]+)s)?|(\d+)ms", duration(seconds))
    assert found
    hours, minutes, rest, millis = [float(group or 0) for group in found.groups()]
    assert hours * 3600 + minutes * 60 + rest + millis / 1000 >= seconds - 1e-6


def test_changed_limits_apply_at_once() -> None:
    """A bucket that grows or shrinks stays as full as it was; requests that run count on."""
    clock = VirtualClock()
    limiter = Limiter(clock)
    running = limiter.admit(caller(requests=100, concurrency=1), 0)
    for _ in range(49):
        limiter.admit(caller(requests=100), 0).settle(0)

    assert limiter.headers(caller(requests=10))["x-ratelimit-remaining-requests"] == "5"
    assert limiter.headers(caller(requests=1000))["x-ratelimit-remaining-requests"] == "500"
    assert "1 of 1 requests running" in str(refused(limiter, caller(requests=1000, concurrency=1)))
    running.settle(0)
    limiter.admit(caller(requests=1000, concurrency=1), 0)
    assert limiter.headers(caller(tokens=7))["x-ratelimit-remaining-tokens"] == "7"


def test_accounts_of_callers_that_rest_are_forgotten() -> None:
    """However many callers come and go, only those that used something of late are kept."""
    clock = VirtualClock()
    limiter = Limiter(clock)
    for number in range(5000):
        limiter.admit(Caller(f"key:{number}", limits=Limits(requests_per_minute=60)), 0).settle(0)
        clock.advance(1.0)

    assert len(limiter._accounts) <= 256


class OneCaller(RuleBasedStateMachine):
    """Requests of one caller come, run and end in any order while time passes."""

    LIMITS = Limits(requests_per_minute=7, tokens_per_minute=50, concurrency=3)

    def __init__(self) -> None:
        super().__init__()
        self.clock = VirtualClock()
        self.limiter = Limiter(self.clock)
        self.caller = Caller("key:a", limits=self.LIMITS)
        self.running: list[tuple[Permit, int]] = []
        self.admitted: deque[float] = deque()
        self.used: deque[tuple[float, int]] = deque()

    @rule(tokens=st.integers(0, 60))
    def ask(self, tokens: int) -> None:
        """Send a request; it may be refused."""
        try:
            permit = self.limiter.admit(self.caller, tokens)
        except (RateLimited, BeyondLimit):
            return
        self.running.append((permit, tokens))
        self.admitted.append(self.clock.now)

    @precondition(lambda self: self.running)
    @rule(share=st.floats(0, 1), place=st.integers(0, 2))
    def end(self, share: float, place: int) -> None:
        """End one, having used at most what was estimated."""
        permit, tokens = self.running.pop(place % len(self.running))
        permit.settle(int(tokens * share))
        permit.settle(tokens)
        self.used.append((self.clock.now, int(tokens * share)))

    @rule(seconds=st.floats(0, 70))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.advance(seconds)

    @rule()
    def wait_as_told(self) -> None:
        """Wait, with nothing running, as long as a refusal says: then the request passes."""
        while self.running:
            self.end(1.0, 0)
        try:
            permit = self.limiter.admit(self.caller, 10)
        except RateLimited as error:
            self.clock.advance(error.retry_after_s)
            permit = self.limiter.admit(self.caller, 10)
        permit.settle(0)
        self.admitted.append(self.clock.now)

    @invariant()
    def never_more_than_the_bucket_and_what_was_earned(self) -> None:
        """In every window up to now: at most one full bucket, and the rate times the window."""
        now = self.clock.now
        for count, since in enumerate(reversed(self.admitted), start=1):
            assert count <= 7 + (now - since) * 7 / 60 + 1e-6
        total = 0
        for since, tokens in reversed(self.used):
            total += tokens
            assert total <= 50 + (now - since) * 50 / 60 + 1e-6

    @invariant()
    def no_place_leaks(self) -> None:
        """As many run as have begun and not ended."""
        account = self.limiter._accounts.get("key:a")
        assert (account.running if account else 0) == len(self.running) <= 3


TestOneCaller = OneCaller.TestCase
TestOneCaller.settings = settings(max_examples=200, stateful_step_count=30)
