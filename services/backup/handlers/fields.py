"""Reads the fields of requests, and collects everything that is wrong with them before it complains."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.kernel import fields
from llm_schema_registry.operations import ids
from services.backup.codec import nouns
from services.backup.domain.model import Kind, Level
from services.backup.domain.restore import read_confirmation
from services.backup.domain.targets import AtBackup, AtPlace, AtTime, Latest, Target

_KINDS: Mapping[int, Kind] = {int(value): kind for kind, value in nouns.KINDS.items()}
_LEVELS: Mapping[int, Level] = {int(value): level for level, value in nouns.LEVELS.items() if level}


class Fields(fields.Fields):
    """The fields of one request to the backup service."""

    def id(self, value: str, field: str) -> str:
        """A backup's or restore's id."""
        if not ids.is_id(value):
            self.refuse(field, "must be a ULID: 26 digits and upper-case letters")
        return value

    def kind(self, value: int, default: Kind) -> Kind:
        """A kind of backup; the default when it is not given."""
        if not value:
            return default
        return self.known(_KINDS.get(value), default, "kind", [kind.name for kind in Kind])

    def optional_kind(self, value: int) -> Kind | None:
        """A kind of backup, or None when it is not given."""
        return self.kind(value, Kind.MANUAL) if value else None

    def level(self, value: int, field: str, default: Level) -> Level:
        """A level of verification; the default when it is not given."""
        if not value:
            return default
        return self.known(_LEVELS.get(value), default, field, [level.name for level in Level if level])

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

    def _time(self, value: restore_pb2.RestoreTarget) -> Target:
        try:
            return AtTime(value.time.ToDatetime(tzinfo=UTC))
        except (ValueError, OverflowError):
            self.refuse("target.time", "must be a time between the years 1 and 9999")
            return Latest()
