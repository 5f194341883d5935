"""What each key may use: requests and tokens a minute, and requests at a time. Knows no wire and no key itself."""

import math
import time
from collections.abc import Callable, Mapping

from gateway.errors import BeyondLimit, RateLimited, RequestRefused
from gateway.request import UNLIMITED, Caller, Limits

_MINUTE_S, _MINUTE_MS = 60.0, 60_000
# The heads that an account has told of lately: most replies repeat one of them.
_LINES_KEPT = 256
_NO_HEADERS: Mapping[str, str] = {}
# When a place among the requests at a time will be free nobody knows; this soon a client may ask again.
_PLACE_RETRY_S = 1.0
_SWEEP_AT_LEAST = 256
# What background work leaves of each bucket for requests that somebody waits for.
_KEPT = 0.5
# Who waits exactly as long as it was told must not be refused by the last bit of a float.
_ROUNDING = 1e-9


class Permit:
    """Leave for one request; `headers` tell the client what is left. Settle it exactly once, however it ends."""

    __slots__ = ()
    lines = b""
    """The headers as lines of a reply's head."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Tell what was left."""
        return _NO_HEADERS

    def settle(self, tokens: int) -> None:
        """Take the tokens that were really used instead of those that were estimated, and end the request."""


_FREE = Permit()


class _Counted(Permit):
    """Leave that an account keeps count of; to settle it again changes nothing."""

    __slots__ = ("_account", "_background", "_clock", "_estimate", "lines")

    def __init__(
        self,
        account: "_Account",
        estimate: int,
        lines: bytes,
        clock: Callable[[], float],
        *,
        background: bool,
    ) -> None:
        self._account: _Account | None = account
        self._background = background
        self._clock = clock
        self._estimate = estimate
        self.lines = lines

    @property
    def headers(self) -> Mapping[str, str]:
        return dict([line.split(": ") for line in self.lines.decode().split("\r\n")[:-1]])

    def settle(self, tokens: int) -> None:
        account = self._account
        if account is not None:
            self._account = None
            account.refill(self._clock())  # what is taken now earned nothing before
            account.settle(self._estimate, tokens, background=self._background)


class Limiter:
    """Keeps account of the callers by their scope; outlives changes of their limits."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._sweep_at = _SWEEP_AT_LEAST

    def admit(self, caller: Caller, tokens: int, *, background: bool = False) -> Permit:
        """Let a request of about so many tokens begin. Raises `RateLimited` and `BeyondLimit`.

        One in the background takes no place among the requests at a time, and leaves half of each bucket to the others;
        one that is more than half of a bucket by itself waits until that is full.
        """
        if caller.limits is UNLIMITED:
            return _FREE
        now = self._clock()
        account = self._account(caller, now)
        account.take(tokens, background=background)
        return _Counted(account, tokens, account.lines(), self._clock, background=background)

    def pass_by(self, caller: Caller, tokens: int) -> bytes:
        """Let a request of about so many tokens begin, and end with none used; return the headers' lines.

        Raises as `admit` does.
        """
        return b"" if caller.limits is UNLIMITED else self._account(caller, self._clock()).pass_by(tokens)

    def headers(self, caller: Caller) -> Mapping[str, str]:
        """Tell what is left to a caller, for answers that took no permit."""
        return _NO_HEADERS if caller.limits is UNLIMITED else self._account(caller, self._clock()).headers()

    def _account(self, caller: Caller, now: float) -> "_Account":
        """Return a caller's account as it stands now, under the limits that it has now."""
        account = self._accounts.get(caller.scope)
        if account is None:
            if len(self._accounts) >= self._sweep_at:
                self._sweep(now)
            account = self._accounts[caller.scope] = _Account(caller.limits, now)
        account.refill(now)
        if account.limits is not caller.limits:
            account.change(caller.limits)
        return account

    def _sweep(self, now: float) -> None:
        """Forget the accounts that are as good as new."""
        for account in self._accounts.values():
            account.refill(now)
        self._accounts = {scope: account for scope, account in self._accounts.items() if account.in_use}
        self._sweep_at = max(_SWEEP_AT_LEAST, 2 * len(self._accounts))


