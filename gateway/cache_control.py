"""The cache's HTTP vocabulary: `Cache-Control` in (RFC 9111), `Cache-Status` out (RFC 9211). Knows no store."""

from typing import Literal

from backends.value import value
from gateway.errors import InvalidRequest
from gateway.request import Directives

_NONE = Directives()


def parse(header: str | None) -> Directives:
    """Read a client's `Cache-Control`. Unknown directives are ignored, as the RFC asks; a bad number is refused."""
    if header is None:
        return _NONE
    parts = dict(_split(part) for part in header.lower().split(","))
    return Directives(
        no_store="no-store" in parts,
        no_cache="no-cache" in parts,
        only_if_cached="only-if-cached" in parts,
        max_age_s=_seconds(parts["max-age"]) if "max-age" in parts else None,
    )


def _split(part: str) -> tuple[str, str]:
    name, _, value = part.strip().partition("=")
    return name.strip(), value.strip().strip('"')


def _seconds(value: str) -> int:
    if not (value.isascii() and value.isdecimal()):
        raise InvalidRequest(f"Cache-Control: max-age must be a whole number of seconds, got '{value}'")
    return int(value[:12])


@value
class CacheStatus:
    """What the caches did for one response. `detail` is the tier of a hit, or the reason why none was looked for."""

    hit: bool = False
    detail: str | None = None
    ttl_s: int | None = None
    age_s: int | None = None
    forward: Literal["miss", "bypass", "request"] | None = None
    collapsed: bool = False
    stored: bool = False
    matched: str | None = None

    def header(self) -> str:
        """Write the value of `Cache-Status`."""
        parts = ["warmgate", "hit" if self.hit else f"fwd={self.forward}"]
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.ttl_s is not None:
            parts.append(f"ttl={self.ttl_s}")
        if self.detail is not None:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)

    def label(self) -> str:
        """Name the outcome in one word for a metric."""
        if self.hit:
            return str(self.detail)
        return "collapsed" if self.collapsed else str(self.forward)
