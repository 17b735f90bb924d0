"""Texts that match a pattern, and texts that do not: a few of each, found without search.

Source of the syntax: ECMA-262, patterns, as far as the linear-time engine has it. What is not understood gives no text.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from services.registry.domain.formats.jsonschema.exact.values import matches

LENGTH_MAX: Final = 400
KEPT: Final = 512
DEPTH_MAX: Final = 30
REPEATS_MAX: Final = 200
_CLASSES: Final = {"d": "0123456789", "w": "a0_Z", "s": " \t", "D": "a-", "W": "-. ", "S": "a0-"}
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_ANY: Final = "a0-Z_ "
_LIKELY: Final = "a0Z_- ./:@b1é"


FORMATTED: Final[Mapping[str, tuple[str, ...]]] = {
    "date": ("2026-01-31", "1999-12-01"),
    "date-time": ("2026-01-31T10:00:00Z", "1999-12-01T23:59:59.5+01:00"),
    "duration": ("P1D", "PT2H"),
    "email": ("a@example.com", "b.c@example.org"),
    "hostname": ("example.com", "a"),
    "idn-email": ("a@example.com", "é@example.com"),
    "idn-hostname": ("example.com", "é.com"),
    "ipv4": ("192.0.2.1", "127.0.0.1"),
    "ipv6": ("::1", "2001:db8::1"),
    "iri": ("https://example.com/é", "urn:a:b"),
    "iri-reference": ("/é", "https://example.com/"),
    "json-pointer": ("/a", ""),
    "regex": ("^a$", ""),
    "relative-json-pointer": ("0", "1/a"),
    "time": ("10:00:00Z", "23:59:59.5+01:00"),
    "uri": ("https://example.com/a", "urn:a:b"),
    "uri-reference": ("/a", "https://example.com/"),
    "uri-template": ("/a/{b}", "https://example.com/{b}"),
    "uuid": ("123e4567-e89b-12d3-a456-426614174000", "00000000-0000-0000-0000-000000000000"),
}
"""Texts that have a format. Source: the formats of JSON Schema 2020-12, validation, section 7.3."""
UNFORMATTED: Final = ("a b", "{", "(", "http://[", "\\", "-")
"""Texts of which each format refuses some."""


class _NotUnderstood(Exception):
    """The pattern has syntax that is not handled here."""


@functools.lru_cache(maxsize=KEPT)
def matching(pattern: str) -> tuple[str, ...]:
    """A few texts that match, short ones first; none when none is found."""
    found: dict[str, None] = {}
    for choice in range(6):
        try:
            text = _Writer(pattern, choice).text()
        except _NotUnderstood:
            break
        for candidate in (text, f"{text}a", f"a{text}"):
            if len(candidate) <= LENGTH_MAX and matches(pattern, candidate):
                found[candidate] = None
    for candidate in ("", "a", "0", "A", "-", "ab", "x-a"):
        if matches(pattern, candidate):
            found[candidate] = None
    return tuple(sorted(found, key=len)[:8])


@functools.lru_cache(maxsize=KEPT)
def failing(pattern: str) -> tuple[str, ...]:
    """A few texts that do not match, short ones first."""
    tried = ["", "a", "0", "-", " ", "A", "é", "/", "a b", "!"]
    for text in matching(pattern)[:3]:
        tried += [text + "!", "!" + text, text[:-1], text.upper(), text + text]
    return tuple(text for text in dict.fromkeys(tried) if len(text) <= LENGTH_MAX and not matches(pattern, text))[:6]


@dataclass(slots=True)
class _Writer:
    """Writes one text for a pattern, taking the alternatives and repetitions that `choice` says."""

    pattern: str
    choice: int
    place: int = 0
    depth: int = 0

    def text(self) -> str:
        found = self._alternatives()
        if self.place < len(self.pattern):
            raise _NotUnderstood
        return found

    def _next(self) -> str:
        return self.pattern[self.place] if self.place < len(self.pattern) else ""

    def _alternatives(self) -> str:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise _NotUnderstood
        found = [self._sequence()]
        while self._next() == "|":
            self.place += 1
            found.append(self._sequence())
        self.depth -= 1
        return found[self.choice % len(found)]

    def _sequence(self) -> str:
        text = ""
        while self._next() not in {"", "|", ")"}:
            piece = self._atom()
            low, high = self._repeats()
            wanted = low if self.choice % 2 == 0 else min(high, max(low, self.choice))
            text += piece * min(wanted, REPEATS_MAX)
            if len(text) > LENGTH_MAX:
                raise _NotUnderstood
        return text

    def _atom(self) -> str:
        letter = self._next()
        self.place += 1
        match letter:
            case "^" | "$":
                return ""
            case ".":
                return _ANY[self.choice % 3]
            case "(":
                return self._group()
            case "[":
                return self._set()
            case "\\":
                return self._escaped()
            case "*" | "+" | "?" | "{":
                raise _NotUnderstood
        return letter

    def _group(self) -> str:
        if self._next() == "?":
            end = self.pattern.find(">", self.place)
            if self.pattern.startswith("?:", self.place):
                self.place += 2
            elif self.pattern.startswith("?P<", self.place) and end > 0:
                self.place = end + 1
            else:
                raise _NotUnderstood
        text = self._alternatives()
        if self._next() != ")":
            raise _NotUnderstood
        self.place += 1
        return text

    def _escaped(self) -> str:
        letters = self._escape()
        return letters[self.choice % len(letters)] if letters else ""

    def _escape(self) -> str:
        """The letters that an escape stands for."""
        letter = self._next()
        self.place += 1
        if letter in _CLASSES:
            return _CLASSES[letter]
        if letter in {"b", "B"}:
            return ""
        if letter in {"u", "x"}:
            digits = self.pattern[self.place : self.place + (4 if letter == "u" else 2)]
            self.place += len(digits)
            try:
                return chr(int(digits, 16))
            except ValueError:
                raise _NotUnderstood from None
        if letter in {"p", "P", "k", "c", ""}:
            raise _NotUnderstood
        return _ESCAPES.get(letter, letter)

    def _set(self) -> str:
        is_negated = self._next() == "^"
        self.place += is_negated
        letters = "".join(self._ranges())
        if is_negated:
            letters = "".join(letter for letter in _LIKELY if letter not in letters)
        if not letters:
            raise _NotUnderstood
        return letters[(self.choice * 7) % len(letters)]

    def _ranges(self) -> Iterator[str]:
        while self._next() != "]":
            if not self._next():
                raise _NotUnderstood
            start = self._member()
            ranged = self._next() == "-" and self.pattern[self.place + 1 : self.place + 2] not in {"", "]"}
            if ranged and len(start) == 1:
                self.place += 1
                end = self._member()[-1:]
                if not end or end < start:
                    raise _NotUnderstood
                yield from (chr(code) for code in range(ord(start), min(ord(end), ord(start) + 100) + 1))
            else:
                yield start
        self.place += 1

    def _member(self) -> str:
        letter = self._next()
        self.place += 1
        return self._escape() if letter == "\\" else letter

    def _repeats(self) -> tuple[int, int]:
        letter = self._next()
        if letter not in {"*", "+", "?", "{"} or letter == "":
            return 1, 1
        self.place += 1
        found = {"*": (0, 100), "+": (1, 100), "?": (0, 1)}.get(letter)
        if found is None:
            end = self.pattern.find("}", self.place)
            low, comma, high = self.pattern[self.place : end].partition(",")
            if end < 0 or not low.isdecimal() or (high and not high.isdecimal()) or len(low + high) > 8:
                raise _NotUnderstood
            self.place = end + 1
            found = int(low), int(high) if high else 100 if comma else int(low)
        if self._next() == "?":
            self.place += 1
        return found
