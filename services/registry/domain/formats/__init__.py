"""What every schema format can do. One folder each, behind the same small protocol."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.registry.domain.evolution.policy import Rules
from services.registry.domain.evolution.report import Finding, Verdict
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
    explosive: checking data may take time or memory out of all proportion, so it is done where it can be stopped.
    dialect: which version of the language the text was read in, such as a JSON Schema draft; empty when there is one.
    """

    format: Format
    text: str
    identity_body: bytes
    semantic_body: bytes
    annotations: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    explosive: bool = False
    dialect: str = ""


@dataclass(frozen=True, slots=True)
class Validation:
    """Whether data follows a schema, and where not. truncated: there were more problems than are listed."""

    problems: tuple[Problem, ...]
    truncated: bool = False


class Encoding(enum.IntEnum):
    """How data is written. Numbers are those of the contract.

    FRAMED: what follows the zero byte and the four bytes of schema id that the ecosystem's serializers write: JSON for
    JSON Schema, binary for Avro, message indexes and binary for Protobuf.
    """

    JSON = 1
    BINARY = 2
    FRAMED = 3


@dataclass(frozen=True, slots=True)
class DataRules:
    """How data is read and what counts.

    strict: fields that the schema does not know are refused. assert_formats: JSON Schema's `format` and Avro's logical
    types count. message_type: full name of the Protobuf message; empty for the first one of the file.
    """

    encoding: Encoding = Encoding.JSON
    strict: bool = False
    assert_formats: bool = False
    message_type: str = ""


class Kind(enum.IntEnum):
    """What happened to a part of a schema. Numbers are those of the contract."""

    ADDED = 1
    REMOVED = 2
    CHANGED = 3


@dataclass(frozen=True, slots=True)
class Difference:
    """One part in which two schemas differ. Paths are JSON pointers, empty where the part is not there.

    rule: the STRICT rule that names it, or a name of ours. backward: whether readers of the later schema cope with it
    in data of the earlier one. forward: whether readers of the earlier one cope with it in data of the later one.
    """

    kind: Kind
    rule: str
    message: str
    before_path: str = ""
    after_path: str = ""
    backward: Verdict = Verdict.COMPATIBLE
    forward: Verdict = Verdict.COMPATIBLE


class DataValidator(Protocol):
    """A schema, compiled for checking data."""

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema.

        Raises InvalidField naming `data` when it cannot be read at all.
        """
        ...


class SchemaFormat(Protocol):
    """A language that schemas are written in. Pure: no network, no file outside the given sources, no clock.

    Instances can be pickled: what may hang or crash is done in worker processes.
    """

    @property
    def apart(self) -> Collection[str]:
        """Which of `parse` and `diff` may hang or crash on small schemas too, so that they are done in workers."""
        ...

    def parse(self, text: str, sources: Mapping[str, str], *, dialect: str = "") -> Parsed:
        """The schema that a text holds.

        dialect: of a text that names none itself; empty for the format's default.
        Raises InvalidSchema, naming every place at fault, when the text is none or exceeds a static limit.
        """
        ...

    def lint(self, parsed: Parsed) -> Sequence[Problem]:
        """What is allowed but probably not meant."""
        ...

    def diff(self, reader: Parsed, writer: Parsed, rules: Rules) -> Iterable[Finding]:
        """How the reader copes with what the writer writes. Differences that do no harm may be among the findings.

        Without a finding that is INCOMPATIBLE or UNDECIDED it always copes, as far as the rules see.
        """
        ...

    def differences(self, before: Parsed, after: Parsed) -> Sequence[Difference]:
        """What changed from one schema to the next, part by part, in the order of the texts; marks are STRICT's."""
        ...

    def validator(self, parsed: Parsed, rules: DataRules) -> DataValidator:
        """The schema, compiled for checking data.

        Raises InvalidField naming `encoding` for one that the format does not have, and `message_type` for a message
        that the schema does not define.
        """
        ...
