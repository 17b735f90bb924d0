"""Compares a candidate with the versions that a level protects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from llm_schema_registry.errors import IncompatibleSchema, LimitExceeded, VersionNotFound, Violation
from services.registry.domain.evolution.levels import LEVELS, Pair, history, pairs
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding, Report, Terms, Verdict, gathered, joined
from services.registry.domain.formats import Parsed
from services.registry.domain.model import Schema, VersionHead
from services.registry.domain.settings import in_force, terms_of
from services.registry.ports import Basis, Store
from services.registry.usecases.library import Candidate, Library

COMPARED_AT_ONCE = 32
"""Versions whose texts are held, and given to a worker, at the same time."""
GIVEN_UP_MAX = 2
"""Pairs of one part that may take longer than a worker is given. After them the rest of the history is not compared."""
VIOLATIONS_MAX = 10
"""Findings that travel with an error: its details must fit into HTTP/2 headers. The report has them all."""


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Those of Rules, in a caller's words."""

    declared_properties_only: bool
    reader_fills_defaults: bool
    assert_formats: bool


@dataclass(frozen=True, slots=True)
class Question:
    """What to compare a candidate with, and by what; None for what is in force.

    number: of one version to compare with; 0 for the level's history.
    """

    subject: str
    level: str | None = None
    number: int = 0
    policy: Policy | None = None
    assumptions: Assumptions | None = None


async def compatibility(question: Question, candidate: Candidate, *, store: Store, library: Library) -> Report:
    """Whether a candidate may follow what stands under a subject. Writes nothing. Raises VersionNotFound."""
    basis = await store.basis(question.subject)
    terms = _asked(question, terms_in_force(basis, candidate.parsed))
    heads = history(terms.level, basis.live)
    if question.number:
        heads = tuple(head for head in basis.live if head.number == question.number)
        if not heads:
            raise version_not_found(question.subject, question.number)
    return await compare(terms, heads, candidate.parsed, library=library)


async def compare(terms: Terms, heads: Sequence[VersionHead], candidate: Parsed, *, library: Library) -> Report:
    """The report on a candidate against versions, newest first. Reads a few versions at a time."""
    report = Report(Verdict.COMPATIBLE, terms)
    if not terms.level.checks:
        return report
    for start in range(0, len(heads), COMPARED_AT_ONCE):
        part = heads[start : start + COMPARED_AT_ONCE]
        schemas = await library.schemas({head.schema_id for head in part})
        older = [(head.number, await library.parsed(_present(schemas.get(head.schema_id), head))) for head in part]
        report = joined(report, await compare_pairs(list(pairs(terms.level, older, candidate)), terms, library=library))
        if report.truncated:
            break
    return report


async def compare_pairs(asked: Sequence[Pair[Parsed]], terms: Terms, *, library: Library) -> Report:
    """The report on some pairs."""
    found, gave_up = await _found(asked, terms, library)
    report = gathered(terms, found)
    return replace(report, truncated=True) if gave_up else report


async def _found(
    asked: Sequence[Pair[Parsed]], terms: Terms, library: Library
) -> tuple[list[tuple[Pair[Parsed], Sequence[Finding]]], bool]:
    """What is found for each pair, in their order, and whether it was given up before the last.

    All go to a worker together; when that takes too long, one by one, so that only those that do are undecided.
    """
    known = [_known(pair) for pair in asked]
    unknown = [(pair.reader, pair.writer) for pair, found in zip(asked, known, strict=True) if found is None]
    try:
        answers = iter(await library.diff(unknown, terms.rules) if unknown else ())
        return [
            (pair, next(answers) if found is None else found) for pair, found in zip(asked, known, strict=True)
        ], False
    except LimitExceeded:
        return await _found_one_by_one(asked, terms, library)


async def _found_one_by_one(
    asked: Sequence[Pair[Parsed]], terms: Terms, library: Library
) -> tuple[list[tuple[Pair[Parsed], Sequence[Finding]]], bool]:
    findings: list[tuple[Pair[Parsed], Sequence[Finding]]] = []
    given_up = 0
    for pair in asked:
        found = _known(pair)
        if found is None:
            try:
                (found,) = await library.diff([(pair.reader, pair.writer)], terms.rules)
            except LimitExceeded as error:
                found = [_gave_up(error)]
                given_up += 1
        findings.append((pair, found))
        if given_up == GIVEN_UP_MAX:
            return findings, True
    return findings, False


def terms_in_force(basis: Basis, candidate: Parsed) -> Terms:
    """What a candidate for a subject is checked by."""
    return terms_of(in_force(basis.own, basis.general), candidate.format)


def asked_rules(rules: Rules, policy: Policy | None, assumptions: Assumptions | None) -> Rules:
    """Rules with what a caller says instead."""
    if assumptions is not None:
        rules = Rules(
            rules.policy,
            declared_properties_only=assumptions.declared_properties_only,
            reader_fills_defaults=assumptions.reader_fills_defaults,
            assert_formats=assumptions.assert_formats,
        )
    return replace(rules, policy=policy or rules.policy)


def require_compatible(report: Report, subject: str, *, accept_undecided: bool = False) -> bool:
    """Whether a verdict of UNDECIDED was accepted.

    Raises IncompatibleSchema with the first findings unless the report says COMPATIBLE, or UNDECIDED and that is
    accepted.
    """
    if report.verdict is Verdict.COMPATIBLE:
        return False
    if report.verdict is Verdict.UNDECIDED and accept_undecided:
        return True
    first = next(finding for finding in report.findings if finding.verdict is report.verdict)
    more = f" ({len(report.findings) - 1} more findings)" if len(report.findings) > 1 else ""
    raise IncompatibleSchema(
        f"level {report.terms.level.name} of subject {subject!r} refuses the schema: against version {first.number}, "
        f"{first.message}{more}. Remedy: {first.remedy}",
        metadata={
            "subject": subject,
            "level": report.terms.level.name,
            "policy": report.terms.rules.policy.name,
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


def _asked(question: Question, terms: Terms) -> Terms:
    """The terms in force with what the question says itself."""
    level = LEVELS[question.level] if question.level else terms.level
    return Terms(level, asked_rules(terms.rules, question.policy, question.assumptions))


def _known(pair: Pair[Parsed]) -> Sequence[Finding] | None:
    """What is found without comparing the texts; None when they must be compared."""
    reader, writer = pair.reader, pair.writer
    if reader.format is not writer.format:
        return [
            Finding(
                rule="FORMAT_CHANGED",
                verdict=Verdict.INCOMPATIBLE,
                message=f"the reader is {reader.format.name} and the writer {writer.format.name}",
                remedy="register another format under a new subject",
            )
        ]
    if reader.semantic_body == writer.semantic_body and dict(reader.sources) == dict(writer.sources):
        return []
    return None


def _gave_up(error: LimitExceeded) -> Finding:
    return Finding(
        rule="GAVE_UP",
        verdict=Verdict.UNDECIDED,
        message=f"the comparison was given up: {error.message}",
        remedy="make the schema simpler where it branches or leads back to itself, or accept the change as undecided",
    )


def _present(schema: Schema | None, head: VersionHead) -> Schema:
    """A live version's content is never purged."""
    assert schema is not None, f"version {head.number} is live and its content {head.schema_id} is gone"
    return schema


def _violations(findings: Iterable[Finding]) -> Iterator[Violation]:
    for finding in findings:
        place = finding.reader_path or finding.writer_path
        yield Violation(f"text{place}", f"{finding.rule}: {finding.message}. Remedy: {finding.remedy}")
