"""What changed from one schema to another, and what that means for readers."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from llm_schema_registry.errors import InvalidField
from services.registry.domain.evolution.levels import LEVELS, pairs
from services.registry.domain.evolution.policy import Rules
from services.registry.domain.evolution.report import Finding, Terms, Verdict, worst
from services.registry.domain.formats import Difference, Parsed
from services.registry.domain.limits import DIFFERENCES_MAX
from services.registry.usecases.compatibility import compare_pairs
from services.registry.usecases.library import Library


class Step(enum.IntEnum):
    """A step of a semantic version. Numbers are those of the contract. Source: semver.org, 2.0.0."""

    NONE = 1
    PATCH = 2
    MINOR = 3
    MAJOR = 4


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed. backward, forward: verdicts by the rules. findings: their reasons."""

    differences: Sequence[Difference]
    truncated: bool
    backward: Verdict
    forward: Verdict
    findings: Sequence[Finding]
    step: Step


async def differences(before: Parsed, after: Parsed, rules: Rules, *, library: Library) -> Comparison:
    """What changed from one schema to another. Raises InvalidField for two formats, LimitExceeded, Overloaded."""
    if before.format is not after.format:
        raise InvalidField.of("after", f"is {after.format.name}, and `before` is {before.format.name}")
    terms = Terms(LEVELS["FULL"], rules)
    report = await compare_pairs(list(pairs(terms.level, [(1, before)], after)), terms, library=library)
    backward = worst(finding for finding in report.findings if finding.candidate_reads)
    forward = worst(finding for finding in report.findings if not finding.candidate_reads)
    found = await library.differences(before, after)
    return Comparison(
        differences=found[:DIFFERENCES_MAX],
        truncated=report.truncated or len(found) > DIFFERENCES_MAX,
        backward=backward,
        forward=forward,
        findings=report.findings,
        step=_step(before, after, backward),
    )


def _step(before: Parsed, after: Parsed, backward: Verdict) -> Step:
    """What a change asks of a version number."""
    same_sources = dict(before.sources) == dict(after.sources)
    if same_sources and before.identity_body == after.identity_body:
        return Step.NONE
    if same_sources and before.semantic_body == after.semantic_body:
        return Step.PATCH
    return Step.MINOR if backward is Verdict.COMPATIBLE else Step.MAJOR
