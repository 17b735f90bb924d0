"""Reads the fields of requests, and collects everything that is wrong with them before it complains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from typing import TypeVar

from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.errors import InvalidField, Violation
from services.backup.codec import nouns
from services.backup.domain import ids
from services.backup.domain.model import Kind, Level
from services.backup.domain.restore import read_confirmation
from services.backup.domain.targets import AtBackup, AtPlace, AtTime, Latest, Target

T = TypeVar("T")

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
NAME_CHARACTERS_MAX = 64
PAGE_SIZE_DEFAULT = 50
PAGE_SIZE_MAX = 200

_KINDS: Mapping[int, Kind] = {int(value): kind for kind, value in nouns.KINDS.items()}
_LEVELS: Mapping[int, Level] = {int(value): level for level, value in nouns.LEVELS.items() if level}


class Fields:
    """The fields of one request. Every reader returns a value that may be used once `require_valid` has passed."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []

    def require_valid(self) -> None:
        """Raises InvalidField with every violation that was found."""
        if self._violations:
            shown = "; ".join(f"{violation.field}: {violation.description}" for violation in self._violations[:5])
            raise InvalidField(shown, violations=self._violations)

    def refuse(self, field: str, description: str) -> None:
        """Notes that a field is at fault."""
        self._violations.append(Violation(field, description))

    def id(self, value: str, field: str) -> str:
        """A backup's or restore's id."""
        if not ids.is_id(value):
            self.refuse(field, "must be a ULID: 26 digits and upper-case letters")
        return value

    def name(self, value: str, field: str = "name") -> str:
        """An operation's name."""
        if not value or len(value) > NAME_CHARACTERS_MAX:
            self.refuse(field, f"must have 1 to {NAME_CHARACTERS_MAX} characters")
        return value

    def request_id(self, value: str) -> str:
        """A request id, or none."""
        if value and not REQUEST_ID.fullmatch(value):
            self.refuse("request_id", "must be at most 128 letters, digits and `-_.:`")
        return value

    def kind(self, value: int, default: Kind) -> Kind:
        """A kind of backup; the default when it is not given."""
        if not value:
            return default
        return self._known(_KINDS.get(value), default, "kind", [kind.name for kind in Kind])

    def optional_kind(self, value: int) -> Kind | None:
        """A kind of backup, or None when it is not given."""
        return self.kind(value, Kind.MANUAL) if value else None

    def level(self, value: int, field: str, default: Level) -> Level:
        """A level of verification; the default when it is not given."""
        if not value:
            return default
        return self._known(_LEVELS.get(value), default, field, [level.name for level in Level if level])

    def confirmation(self, value: str) -> str:
        """The confirmation of a loss window, or none."""
        try:
            read_confirmation(value)
        except ValueError as invalid:
            self.refuse("confirmation", str(invalid))
        return value

    def target(self, value: restore_pb2.RestoreTarget) -> Target:
        """A restore's target."""
        match value.WhichOneof("target"):
            case "latest":
                if not value.latest:
                    self.refuse("target.latest", "must be true when it is set")
                return Latest()
            case "backup_id":
                return AtBackup(self.id(value.backup_id, "target.backup_id"))
            case "time":
                return self._time(value)
            case "place":
                if value.place.epoch < 1 or value.place.position < 0:
                    self.refuse("target.place", "must have an epoch from 1 and a position from 0")
                return AtPlace(value.place.epoch, value.place.position)
        self.refuse("target", "is required: latest, backup_id, time or place")
        return Latest()

    def page_size(self, value: int) -> int:
        """The page size to use."""
        if value < 0:
            self.refuse("page_size", f"must be 0 (for {PAGE_SIZE_DEFAULT}) to {PAGE_SIZE_MAX}")
        return min(value or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)

    def page_token(self, value: str) -> str:
        """The token of a page: what the page before ended with."""
        if len(value) > NAME_CHARACTERS_MAX or not value.isascii():
            self.refuse("page_token", "must be the next_page_token of an earlier answer")
        return value

    def _time(self, value: restore_pb2.RestoreTarget) -> Target:
        try:
            return AtTime(value.time.ToDatetime(tzinfo=UTC))
        except (ValueError, OverflowError):
            self.refuse("target.time", "must be a time between the years 1 and 9999")
            return Latest()

    def _known(self, found: T | None, default: T, field: str, names: list[str]) -> T:
        if found is None:
            self.refuse(field, f"must be one of {', '.join(names)}")
            return default
        return found
