"""Sizes, times and shares: what reads as which number, and what is refused in which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.units import (
    MAX_SIZE_BYTES,
    MAX_TIME_S,
    SIZE_UNITS,
    TIME_UNITS_S,
    Allowance,
    allowance_text,
    duration_text,
    parse_allowance,
    parse_duration,
    parse_share,
    parse_size,
    size_text,
)

PARSERS = [parse_size, parse_duration, parse_share, parse_allowance]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("256MiB", 2**28), ("4GiB", 2**32), ("1.5KiB", 1536), ("10 MB", 10**7), ("7B", 7), (0, 0), ("0B", 0)],
)
def test_sizes_are_whole_bytes(text: object, expected: int) -> None:
    """A size reads as its whole number of bytes, with binary and decimal units told apart."""
    assert parse_size(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("500ms", 0.5), ("90s", 90.0), ("10m", 600.0), ("1h", 3600.0), ("1.5d", 129600.0), (0, 0.0)]
)
def test_times_are_seconds(text: object, expected: float) -> None:
    """A time reads as its seconds."""
    assert parse_duration(text) == expected


def test_shares_are_fractions() -> None:
    """A share reads as a fraction of one."""
    assert parse_share("1%") == 0.01
    assert parse_share("100%") == 1.0


def test_an_allowance_is_a_size_or_a_share() -> None:
    """An allowance holds its size whatever the total, or its share of the total."""
    assert parse_allowance("8GiB").of(10) == 8 * 2**30
    assert parse_allowance("25%") == Allowance(share=0.25)
    assert parse_allowance("25%").of(1000) == 250
    assert parse_allowance(0).of(1000) == 0


@given(st.integers(0, 10**6), st.sampled_from(sorted(SIZE_UNITS)))
def test_every_size_within_bounds_reads_back(number: int, unit: str) -> None:
    """A whole number with a unit of size is exactly that many units, or is refused for being too large."""
    if number * SIZE_UNITS[unit] <= MAX_SIZE_BYTES:
        assert parse_size(f"{number}{unit}") == number * SIZE_UNITS[unit]
    else:
        with pytest.raises(ValueError, match="more than"):
            parse_size(f"{number}{unit}")


@given(st.integers(0, 10**6), st.sampled_from(sorted(TIME_UNITS_S)))
def test_every_time_within_bounds_reads_back(number: int, unit: str) -> None:
    """A whole number with a unit of time is that many units, or is refused for being too long."""
    if number * TIME_UNITS_S[unit] <= MAX_TIME_S:
        assert parse_duration(f"{number}{unit}") == pytest.approx(number * TIME_UNITS_S[unit])
    else:
        with pytest.raises(ValueError, match="more than 365d"):
            parse_duration(f"{number}{unit}")


@given(st.integers(0, 2**53))
def test_a_written_size_reads_back(size_bytes: int) -> None:
    """What a size is written as is read as exactly that size."""
    assert parse_size(size_text(size_bytes)) == size_bytes


@given(st.floats(0, MAX_TIME_S))
def test_a_written_time_reads_back(duration_s: float) -> None:
    """What a time is written as is read as that time, to the millionth of a millisecond."""
    assert parse_duration(duration_text(duration_s)) == pytest.approx(duration_s, rel=1e-12, abs=1e-9)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (size_text(2**28), "256MiB"),
        (size_text(1500), "1500B"),
        (size_text(0), "0B"),
        (duration_text(90.0), "90s"),
        (duration_text(600.0), "10m"),
        (duration_text(1.5), "1500ms"),
        (duration_text(0.0), "0s"),
        (allowance_text(Allowance(share=0.8)), "80%"),
        (allowance_text(Allowance(size_bytes=2**33)), "8GiB"),
    ],
)
def test_quantities_are_written_as_operators_write_them(written: str, expected: str) -> None:
    """The largest unit that needs no fraction is taken."""
    assert written == expected


@pytest.mark.parametrize("parser", PARSERS)
@given(value=st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.none(), st.just(()), st.just({})))
def test_any_value_is_a_finite_number_or_a_value_error(parser, value: object) -> None:
    """Whatever stands in the file, a parser returns a number that is not negative, or raises `ValueError`."""
    try:
        result = parser(value)
    except ValueError:
        return
    number = result.of(2**40) if isinstance(result, Allowance) else result
    assert 0 <= number <= MAX_SIZE_BYTES


@pytest.mark.parametrize(
    ("parser", "value", "expected"),
    [
        (parse_size, 1000, "has no unit: write a size such as 256MiB"),
        (parse_size, "1000", "is not a size such as 256MiB"),
        (parse_size, "1mib", "units: B, kB, MB, GB, TB, KiB, MiB, GiB, TiB"),
        (parse_size, "-1MiB", "is not a size"),
        (parse_size, "٣MiB", "is not a size"),
        (parse_size, True, "is not a size"),
        (parse_duration, 1.5, "has no unit: write a time such as 90s"),
        (parse_duration, "1h30m", "units: ms, s, m, h, d"),
        (parse_duration, "1e9s", "is not a time"),
        (parse_share, "101%", "is more than 100%"),
        (parse_share, 0.5, "has no unit: write a share such as 80%"),
        (parse_allowance, "200%", "is more than 100%"),
    ],
)
def test_what_is_refused_is_told_what_is_allowed(parser, value: object, expected: str) -> None:
    """A refusal names the form and the units that are allowed."""
    with pytest.raises(ValueError, match=expected):
        parser(value)
