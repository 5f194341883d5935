"""The cache's HTTP vocabulary: `Cache-Control` and conditions in (RFC 9111, 5861, 9110), `Cache-Status` out (RFC 9211).

Knows no store.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from backends.value import value
from gateway.errors import InvalidRequest
from gateway.fields import cut
from gateway.request import UNSAID, Directives

TAGS = "x-warmgate-tags"
MOST_TAGS = 16
TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}")

# A list's members; a comma within quotes parts none (RFC 9110 §5.6.4). A quote that nobody closes ends with the header.
_MEMBER = re.compile(r'(?:[^",]++|"(?:[^"\\]|\\.)*+(?:"|\\?$))++')

# More digits than any age has; a number that is longer counts as the greatest (RFC 9111 §1.2.2).
_MOST_DIGITS = 10

Forward = Literal["miss", "stale", "partial", "request", "bypass"]
"""Why a request went on to a model (RFC 9211 §2.2)."""


def read(headers: Mapping[str, str]) -> Directives:
    """Return what a request's headers ask of the caches. Raises `InvalidRequest`."""
    directives = parse(headers.get("cache-control"))
    tags = headers.get(TAGS)
    return directives if tags is None else replace(directives, tags=_tags(tags))


def parse(header: str | None) -> Directives:
    """Read a client's `Cache-Control`. Unknown directives are ignored, as the RFC asks; a bad number is refused.

    Of a directive that is there more than once the strictest counts: RFC 9111 §4.2.1 lets a cache choose so.
    """
    if header is None:
        return UNSAID
    said: dict[str, list[str]] = {}
    for part in _MEMBER.findall(header.lower()):
        name, value = _split(part)
        said.setdefault(name, []).append(value)
    stale = [_number("max-stale", value) if value else math.inf for value in said.get("max-stale", ())]
    return Directives(
        no_store="no-store" in said,
        no_cache="no-cache" in said,
        only_if_cached="only-if-cached" in said,
        max_age_s=min(_seconds(said, "max-age"), default=None),
        max_stale_s=min(stale, default=None),
        min_fresh_s=max(_seconds(said, "min-fresh"), default=0),
        stale_while_revalidate_s=min(_seconds(said, "stale-while-revalidate"), default=0),
        stale_if_error_s=min(_seconds(said, "stale-if-error"), default=0),
    )


def _split(part: str) -> tuple[str, str]:
    name, _, said = part.strip().partition("=")
    return name.strip(), said.strip().strip('"')


def _seconds(said: Mapping[str, list[str]], name: str) -> list[int]:
    return [_number(name, value) for value in said.get(name, ())]


def _number(name: str, said: str) -> int:
    if not (said.isascii() and said.isdecimal()):
        raise InvalidRequest(f"Cache-Control: {name} must be a whole number of seconds, got '{cut(said)}'")
    return int(said) if len(said) <= _MOST_DIGITS else 10**_MOST_DIGITS


def _tags(header: str) -> tuple[str, ...]:
    tags = tuple(dict.fromkeys([tag.strip() for tag in header.split(",", MOST_TAGS) if tag.strip()]))
    if len(tags) > MOST_TAGS or not all(TAG.fullmatch(tag) for tag in tags):
        raise InvalidRequest(
            f"X-Warmgate-Tags must be at most {MOST_TAGS} tags with commas between, each of up to 128"
            f" letters, digits and '._:/@+-', the first a letter or digit, got '{cut(header)}'"
        )
    return tags


def entity_tag(fingerprint: bytes, created_s: float) -> str:
    """Return the `ETag` of an answer: weak, since a replay has a fresh id, and perhaps another form (RFC 9110 §8.8.1).

    It is known as soon as the answer begins, so that the first reply bears the one that its replays will.
    """
    return f'W/"{fingerprint[:12].hex()}-{int(created_s * 1_000_000):x}"'


def is_known(header: str, tag: str) -> bool:
    """Tell whether an `If-None-Match` names an answer, by the weak comparison (RFC 9110 §8.8.3.2, §13.1.2)."""
    opaque = tag.removeprefix("W/")
    return header.strip() == "*" or any(part.strip().removeprefix("W/") == opaque for part in header.split(","))


@value
class CacheStatus:
    """What the caches did for one response. `detail` is the tier of a hit, or the reason why none was looked for.

    `hits` of `items` are those of a request with several inputs, each of which is cached for itself.
    """

    hit: bool = False
    detail: str | None = None
    ttl_s: int | None = None
    age_s: int | None = None
    forward: Forward | None = None
    collapsed: bool = False
    stored: bool = False
    matched: str | None = None
    forward_status: int | None = None
    hits: int = 0
    items: int = 0

    def header(self) -> str:
        """Write the value of `Cache-Status`."""
        parts = ["warmgate", "hit" if self.hit else f"fwd={self.forward}"]
        if self.forward_status is not None:
            parts.append(f"fwd-status={self.forward_status}")
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.ttl_s is not None:
            parts.append(f"ttl={self.ttl_s}")
        if self.items:
            parts.append(f"hits={self.hits}; items={self.items}")
        if self.detail is not None:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)

    def label(self) -> str:
        """Name the outcome in one word for a metric."""
        if self.hit:
            return str(self.detail)
        return "collapsed" if self.collapsed else str(self.forward)


def label_of(status: CacheStatus | None) -> str:
    """Name in one word for a metric what the caches did; `none` where nothing was asked of them."""
    return "none" if status is None else status.label()
