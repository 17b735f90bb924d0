"""Ids of backups and restores: ULIDs, so that ids order by time.

Source: the ULID specification (github.com/ulid/spec): 48 bits of milliseconds, 80 random bits, Crockford's base 32.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
RANDOM_BYTES = 10
TOKEN_LENGTH = 12
_LENGTH = 26
_TIME_LENGTH = 10
_PATTERN = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", re.ASCII)
_TIME_LIMIT = 1 << 48
_START = datetime(1970, 1, 1, tzinfo=UTC)


def new_id(time: datetime, random: bytes) -> str:
    """A ULID of a moment, to the millisecond, and of RANDOM_BYTES random bytes."""
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"an id takes {RANDOM_BYTES} random bytes, not {len(random)}")
    milliseconds = (time - _START) // timedelta(milliseconds=1)
    if not 0 <= milliseconds < _TIME_LIMIT:
        raise ValueError(f"no id can tell the time {time}")
    number = milliseconds << 80 | int.from_bytes(random)
    return "".join(ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))


def is_id(text: str) -> bool:
    """Whether a text is an id as `new_id` writes it: upper case, no other letters, no spaces."""
    return _PATTERN.fullmatch(text) is not None


def time_of(identity: str) -> datetime:
    """The moment that an id was made of, to the millisecond. Raises ValueError for what is no id."""
    milliseconds = 0
    for letter in _checked(identity)[:_TIME_LENGTH]:
        milliseconds = milliseconds * 32 + ALPHABET.index(letter)
    try:
        return _START + timedelta(milliseconds=milliseconds)
    except OverflowError:
        raise ValueError(f"the id {identity} tells a time after the year 9999") from None


def token(identity: str) -> str:
    """TOKEN_LENGTH lower-case letters and digits, 60 of the id's random bits: for names of databases."""
    return _checked(identity)[-TOKEN_LENGTH:].lower()


def _checked(identity: str) -> str:
    if not is_id(identity):
        raise ValueError(f"not an id: {identity[:40]!r}")
    return identity
