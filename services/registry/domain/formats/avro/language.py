"""The Avro format: parse, lint, diff and validation of data."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from llm_schema_registry.errors import InvalidSchema, Violation
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding
from services.registry.domain.formats import DataRules, DataValidator, Difference, Encoding, Parsed, Problem, json_text
from services.registry.domain.formats.avro import canonical, changes, exact, references, resolution
from services.registry.domain.formats.avro.binary import BinaryValidator
from services.registry.domain.formats.avro.data import JsonValidator
from services.registry.domain.formats.avro.model import Schema
from services.registry.domain.model import Format


@dataclass(frozen=True, slots=True)
class ParsedAvro(Parsed):
    """A valid Avro schema with what it says, so that comparing and checking need not read it again."""

    schema: Schema = field(kw_only=True, compare=False, repr=False)


class Avro:
    """Avro behind the format protocol. Stateless."""

    apart: Final[Collection[str]] = ()

    def parse(self, schema_text: str, sources: Mapping[str, str], *, dialect: str = "") -> ParsedAvro:  # noqa: ARG002
        """The schema that a text holds. See SchemaFormat.parse.

        Referenced types are part of the semantic body, not of the identity.
        """
        try:
            schema = references.parse(schema_text, sources)
        except references.Faulty as error:
            raise _invalid(error) from None
        return ParsedAvro(
            format=Format.AVRO,
            text=schema_text,
            identity_body=json_text.compact(schema_text).encode("utf-8"),
            semantic_body=canonical.semantic_form(schema).encode("utf-8"),
            annotations=schema.docs,
            sources=dict(sources),
            schema=schema,
        )

    def lint(self, parsed: Parsed) -> Sequence[Problem]:
        """What has no effect though it looks as if it should, and what is allowed but breaks easily."""
        return _schema(parsed).remarks

    def diff(self, reader: Parsed, writer: Parsed, rules: Rules) -> Iterable[Finding]:
        """How the reader copes with what the writer writes. See SchemaFormat.diff.

        STRICT and LENIENT are one: the rules of Java's SchemaCompatibility (resolution.py); the reference registry has
        no relaxed rules for Avro. EXACT: see exact.py.
        """
        if reader.semantic_body == writer.semantic_body:
            return ()
        if rules.policy is Policy.EXACT:
            return exact.findings(_schema(reader), _schema(writer))
        return resolution.findings(_schema(reader), _schema(writer))

    def differences(self, before: Parsed, after: Parsed) -> Sequence[Difference]:
        """What changed from one schema to the next. See SchemaFormat.differences, and changes.py for what counts."""
        return changes.differences(_schema(before), _schema(after))

    def validator(self, parsed: Parsed, rules: DataRules) -> DataValidator:
        """A validator of payloads in Avro's JSON or binary encoding. See SchemaFormat.validator.

        strict: members of JSON objects that are no fields of their record are refused; binary data has no such thing.
        assert_formats: logical types are checked too.
        """
        schema = _schema(parsed)
        if rules.encoding is Encoding.JSON:
            return JsonValidator(schema, assert_formats=rules.assert_formats, strict=rules.strict)
        return BinaryValidator(schema, assert_formats=rules.assert_formats)


def _schema(parsed: Parsed) -> Schema:
    return parsed.schema if isinstance(parsed, ParsedAvro) else references.parse(parsed.text, parsed.sources)


def _invalid(error: references.Faulty) -> InvalidSchema:
    """The error for a text that is no schema, naming every place."""
    first = error.problems[0]
    place = f" at {first.instance_path}" if first.instance_path else ""
    more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
    if error.reference is not None:
        name = error.reference[:200]
        message = f"the schema that the name {name!r} stands for does not do{place}: {first.message}{more}"
        return InvalidSchema(message, violations=[Violation("references", message)])
    return InvalidSchema(
        f"the text is not a valid Avro schema{place}: {first.message}{more}",
        violations=[Violation(f"text{problem.instance_path}", problem.message) for problem in error.problems],
    )
