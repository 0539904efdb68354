"""Durations, as people write them and as Jool does."""

import re

_CLOCK = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})(?:\.(\d{1,3}))?")
_UNITS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNIT_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
HELP = 'write "H:MM:SS" (also with .mmm), or a number with a unit such as "500ms", "0.5s", "2h"'


def parse_duration(value: object, *, bare_ms: int) -> int:
    """A duration in milliseconds; a number without a unit counts `bare_ms` each.

    Raises ValueError with a message for people.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not a duration; {HELP}")
    text = str(value).strip()
    if clock := _CLOCK.fullmatch(text):
        hours, minutes, seconds, fraction = clock.groups()
        if int(minutes) >= 60 or int(seconds) >= 60:
            raise ValueError(f"{text!r} has more than 59 minutes or seconds; {HELP}")
        whole = (int(hours or 0) * 60 + int(minutes)) * 60 + int(seconds)
        return whole * 1_000 + int((fraction or "").ljust(3, "0"))
    if units := _UNITS.fullmatch(text):
        number, unit = units.groups()
        return round(float(number) * (_UNIT_MS[unit] if unit else bare_ms))
    raise ValueError(f"{text!r} is not a duration; {HELP}")


def format_duration(ms: int) -> str:
    """H:MM:SS.mmm, the fraction only where there is one."""
    seconds, ms = divmod(ms, 1_000)
    text = f"{seconds // 3_600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{ms:03}" if ms else text
