"""Errors that every store words alike."""

from __future__ import annotations

from collections.abc import Sequence

from llm_schema_registry import errors
from services.registry.domain.limits import SCHEMA_ID_MAX
from services.registry.domain.model import Reference

FENCED_RETRY_SECONDS = 1.0
NAMED_MAX = 5
"""Versions that a message names; there may be more."""


def references_not_live(missing: Sequence[Reference]) -> errors.ReferenceNotFound:
    """missing: the references, one at least, whose version does not exist or is deleted."""
    first = missing[0]
    return errors.ReferenceNotFound(
        f"reference {first.name!r}: subject {first.subject!r} has no live version {first.version}",
        metadata={"name": first.name, "subject": first.subject, "version": first.version},
    )


def still_referenced(
    subject: str, numbers: Sequence[int], dependents: Sequence[tuple[str, int]]
) -> errors.VersionReferenced:
    """dependents: some (subject, number), one at least, that still reference versions of the subject."""
    named = ", ".join(f"{name!r} version {number}" for name, number in dependents[:NAMED_MAX])
    more = " and others" if len(dependents) > NAMED_MAX else ""
    versions = ", ".join(map(str, numbers[:NAMED_MAX])) + (" …" if len(numbers) > NAMED_MAX else "")
    return errors.VersionReferenced(
        f"subject {subject!r} version {versions}: still referenced by {named}{more}; remove those first",
        metadata={"subject": subject, "dependent_subject": dependents[0][0], "dependent_version": dependents[0][1]},
    )


def writes_fenced() -> errors.WritesFenced:
    """A restore is being activated."""
    return errors.WritesFenced(
        "writes are stopped while a restore is activated: repeat later", retry_seconds=FENCED_RETRY_SECONDS
    )


def schema_ids_exhausted() -> errors.LimitExceeded:
    """The last id was issued."""
    return errors.LimitExceeded("every schema id is taken", metadata={"limit": "schema_ids", "maximum": SCHEMA_ID_MAX})
