"""The Avro format: parse, lint, diff and validation of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llm_schema_registry.errors import InvalidSchema, Violation
from services.registry.domain.evolution.report import Finding
from services.registry.domain.formats import DataValidator, Parsed, Problem, json_text
from services.registry.domain.formats.avro import canonical, references, resolution
from services.registry.domain.formats.avro.data import JsonValidator
from services.registry.domain.formats.avro.model import Schema
from services.registry.domain.model import Format


@dataclass(frozen=True, slots=True)
class ParsedAvro(Parsed):
    """A valid Avro schema with what it says, so that comparing and checking need not read it again."""

    schema: Schema = field(kw_only=True, compare=False, repr=False)


class Avro:
    """Avro behind the format protocol. Stateless."""

    def parse(self, schema_text: str, sources: Mapping[str, str]) -> ParsedAvro:
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

    def diff(self, reader: Parsed, writer: Parsed) -> Iterable[Finding]:
        """Where the reader may fail on what the writer writes, by the rules of Java's SchemaCompatibility."""
        if reader.semantic_body == writer.semantic_body:
            return ()
        return resolution.findings(_schema(reader), _schema(writer))

    def validator(self, parsed: Parsed, *, assert_formats: bool) -> DataValidator:
        """A validator of JSON payloads in Avro's JSON encoding. assert_formats: logical types are checked too."""
        return JsonValidator(_schema(parsed), assert_formats=assert_formats)


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
