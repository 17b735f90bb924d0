"""The nouns: Schema is immutable content, Version binds a number under a subject to it."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from services.registry.domain.evolution.policy import Policy


class Format(enum.IntEnum):
    """The language a schema is written in. Numbers are those of the contract."""

    JSON = 1
    AVRO = 2
    PROTOBUF = 3


class State(enum.IntEnum):
    """Where a version stands in its life. Numbers are those of the contract."""

    DRAFT = 1
    ACTIVE = 2
    DEPRECATED = 3
    ARCHIVED = 4


@dataclass(frozen=True, slots=True)
class Reference:
    """What a name inside a schema's text stands for."""

    name: str
    subject: str
    version: int


@dataclass(frozen=True, slots=True)
class Schema:
    """Immutable content.

    identity: one byte naming the algorithm, then a SHA-256, over all that a reader or a model can see.
    semantic: the same form, over the meaning alone.
    references: as first registered.
    dialect: which version of the language the text is read in; empty where there is one.
    """

    id: int
    format: Format
    text: str
    references: tuple[Reference, ...]
    identity: bytes
    semantic: bytes
    create_time: datetime
    dialect: str = ""


@dataclass(frozen=True, slots=True)
class Version:
    """A number under a subject, bound to a schema. `tags` are sorted and unique."""

    subject: str
    number: int
    schema_id: int
    state: State
    description: str
    owner: str
    tags: tuple[str, ...]
    metadata: Mapping[str, str]
    create_time: datetime
    update_time: datetime
    activate_time: datetime | None = None
    delete_time: datetime | None = None

    @property
    def live(self) -> bool:
        """Whether it is not deleted."""
        return self.delete_time is None

    @property
    def etag(self) -> str:
        """A quoted digest over all that can change, so it differs also between epochs (RFC 9110, section 8.8.3)."""
        parts = (
            self.subject,
            self.number,
            self.schema_id,
            int(self.state),
            self.description,
            self.owner,
            self.tags,
            sorted(self.metadata.items()),
            self.update_time.isoformat(),
            self.delete_time.isoformat() if self.delete_time else "",
        )
        return quoted_digest(parts)


@dataclass(frozen=True, slots=True)
class VersionHead:
    """The little of a live version that a decision about its subject needs."""

    number: int
    schema_id: int
    state: State
    activated: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """What a subject, or everyone, has set; None where nothing is set. domain/settings.py says what is in force.

    level: a name of the level table. assert_formats: for validation of data. The others are those of evolution/policy.
    """

    level: str | None = None
    policy: Policy | None = None
    declared_properties_only: bool | None = None
    reader_fills_defaults: bool | None = None
    assert_formats: bool | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """A name under which schemas evolve.

    latest_version: zero when no live version is ACTIVE. own: the settings that the subject itself has. general: the
    global ones.
    """

    name: str
    latest_version: int
    version_count: int
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None
    own: Settings
    general: Settings


def quoted_digest(parts: object) -> str:
    """An etag over JSON-serialisable parts."""
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return f'"{hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]}"'
