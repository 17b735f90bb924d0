"""Compares a candidate with the versions that a level protects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from llm_schema_registry.errors import IncompatibleSchema, VersionNotFound, Violation
from services.registry.domain.evolution.levels import LEVELS, Level, history, pairs
from services.registry.domain.evolution.report import Finding, Report, Verdict, check, joined
from services.registry.domain.formats import Parsed
from services.registry.domain.model import Schema, VersionHead
from services.registry.ports import Basis, Store
from services.registry.usecases.library import Candidate, Library, offload

COMPARED_AT_ONCE = 32
"""Versions whose texts are held at the same time."""
VIOLATIONS_MAX = 10
"""Findings that travel with an error: its details must fit into HTTP/2 headers. The report has them all."""


@dataclass(frozen=True, slots=True)
class Question:
    """What to compare a candidate with. level: None for the one in force. number: 0 for the level's history."""

    subject: str
    level: str | None = None
    number: int = 0


async def compatibility(question: Question, candidate: Candidate, *, store: Store, library: Library) -> Report:
    """Whether a candidate may follow what stands under a subject. Writes nothing. Raises VersionNotFound."""
    basis = await store.basis(question.subject)
    level = LEVELS[question.level or level_in_force(basis)]
    heads = history(level, basis.live)
    if question.number:
        heads = tuple(head for head in basis.live if head.number == question.number)
        if not heads:
            raise version_not_found(question.subject, question.number)
    return await compare(level, heads, candidate.parsed, library=library)


async def compare(level: Level, heads: Sequence[VersionHead], candidate: Parsed, *, library: Library) -> Report:
    """The report on a candidate against versions, newest first. Reads a few versions at a time."""
    report = Report(Verdict.COMPATIBLE, level.name, (), ())
    if not level.checks:
        return report
    for start in range(0, len(heads), COMPARED_AT_ONCE):
        part = heads[start : start + COMPARED_AT_ONCE]
        schemas = await library.schemas({head.schema_id for head in part})
        older = [(head.number, await library.parsed(_present(schemas.get(head.schema_id), head))) for head in part]
        size = len(candidate.text) + sum(len(parsed.text) for _, parsed in older)
        found = await offload(size, partial(check, level, list(pairs(level, older, candidate)), _Differ(library)))
        report = joined(report, found)
        if report.truncated:
            break
    return report


def level_in_force(basis: Basis) -> str:
    """The subject's own level, or the global one."""
    return basis.level or basis.global_level


def require_compatible(report: Report, subject: str) -> None:
    """Raises IncompatibleSchema with the first findings unless the report says COMPATIBLE."""
    if report.verdict is Verdict.COMPATIBLE:
        return
    first = report.findings[0]
    more = f" ({len(report.findings) - 1} more findings)" if len(report.findings) > 1 else ""
    raise IncompatibleSchema(
        f"level {report.level} of subject {subject!r} refuses the schema: against version {first.number}, "
        f"{first.message}{more}. Remedy: {first.remedy}",
        metadata={
            "subject": subject,
            "level": report.level,
            "verdict": report.verdict.name,
            "findings": len(report.findings),
        },
        violations=_violations(report.findings[:VIOLATIONS_MAX]),
    )


def version_not_found(subject: str, number: int) -> VersionNotFound:
    """The error for a version that is not there, or is deleted."""
    return VersionNotFound(
        f"subject {subject!r} has no version {number}", metadata={"subject": subject, "version": number}
    )


class _Differ:
    """`diff(reader, writer)` over formats: a change of the format itself breaks every level."""

    def __init__(self, library: Library) -> None:
        self._library = library

    def __call__(self, reader: Parsed, writer: Parsed) -> Iterator[Finding]:
        if reader.format is not writer.format:
            yield Finding(
                rule="FORMAT_CHANGED",
                verdict=Verdict.INCOMPATIBLE,
                message=f"the reader is {reader.format.name} and the writer {writer.format.name}",
                remedy="register another format under a new subject",
            )
            return
        yield from self._library.language(reader.format).diff(reader, writer)


def _present(schema: Schema | None, head: VersionHead) -> Schema:
    """A live version's content is never purged."""
    assert schema is not None, f"version {head.number} is live and its content {head.schema_id} is gone"
    return schema


def _violations(findings: Iterable[Finding]) -> Iterator[Violation]:
    for finding in findings:
        place = finding.reader_path or finding.writer_path
        yield Violation(f"text{place}", f"{finding.rule}: {finding.message}. Remedy: {finding.remedy}")
