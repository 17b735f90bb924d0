"""Reports of compatibility checks and validations: answers only, so they are encoded and never decoded."""

from __future__ import annotations

from llm_schema_registry.registry.v1 import compatibility_pb2, validation_pb2
from services.registry.codec import nouns
from services.registry.domain.evolution.report import Finding, Report, Verdict
from services.registry.domain.formats import Problem


def report(value: Report) -> compatibility_pb2.CompatibilityReport:
    """The result of a check."""
    return compatibility_pb2.CompatibilityReport(
        verdict=_verdict(value.verdict),
        level=nouns.level_value(value.level),
        findings=[_finding(each) for each in value.findings],
        truncated=value.truncated,
        checked_versions=value.checked,
    )


def problem(value: Problem) -> validation_pb2.ValidationError:
    """A place at fault."""
    return validation_pb2.ValidationError(
        instance_path=_text(value.instance_path),
        schema_path=_text(value.schema_path),
        keyword=_text(value.keyword),
        message=_text(value.message),
    )


def _finding(value: Finding) -> compatibility_pb2.Finding:
    return compatibility_pb2.Finding(
        rule=value.rule,
        verdict=_verdict(value.verdict),
        reader_path=_text(value.reader_path),
        writer_path=_text(value.writer_path),
        message=_text(value.message),
        remedy=_text(value.remedy),
        version=value.number,
        candidate_reads=value.candidate_reads,
    )


def _verdict(value: Verdict) -> compatibility_pb2.Verdict.ValueType:
    return compatibility_pb2.Verdict.ValueType(int(value))


def _text(value: str) -> str:
    """Text that a message can hold: half a surrogate pair, which JSON can escape, becomes U+FFFD."""
    return value.encode("utf-8", "replace").decode("utf-8") if not value.isascii() else value
