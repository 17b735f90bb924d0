"""The Protobuf format: parse, lint, diff and validation of data."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding
from services.registry.domain.formats import DataRules, DataValidator, Difference, Parsed, Problem
from services.registry.domain.formats.protobuf import (
    canonical,
    data,
    descriptors,
    differing,
    exact,
    kinds,
    lint,
    source_text,
)
from services.registry.domain.formats.protobuf.compiling import Compiled, Compiler, Fault, Files
from services.registry.domain.formats.protobuf.schema import Schema, is_costly, load
from services.registry.domain.formats.protobuf.source_text import invalid, invalid_reference
from services.registry.domain.model import Format

_CLASH: Final = "is already defined in file"
_MISSING: Final = re.compile(r'Import "(?P<name>.*)" was not found or had errors\.')


@dataclass(frozen=True, slots=True)
class ParsedProtobuf(Parsed):
    """A valid Protobuf schema, compiled. Can be pickled.

    descriptor_set: a serialized FileDescriptorSet without source info: imports first, last the text's own file.
    remarks: what the compiler and our own eyes find odd.
    """

    descriptor_set: bytes = field(kw_only=True, compare=False, repr=False)
    remarks: tuple[Problem, ...] = field(default=(), kw_only=True, compare=False, repr=False)


class Protobuf:
    """Protobuf behind the format protocol. compiler: protoc, in a form that can be pickled."""

    apart: Final[Collection[str]] = ("parse",)

    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler

    def parse(self, schema_text: str, sources: Mapping[str, str], *, dialect: str = "") -> ParsedProtobuf:  # noqa: ARG002 - a text names its own syntax
        """The schema that a .proto text or a serialized FileDescriptorProto in base64 holds. See SchemaFormat.parse.

        sources: by import path. The well-known types need none. The identity is that of the descriptor, so both forms,
        and texts that differ in comments and white space, are one schema. protoc writes descriptors without those
        options that are for sources only (`retention = RETENTION_SOURCE`): they are part of a text's identity, and so
        such a text and what protoc makes of it differ.
        """
        files = source_text.files(schema_text, sources)
        compiled = self._compiler(files)
        if not compiled.descriptor_set:
            raise _refused(compiled, files)
        unpacked = descriptors.FileDescriptorSet.FromString(compiled.descriptor_set)
        root = unpacked.file[-1]
        fault = descriptors.beyond_limits(unpacked.file) or descriptors.unusable_name(unpacked.file)
        if fault:
            raise invalid(fault)
        annotations = descriptors.comments(root)
        for file in unpacked.file:
            file.ClearField("source_code_info")
        packed = unpacked.SerializeToString(deterministic=True)
        try:
            schema = load(packed)
        except (TypeError, ValueError) as error:
            raise invalid(f"the library that reads data refuses it: {str(error)[:300]}") from None
        return ParsedProtobuf(
            format=Format.PROTOBUF,
            text=schema_text,
            identity_body=descriptors.identity(root),
            semantic_body=canonical.semantic_form(schema),
            annotations=annotations,
            sources=dict(sources),
            explosive=is_costly(schema),
            descriptor_set=packed,
            remarks=tuple(lint.remarks(schema, compiled.faults)),
        )

    def lint(self, parsed: Parsed) -> Sequence[Problem]:
        """What is allowed but probably not meant."""
        return self._parsed(parsed).remarks

    def diff(self, reader: Parsed, writer: Parsed, rules: Rules) -> Iterable[Finding]:
        """How the reader copes with what the writer writes, by the rules of the policy.

        STRICT and LENIENT: see `kinds`. EXACT: see `exact`.
        """
        if reader.semantic_body == writer.semantic_body:
            return ()
        one, other = self._schema(reader), self._schema(writer)
        if rules.policy is Policy.EXACT:
            return exact.findings(one, other)
        return kinds.findings(one, other, lenient=rules.policy is Policy.LENIENT)

    def differences(self, before: Parsed, after: Parsed) -> Sequence[Difference]:
        """What changed from one schema to the next, part by part, in the order of the texts; marks are STRICT's."""
        return differing.differences(self._schema(before), self._schema(after))

    def validator(self, parsed: Parsed, rules: DataRules) -> DataValidator:
        """A validator of ProtoJSON, binary or framed data. See SchemaFormat.validator."""
        return data.validator(self._schema(parsed), rules)

    def _schema(self, parsed: Parsed) -> Schema:
        return load(self._parsed(parsed).descriptor_set)

    def _parsed(self, parsed: Parsed) -> ParsedProtobuf:
        return parsed if isinstance(parsed, ParsedProtobuf) else self.parse(parsed.text, parsed.sources)


def _refused(compiled: Compiled, files: Files) -> Exception:
    """The error for what the compiler refuses: in the text itself first, else in what it references."""
    own = [fault for fault in compiled.faults if fault.file == files.root]
    elsewhere = [fault for fault in compiled.faults if fault.file in files.texts or fault.file in files.descriptors]
    for fault in compiled.faults:
        missing = _MISSING.fullmatch(fault.message)
        known = missing is not None and (missing["name"] in files.texts or missing["name"] in files.descriptors)
        if missing is None or known:
            continue
        there = (one for one in compiled.faults if one.file == missing["name"])
        cause = next((one for one in there if _CLASH in one.message), None)
        if cause is not None:  # One of the well-known types, with which a reference clashes.
            return invalid(f'{_place(fault)}the import "{missing["name"][:200]}" has errors: {cause.message}')
        if fault.file == files.root:
            return invalid(*(_missing(one) for one in own))
        return invalid_reference(fault.file, _missing(fault))
    foreign = [fault for fault in elsewhere if fault.file != files.root]
    if foreign and (not own or all(_MISSING.fullmatch(fault.message) for fault in own)):
        return invalid_reference(foreign[0].file, _worded(foreign[0]))
    shown = own or list(compiled.faults)
    return invalid(*(_worded(fault) for fault in shown))


def _missing(fault: Fault) -> str:
    found = _MISSING.fullmatch(fault.message)
    if found is None:
        return _worded(fault)
    name = found["name"][:200]
    advice = (
        "an import path is relative, without empty, `.` or `..` parts"
        if name.startswith("/") or "\\" in name or {"", ".", ".."} & set(name.split("/"))
        else f'give it in `references` under the name "{name}"; only the well-known types google/protobuf/* need none'
    )
    return f'{_place(fault)}the import "{name}" is not among the references: {advice}'


def _worded(fault: Fault) -> str:
    return f"{_place(fault)}{fault.message}"


def _place(fault: Fault) -> str:
    return f"line {fault.line}, column {fault.column}: " if fault.line else ""
