"""What every schema format can do. One folder each, behind the same small protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.registry.domain.evolution.report import Finding
from services.registry.domain.model import Format


@dataclass(frozen=True, slots=True)
class Problem:
    """One place where data or a schema is at fault. Paths are JSON pointers (RFC 6901).

    The message never repeats a value of the data.
    """

    instance_path: str
    schema_path: str
    keyword: str
    message: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A schema that its format accepts.

    sources: texts that the references lead to, directly or through others, by name.
    identity_body: all that a reader or a model can see. semantic_body: the meaning alone.
    annotations: titles and descriptions, for the search.
    explosive: checking data may take exponentially many steps, so it is done where it can be stopped.
    """

    format: Format
    text: str
    identity_body: bytes
    semantic_body: bytes
    annotations: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    explosive: bool = False


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether data follows a schema, and where not. truncated: there were more problems than are listed."""

    problems: tuple[Problem, ...]
    truncated: bool = False


class DataValidator(Protocol):
    """A schema, compiled for checking data."""

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema.

        Raises InvalidField naming `data` when it cannot be read at all.
        """
        ...


class SchemaFormat(Protocol):
    """A language that schemas are written in. Pure: no network, no file outside the given sources, no clock."""

    def parse(self, text: str, sources: Mapping[str, str]) -> Parsed:
        """The schema that a text holds.

        Raises InvalidSchema, naming every place at fault, when the text is none or exceeds a static limit.
        """
        ...

    def lint(self, parsed: Parsed) -> Sequence[Problem]:
        """What is allowed but probably not meant."""
        ...

    def diff(self, reader: Parsed, writer: Parsed) -> Iterable[Finding]:
        """Where the reader may fail on what the writer writes; nothing when it is shown that it never does."""
        ...

    def validator(self, parsed: Parsed, *, assert_formats: bool) -> DataValidator:
        """The schema, compiled for checking data."""
        ...
