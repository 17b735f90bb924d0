"""What people type about schemas, as the contract's messages."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import PurePath

from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.schema import LATEST, NUMBER_MAX, FormatName, LevelName, PolicyName, StateName
from llm_schema_registry.registry.v1 import compatibility_pb2, schema_pb2, version_pb2

_FORMATS = {
    FormatName.JSON: schema_pb2.SCHEMA_FORMAT_JSON,
    FormatName.AVRO: schema_pb2.SCHEMA_FORMAT_AVRO,
    FormatName.PROTOBUF: schema_pb2.SCHEMA_FORMAT_PROTOBUF,
}
_SUFFIXES = {".json": FormatName.JSON, ".avsc": FormatName.AVRO, ".proto": FormatName.PROTOBUF}


def schema_format(given: FormatName | None, file: str) -> schema_pb2.SchemaFormat.ValueType:
    """The format that was given, or that the file's name tells. Raises UsageFault when neither does."""
    name = given or _SUFFIXES.get(PurePath(file).suffix.lower())
    if name is None:
        raise UsageFault(f"The name {file!r} does not tell the schema's language: add --format json, avro or protobuf.")
    return _FORMATS[name]


def format_wanted(given: FormatName | None) -> schema_pb2.SchemaFormat.ValueType:
    """The format of a condition; unspecified when none was given."""
    return schema_pb2.SCHEMA_FORMAT_UNSPECIFIED if given is None else _FORMATS[given]


def state_wanted(given: StateName | None) -> version_pb2.VersionState.ValueType:
    """The state of a condition; unspecified when none was given."""
    if given is None:
        return version_pb2.VERSION_STATE_UNSPECIFIED
    return version_pb2.VersionState.Value(f"VERSION_STATE_{given.name}")


def level_wanted(given: LevelName | None) -> compatibility_pb2.CompatibilityLevel.ValueType:
    """The level to check; unspecified when none was given."""
    if given is None:
        return compatibility_pb2.COMPATIBILITY_LEVEL_UNSPECIFIED
    return compatibility_pb2.CompatibilityLevel.Value(f"COMPATIBILITY_LEVEL_{given.name}")


def policy_wanted(given: PolicyName | None) -> compatibility_pb2.CompatibilityPolicy.ValueType:
    """The policy to check by; unspecified when none was given."""
    if given is None:
        return compatibility_pb2.COMPATIBILITY_POLICY_UNSPECIFIED
    return compatibility_pb2.CompatibilityPolicy.Value(f"COMPATIBILITY_POLICY_{given.name}")


def number(given: str, option: str) -> int:
    """A version's number; zero for the latest. Raises UsageFault for anything else."""
    if given == LATEST:
        return 0
    if given.isascii() and given.isdigit() and 0 < int(given[:11]) <= NUMBER_MAX:
        return int(given)
    raise UsageFault(f"{option}: {given!r} is no version. Write a number from 1, or {LATEST}.")


def references(given: Iterable[str]) -> Iterator[schema_pb2.Reference]:
    """References from `name=subject:version`. The name ends at the first `=`, the version begins after the last `:`."""
    for text in given:
        name, equals, rest = text.partition("=")
        subject, colon, version = rest.rpartition(":")
        if not (name and equals and subject and colon and version):
            raise UsageFault(f"--reference: {text!r} is no reference. Write NAME=SUBJECT:VERSION.")
        found = number(version, "--reference")
        if not found:
            raise UsageFault(f"--reference: {text!r} needs the number of a version; a reference never moves.")
        yield schema_pb2.Reference(name=name, subject=subject, version=found)


def metadata(given: Iterable[str]) -> dict[str, str]:
    """Facts from `key=value`. Raises UsageFault for a key that is empty or comes twice."""
    facts: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals or key in facts:
            reason = f"{key!r} comes twice" if key in facts else f"{text!r} is not KEY=VALUE"
            raise UsageFault(f"--metadata: {reason}.")
        facts[key] = value
    return facts
