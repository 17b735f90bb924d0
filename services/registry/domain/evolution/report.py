"""What a compatibility check found."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from services.registry.domain.evolution.levels import Level, Pair
from services.registry.domain.evolution.policy import Rules
from services.registry.domain.limits import FINDINGS_MAX

T = TypeVar("T")


class Verdict(enum.IntEnum):
    """What is known about a reader and a writer. Numbers are those of the contract."""

    COMPATIBLE = 1
    INCOMPATIBLE = 2
    UNDECIDED = 3


@dataclass(frozen=True, slots=True)
class Witness:
    """Data that shows a finding: the writer's schema accepts it, and the reader's rejects it or reads it differently.

    text: as JSON; for Avro in its JSON encoding, for Protobuf in ProtoJSON. binary: the same in the format's binary
    encoding, empty for JSON Schema. read: what the reader makes of it, as JSON; empty when it rejects it.
    """

    text: str
    binary: bytes = b""
    read: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between a reader and a writer. Paths are JSON pointers (RFC 6901).

    verdict: COMPATIBLE for a difference that does no harm. number and candidate_reads say which pair it belongs to; the
    check fills them in.
    """

    rule: str
    verdict: Verdict
    message: str
    remedy: str
    reader_path: str = ""
    writer_path: str = ""
    number: int = 0
    candidate_reads: bool = True
    witness: Witness | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a candidate is checked by: which pairs must be compatible, and by which rules."""

    level: Level
    rules: Rules


@dataclass(frozen=True, slots=True)
class Report:
    """The result of checking a candidate against a history.

    verdict: the worst of all pairs, INCOMPATIBLE before UNDECIDED before COMPATIBLE.
    findings: newest version first, harmless ones left out. checked: numbers of the versions compared with, newest
    first.
    """

    verdict: Verdict
    terms: Terms
    findings: tuple[Finding, ...] = ()
    checked: tuple[int, ...] = ()
    truncated: bool = False


def gathered(terms: Terms, found: Iterable[tuple[Pair[T], Iterable[Finding]]]) -> Report:
    """What was found for every pair, newest version first, as one report with at most FINDINGS_MAX findings."""
    findings: list[Finding] = []
    checked: dict[int, None] = {}
    truncated = False
    for pair, several in found:
        checked[pair.number] = None
        for finding in several:
            if finding.verdict is Verdict.COMPATIBLE:
                continue
            if len(findings) == FINDINGS_MAX:
                truncated = True
                break
            findings.append(replace(finding, number=pair.number, candidate_reads=pair.candidate_reads))
    return Report(worst(findings), terms, tuple(findings), tuple(checked), truncated)


def joined(first: Report, second: Report) -> Report:
    """Two reports on one candidate as one, still with at most FINDINGS_MAX findings."""
    findings = first.findings + second.findings
    return Report(
        worst(findings),
        first.terms,
        findings[:FINDINGS_MAX],
        first.checked + second.checked,
        truncated=first.truncated or second.truncated or len(findings) > FINDINGS_MAX,
    )


def worst(findings: Iterable[Finding]) -> Verdict:
    """INCOMPATIBLE when any finding says so, else UNDECIDED when any does, else COMPATIBLE."""
    verdicts = {finding.verdict for finding in findings}
    for verdict in (Verdict.INCOMPATIBLE, Verdict.UNDECIDED):
        if verdict in verdicts:
            return verdict
    return Verdict.COMPATIBLE
