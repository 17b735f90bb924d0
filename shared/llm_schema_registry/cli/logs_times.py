"""Times that people type, and times and durations as they are shown."""

from __future__ import annotations

import datetime
import re

from llm_schema_registry.cli.exit_codes import UsageFault

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([0-9]{1,6})([smhdw])")
LATEST = datetime.datetime(9999, 12, 31, tzinfo=datetime.UTC).timestamp()
"""Times beyond are none: a calendar ends there."""


def given_moment(text: str, option: str, now: float) -> float:
    """Seconds since 1970 of `2h` (that long ago) or an ISO time; one without an offset is UTC.

    Raises UsageFault for anything else.
    """
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return now - int(ago[1]) * SECONDS[ago[2]]
    found = seconds_of(text)
    if found is None:
        raise UsageFault(
            f"{option}: {text!r} is no time. Write 30m, 2h or 7d for that long ago, or 2026-11-30T12:00:00Z."
        )
    return found


def seconds_of(text: str) -> float | None:
    """Seconds since 1970 of an ISO time, UTC unless it says otherwise. None for anything else, and before 1970."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= LATEST else None


def iso(seconds: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(seconds: float) -> str:
    """For people: date and time to the second, in UTC."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def duration(milliseconds: float) -> str:
    """For people: three digits and a unit."""
    if milliseconds < 0.9995:
        return f"{milliseconds * 1000:.0f}us"
    if milliseconds < 999.5:
        return f"{_three(milliseconds)}ms"
    seconds = milliseconds / 1_000
    if seconds < 120:
        return f"{_three(seconds)}s"
    return f"{seconds / 60:.0f}m" if seconds < 7_200 else f"{seconds / 3600:,.0f}h"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def width(seconds: int) -> str:
    """For people: a length of time in its largest whole unit."""
    unit = next(name for name in ("w", "d", "h", "m", "s") if seconds % SECONDS[name] == 0)
    return f"{seconds // SECONDS[unit]:,} {unit}"
