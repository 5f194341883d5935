"""Sizes, times and shares as operators write them: `256MiB`, `90s`, `1%`. Knows nothing of where they stand."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

SIZE_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
TIME_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_WORDS = "a size such as 256MiB (units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB)"
MAX_SIZE_BYTES = 2**60
MAX_TIME_S = 365 * 86400.0

# The same in the words of a JSON Schema; shares are `SHARE_PATTERN`.
_NUMBER = r"[0-9]{1,18}(\.[0-9]{1,9})? ?"
SIZE_PATTERN = rf"^{_NUMBER}({'|'.join(SIZE_UNITS)})$"
TIME_PATTERN = rf"^{_NUMBER}({'|'.join(TIME_UNITS_S)})$"
SHARE_PATTERN = rf"^{_NUMBER}%$"

_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z%]+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Allowance:
    """An amount of memory: `size_bytes`, or a `share` (0 to 1) of a total; exactly one of them is set."""

    size_bytes: int | None = None
    share: float | None = None

    def of(self, total_bytes: int) -> int:
        """Return the allowance in bytes where `total_bytes` is all there is."""
        return self.size_bytes if self.size_bytes is not None else int(total_bytes * (self.share or 0.0))


def parse_size(value: object) -> int:
    """Return a size such as `256MiB` in whole bytes; 0 needs no unit. Raises `ValueError` naming what is allowed."""
    return _size(value, SIZE_WORDS)


def parse_duration(value: object) -> float:
    """Return a time such as `90s` in seconds; 0 needs no unit. Raises `ValueError` naming what is allowed."""
    if _is_zero(value):
        return 0.0
    seconds = _amount(value, TIME_UNITS_S, "a time such as 90s (units: ms, s, m, h, d)")
    if seconds > MAX_TIME_S:
        raise ValueError("is more than 365d")
    return seconds


def parse_share(value: object) -> float:
    """Return a share such as `1%` as a fraction from 0 to 1. Raises `ValueError` naming what is allowed."""
    share = _amount(value, {"%": 0.01}, "a share such as 80%")
    if share > 1:
        raise ValueError("is more than 100%")
    return share


def parse_allowance(value: object) -> Allowance:
    """Return a size such as `8GiB` or a share such as `80%`. Raises `ValueError` naming what is allowed."""
    if isinstance(value, str) and value.endswith("%"):
        return Allowance(share=parse_share(value))
    return Allowance(size_bytes=_size(value, f"{SIZE_WORDS}, or a share such as 80%"))


def _size(value: object, allowed: str) -> int:
    if _is_zero(value):
        return 0
    size_bytes = round(_amount(value, SIZE_UNITS, allowed))
    if size_bytes > MAX_SIZE_BYTES:
        raise ValueError("is more than 1048576TiB")
    return size_bytes


def _is_zero(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value == 0


def _amount(value: object, units: Mapping[str, float], allowed: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError(f"has no unit: write {allowed}")  # noqa: TRY004
    found = _QUANTITY.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] not in units:
        raise ValueError(f"is not {allowed}")
    return float(found[1]) * units[found[2]]


def size_text(size_bytes: int) -> str:
    """Return a size as an operator writes it, exactly: `256MiB`, `1500B`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % SIZE_UNITS[unit] == 0:
            return f"{size_bytes // SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def duration_text(duration_s: float) -> str:
    """Return a time as an operator writes it: `10m`, `1500ms`."""
    for unit in ("d", "h", "m", "s"):
        if duration_s % TIME_UNITS_S[unit] == 0 and (duration_s or unit == "s"):
            return f"{duration_s / TIME_UNITS_S[unit]:.0f}{unit}"
    return f"{duration_s * 1000:.9f}".rstrip("0").rstrip(".") + "ms"


def allowance_text(allowance: Allowance) -> str:
    """Return an allowance as an operator writes it: `8GiB`, `80%`."""
    if allowance.size_bytes is not None:
        return size_text(allowance.size_bytes)
    return share_text(allowance.share or 0.0)


def share_text(share: float) -> str:
    """Return a share as an operator writes it: `80%`."""
    return f"{share * 100:.9g}%"
