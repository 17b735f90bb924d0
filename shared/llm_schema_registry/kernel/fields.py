"""Reads the fields of requests, and collects everything that is wrong with them before it complains."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TypeVar

from llm_schema_registry.errors import InvalidField, Violation

T = TypeVar("T")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
NAME_CHARACTERS_MAX = 64
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 200
SHOWN_MAX = 5


class Fields:
    """The fields of one request. Every reader returns a value that may be used once `require_valid` has passed."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def require_valid(self) -> None:
        """Raises InvalidField with every violation that was found."""
        if self._violations:
            raise self.invalid()

    def invalid(self) -> InvalidField:
        """The error that names every violation that was found."""
        shown = "; ".join(f"{violation.field}: {violation.description}" for violation in self._violations[:SHOWN_MAX])
        return InvalidField(shown, violations=self._violations)

    def refuse(self, field: str, description: str) -> None:
        """Notes that a field is at fault."""
        self._violations.append(Violation(field, description))

    def name(self, value: str, field: str = "name") -> str:
        """A name of an operation or the like."""
        if not value or len(value) > NAME_CHARACTERS_MAX:
            self.refuse(field, f"must have 1 to {NAME_CHARACTERS_MAX} characters")
        return value

    def request_id(self, value: str) -> str:
        """A request id, or none."""
        if value and not REQUEST_ID.fullmatch(value):
            self.refuse("request_id", "must be at most 128 letters, digits and `-_.:`")
        return value

    def page_size(self, value: int) -> int:
        """The page size to use."""
        if value < 0:
            self.refuse("page_size", f"must be 0 (for {PAGE_SIZE_DEFAULT}) to {PAGE_SIZE_MAX}")
        return min(value or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)

    def page_token(self, value: str) -> str:
        """The token of a page: the name of what the page before ended with."""
        if len(value) > NAME_CHARACTERS_MAX or not value.isascii():
            self.refuse("page_token", "must be the next_page_token of an earlier answer")
        return value

    def known(self, found: T | None, default: T, field: str, names: Iterable[str]) -> T:
        """A value of an enum; the default is never used when there is none, because the violation is raised first."""
        if found is None:
            self.refuse(field, f"must be one of {', '.join(names)}")
            return default
        return found
