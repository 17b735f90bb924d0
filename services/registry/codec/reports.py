"""Reports of compatibility checks and validations: answers only, so they are encoded and never decoded."""

from __future__ import annotations

from llm_schema_registry.common.v1 import failure_pb2
from llm_schema_registry.errors import Error
from llm_schema_registry.registry.v1 import compatibility_pb2, compatibility_service_pb2, validation_pb2
from services.registry.codec import nouns
from services.registry.domain.evolution.report import Finding, Report, Verdict, Witness
from services.registry.domain.formats import Difference, Problem

VIOLATIONS_MAX = 10
PATH_CHARACTERS_MAX = 2048


def report(value: Report) -> compatibility_pb2.CompatibilityReport:
    """The result of a check."""
    return compatibility_pb2.CompatibilityReport(
        verdict=verdict(value.verdict),
        level=nouns.level_value(value.terms.level.name),
        findings=[finding(each) for each in value.findings],
        truncated=value.truncated,
        checked_versions=value.checked,
        policy=nouns.policy_value(value.terms.rules.policy),
        assumptions=compatibility_pb2.Assumptions(
            declared_properties_only=value.terms.rules.declared_properties_only,
            reader_fills_defaults=value.terms.rules.reader_fills_defaults,
            assert_formats=value.terms.rules.assert_formats,
        ),
    )


def problem(value: Problem) -> validation_pb2.ValidationError:
    """A place at fault."""
    return validation_pb2.ValidationError(
        instance_path=_cut(value.instance_path),
        schema_path=_cut(value.schema_path),
        keyword=_cut(value.keyword),
        message=_text(value.message),
    )


def difference(value: Difference) -> compatibility_service_pb2.Difference:
    """A part in which two schemas differ."""
    return compatibility_service_pb2.Difference(
        kind=compatibility_service_pb2.DifferenceKind.ValueType(int(value.kind)),
        before_path=_text(value.before_path),
        after_path=_text(value.after_path),
        rule=value.rule,
        message=_text(value.message),
        backward=verdict(value.backward),
        forward=verdict(value.forward),
    )


def failure(value: Error) -> failure_pb2.Failure:
    """An error inside an answer."""
    return failure_pb2.Failure(
        code=int(value.code),
        reason=value.reason,
        message=_text(value.message),
        metadata=value.metadata,
        violations=[
            failure_pb2.FieldViolation(field=_text(violation.field), description=_text(violation.description))
            for violation in value.violations[:VIOLATIONS_MAX]
        ],
    )


def finding(value: Finding) -> compatibility_pb2.Finding:
    """A finding."""
    return compatibility_pb2.Finding(
        rule=value.rule,
        verdict=verdict(value.verdict),
        reader_path=_text(value.reader_path),
        writer_path=_text(value.writer_path),
        message=_text(value.message),
        remedy=_text(value.remedy),
        version=value.number,
        candidate_reads=value.candidate_reads,
        witness=_witness(value.witness) if value.witness else None,
    )


def _witness(value: Witness) -> compatibility_pb2.Witness:
    return compatibility_pb2.Witness(text=_text(value.text), binary=value.binary, read_text=_text(value.read))


def verdict(value: Verdict) -> compatibility_pb2.Verdict.ValueType:
    """The enum's value: the domain uses the contract's numbers."""
    return compatibility_pb2.Verdict.ValueType(int(value))


def _cut(value: str) -> str:
    """A path that data may have made as long as itself: what is longer than PATH_CHARACTERS_MAX ends in an ellipsis."""
    return _text(value if len(value) <= PATH_CHARACTERS_MAX else f"{value[: PATH_CHARACTERS_MAX - 1]}…")


def _text(value: str) -> str:
    """Text that a message can hold: half a surrogate pair, which JSON can escape, becomes U+FFFD."""
    return value.encode("utf-8", "replace").decode("utf-8") if not value.isascii() else value
