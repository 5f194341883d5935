"""Whether a remembered answer may be served to a client now, by its age and what the client accepts. Pure.

Sources: RFC 9111 §4.2 and §5.2.1, RFC 5861 for what may be stale while it is renewed, or where the model fails.
"""

from dataclasses import replace
from enum import Enum

from cache.contract import Entry
from gateway.request import UNSAID, Directives

# Lives are differences of moments since 1970, which are rounded to less than a millionth of a second.
_ROUNDING_S = 1e-3


class Use(Enum):
    """What may be done with an entry: serve it, serve and renew it, keep it in case the model fails, or nothing."""

    SERVE = "serve"
    RENEW = "renew"
    SPARE = "spare"
    NONE = "none"


def use_of(entry: Entry, now: float, directives: Directives, max_stale_s: float) -> Use:
    """Decide on one entry; one that is stale for longer than the operator's `max_stale_s` is of no use."""
    if directives is UNSAID and now < entry.fresh_until:  # as nearly always
        return Use.SERVE
    past_s = max(0.0, now - entry.fresh_until)
    if past_s > max_stale_s:
        return Use.NONE
    is_fresh = now < entry.fresh_until
    if directives.max_age_s is not None:
        # By fractions of a second: whoever says max-age=0 wants nothing from a cache, however new.
        over_s = now - entry.stored_at - directives.max_age_s
        if over_s > 0 or directives.max_age_s == 0:
            is_fresh, past_s = False, max(past_s, over_s)
    if not directives.no_cache:
        if is_fresh:
            if entry.fresh_until - now >= directives.min_fresh_s:
                return Use.SERVE
        elif directives.max_stale_s is not None and past_s <= directives.max_stale_s:
            return Use.SERVE
        if past_s < directives.stale_while_revalidate_s:
            return Use.SERVE if directives.only_if_cached else Use.RENEW
    return Use.SPARE if past_s < directives.stale_if_error_s else Use.NONE


def shortened(entry: Entry, ttl_s: float, jitter: float) -> Entry:
    """Return an entry as one that is fresh for `ttl_s` at most, less its jitter; most are, and returned as they are.

    It was kept under settings that gave it longer, before an edit or by another gateway.
    """
    life_s = entry.fresh_until - entry.stored_at
    if life_s <= ttl_s + _ROUNDING_S:
        return entry
    return replace(entry, expires_at=entry.expires_at - life_s + jittered(ttl_s, jitter, entry.key))


def age_of(entry: Entry, now: float) -> int:
    """Return an entry's age in whole seconds; a clock that was set back makes nothing younger than new."""
    return max(0, int(now - entry.stored_at))


def jittered(ttl_s: float, jitter: float, key: bytes) -> float:
    """Return a time to live that is shorter by a share of up to `jitter`, drawn by the key.

    Answers that came together do so not expire together; drawn by the key, a test and another gateway draw alike.
    """
    return ttl_s * (1.0 - jitter * int.from_bytes(key[:4]) / 2**32)
