"""What a compatibility check found."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from services.registry.domain.evolution.levels import Level, Pair
from services.registry.domain.limits import FINDINGS_MAX

T = TypeVar("T")


class Verdict(enum.IntEnum):
    """What is known about a reader and a writer. Numbers are those of the contract."""

    COMPATIBLE = 1
    INCOMPATIBLE = 2
    UNDECIDED = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One place where a reader may fail on a writer's data. Paths are JSON pointers (RFC 6901).

    number and candidate_reads say which pair it belongs to; the check fills them in.
    """

    rule: str
    verdict: Verdict
    message: str
    remedy: str
    reader_path: str = ""
    writer_path: str = ""
    number: int = 0
    candidate_reads: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """The result of checking a candidate against a history.

    verdict: the worst of all pairs, INCOMPATIBLE before UNDECIDED before COMPATIBLE.
    findings: newest version first. checked: numbers of the versions compared with, newest first.
    """

    verdict: Verdict
    level: str
    findings: tuple[Finding, ...]
    checked: tuple[int, ...]
    truncated: bool = False


def check(level: Level, pairs: Iterable[Pair[T]], diff: Callable[[T, T], Iterable[Finding]]) -> Report:
    """Compares every pair with `diff(reader, writer)` and collects what it finds, up to FINDINGS_MAX."""
    findings: list[Finding] = []
    checked: dict[int, None] = {}
    truncated = False
    for pair in pairs:
        checked[pair.number] = None
        for finding in diff(pair.reader, pair.writer):
            if len(findings) == FINDINGS_MAX:
                truncated = True
                break
            findings.append(replace(finding, number=pair.number, candidate_reads=pair.candidate_reads))
    return Report(worst(findings), level.name, tuple(findings), tuple(checked), truncated)


def joined(first: Report, second: Report) -> Report:
    """Two reports on one candidate at one level as one, still with at most FINDINGS_MAX findings."""
    findings = first.findings + second.findings
    return Report(
        worst(findings),
        first.level,
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