class _Account:
    """One caller's two buckets and the requests that it has running.

    `requests` and `tokens` are what was taken and has not been refilled. Tokens are estimated when a request begins:
    that much is `reserved`, which no refill touches, until what was really used is taken instead. That may be more
    than the bucket holds; then nothing passes until the debt is refilled.
    """

    __slots__ = (
        "_as_of",
        "_limit_headers",
        "_lines",
        "in_background",
        "limits",
        "requests",
        "reserved",
        "running",
        "tokens",
    )

    def __init__(self, limits: Limits, now: float) -> None:
        self.limits = limits
        self.requests = self.tokens = 0.0
        self.reserved = self.running = self.in_background = 0
        self._as_of = now
        self._limit_headers = _limit_headers(limits)
        self._lines: dict[tuple[int, ...], bytes] = {}

    @property
    def in_use(self) -> bool:
        """Tell whether anything is taken or running."""
        return bool(self.running or self.in_background or self.requests or self.tokens)

    def refill(self, now: float) -> None:
        """Give back what the time since the last look has earned."""
        minutes = (now - self._as_of) / _MINUTE_S
        self._as_of = now
        limits = self.limits
        if limits.requests_per_minute is not None and self.requests:
            self.requests = max(self.requests - minutes * limits.requests_per_minute, 0.0)
        if limits.tokens_per_minute is not None and self.tokens:
            self.tokens = max(self.tokens - minutes * limits.tokens_per_minute, 0.0)

    def change(self, limits: Limits) -> None:
        """Go on under other limits: each bucket is as full as it was, in proportion."""
        self.requests *= _ratio(self.limits.requests_per_minute, limits.requests_per_minute)
        self.tokens *= _ratio(self.limits.tokens_per_minute, limits.tokens_per_minute)
        self.limits = limits
        self._limit_headers = _limit_headers(limits)
        self._lines.clear()

    def take(self, tokens: int, *, background: bool) -> None:
        """Begin a request, or say why not and take nothing. Raises `RateLimited` and `BeyondLimit`."""
        limits = self.limits
        if limits.concurrency is not None and not background and self.running >= limits.concurrency:
            raise self._refusal(f"the key has {self.running} of {limits.concurrency} requests running", _PLACE_RETRY_S)
        missing_tokens = missing_requests = 0.0  # in minutes until they are earned
        if limits.tokens_per_minute is not None:
            missing_tokens = _missing(self.tokens + self.reserved, tokens, limits.tokens_per_minute, background)
        if limits.requests_per_minute is not None:
            missing_requests = _missing(self.requests, 1, limits.requests_per_minute, background)
        if missing_tokens > _ROUNDING or missing_requests > _ROUNDING:
            raise self._used_up(tokens, missing_tokens, missing_requests, background=background)
        if background:
            self.in_background += 1
        else:
            self.running += 1
        self.reserved += tokens
        if limits.requests_per_minute is not None:
            self.requests += 1

    def settle(self, estimate: int, used: int, *, background: bool) -> None:
        """End a request."""
        if background:
            self.in_background -= 1
        else:
            self.running -= 1
        self.reserved -= estimate
        if self.limits.tokens_per_minute is not None:
            self.tokens += used

    def headers(self) -> dict[str, str]:
        """Tell of the limits, what is left of them, and when all of it will be back."""
        return self._headers(self.tokens + self.reserved)

    def pass_by(self, tokens: int) -> bytes:
        """Begin and end a request that uses nothing; return the lines of a head that tell what is left meanwhile."""
        limits = self.limits
        taken = self.tokens + self.reserved + tokens
        if (
            (limits.requests_per_minute is not None and self.requests + 1 > limits.requests_per_minute)
            or (limits.tokens_per_minute is not None and taken > limits.tokens_per_minute)
            or limits.concurrency is not None
        ):
            self.take(tokens, background=False)  # it knows exactly
            self.settle(tokens, 0, background=False)
        elif limits.requests_per_minute is not None:
            self.requests += 1
        return self._lines_of(taken)

    def _headers(self, all_taken: float) -> dict[str, str]:
        headers = self._limit_headers.copy()
        limits = self.limits
        if limits.requests_per_minute is not None:
            taken, limit = self.requests, limits.requests_per_minute
            headers["x-ratelimit-remaining-requests"] = str(int(limit - taken))
            headers["x-ratelimit-reset-requests"] = duration(taken * _MINUTE_S / limit)
        if limits.tokens_per_minute is not None:
            taken, limit = all_taken, limits.tokens_per_minute
            headers["x-ratelimit-remaining-tokens"] = str(int(limit - taken)) if taken < limit else "0"
            headers["x-ratelimit-reset-tokens"] = duration(taken * _MINUTE_S / limit)
        return headers

    def lines(self) -> bytes:
        """Return `headers` as lines of a head."""
        return self._lines_of(self.tokens + self.reserved)

    def _lines_of(self, taken: float) -> bytes:
        """Return the lines that tell of so many tokens that are taken; the same where all that they say is the same."""
        limits = self.limits
        requests, tokens = limits.requests_per_minute, limits.tokens_per_minute
        left = (
            0 if requests is None else int(requests - self.requests),
            0 if requests is None else math.ceil(self.requests * _MINUTE_MS / requests - _ROUNDING),
            0 if tokens is None else int(tokens - taken),
            0 if tokens is None else math.ceil(taken * _MINUTE_MS / tokens - _ROUNDING),
        )
        lines = self._lines.get(left)
        if lines is None:
            if len(self._lines) >= _LINES_KEPT:
                self._lines.clear()
            headers = self._headers(taken)
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode()
            self._lines[left] = lines
        return lines

    def _used_up(
        self, tokens: int, missing_tokens: float, missing_requests: float, *, background: bool
    ) -> RequestRefused:
        limits = self.limits
        limit = limits.tokens_per_minute
        if limit is not None and tokens > limit:
            return BeyondLimit(
                f"the request is of about {tokens} tokens, with those that it may make; the key has {limit} per minute",
                self.headers(),
            )
        if background:
            why = "of the key's limits per minute half is left to requests that somebody waits for"
            return self._refusal(why, max(missing_tokens, missing_requests) * _MINUTE_S)
        if limit is None or missing_tokens < missing_requests:
            why = f"the key's {limits.requests_per_minute} requests per minute are used up"
            return self._refusal(why, missing_requests * _MINUTE_S)
        left = max(limit - self.tokens - self.reserved, 0)
        why = f"the request is of about {tokens} tokens; of the key's {limit} per minute {left:.0f} are left"
        return self._refusal(why, missing_tokens * _MINUTE_S)

    def _refusal(self, why: str, wait_s: float) -> RateLimited:
        headers = self.headers() | {"retry-after-ms": str(math.ceil(wait_s * 1000))}
        return RateLimited(f"{why}; try again in {duration(wait_s)}", wait_s, headers)


def _missing(taken: float, asked: float, limit: int, background: bool) -> float:
    """Return the minutes until so much may be taken of a bucket of this size."""
    share = max(1 - _KEPT, asked / limit) if background else 1.0
    return (taken + asked) / limit - share


def duration(seconds: float) -> str:
    """Write a time as OpenAI's headers do: `120ms`, `8.64s`, `6m0s`."""
    millis = math.ceil(seconds * 1000 - _ROUNDING)
    if millis < 1000:  # noqa: PLR2004 - a second
        return f"{millis}ms"
    if seconds < _MINUTE_S:
        return f"{math.ceil(seconds * 100) / 100:g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{rest}s" if hours else f"{minutes}m{rest}s"


def _limit_headers(limits: Limits) -> dict[str, str]:
    headers = {}
    if limits.requests_per_minute is not None:
        headers["x-ratelimit-limit-requests"] = str(limits.requests_per_minute)
    if limits.tokens_per_minute is not None:
        headers["x-ratelimit-limit-tokens"] = str(limits.tokens_per_minute)
    return headers


def _ratio(old: int | None, new: int | None) -> float:
    """Return by what a bucket's content grows with its size; where there was none, or will be none, it is empty."""
    return 0.0 if old is None or new is None else new / old
