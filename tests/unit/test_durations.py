import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsync.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0:05:00", 300_000),
        ("2:00:00", 7_200_000),
        ("05:00", 300_000),
        ("0:00:01.5", 1_500),
        ("0:00:00.050", 50),
        ("500ms", 500),
        ("0.5s", 500),
        ("2h", 7_200_000),
        ("4 m", 240_000),
        ("7", 7_000),
        (7, 7_000),
        (0.25, 250),
    ],
)
def test_reads_what_people_write(text: object, ms: int) -> None:
    assert parse_duration(text, bare_ms=1_000) == ms


def test_a_bare_number_counts_what_the_caller_says() -> None:
    assert parse_duration(5, bare_ms=1) == 5


@pytest.mark.parametrize("text", ["", "x", "1:99:00", "1:00:75", "-5", -5, "5 parsecs", True, None])
def test_refuses_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="write"):
        parse_duration(text, bare_ms=1)


@given(st.integers(0, 2**32))
def test_reads_what_it_writes(ms: int) -> None:
    assert parse_duration(format_duration(ms), bare_ms=1) == ms
