"""The life of a version: which steps there are, and what a rollback does."""

from __future__ import annotations

from collections.abc import Sequence

from llm_schema_registry.errors import IllegalTransition
from services.registry.domain.model import State, VersionHead

STEPS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.DRAFT, State.ACTIVE),
        (State.ACTIVE, State.DEPRECATED),
        (State.DEPRECATED, State.ARCHIVED),
        (State.DRAFT, State.ARCHIVED),
    }
)
"""Every step that a transition may take. DEPRECATED to ACTIVE exists by rollback only."""


def require_step(origin: State, target: State) -> None:
    """Raises IllegalTransition unless the life of a version has this step."""
    if (origin, target) in STEPS:
        return
    allowed = sorted(step_target.name for step_origin, step_target in STEPS if step_origin is origin)
    way = f"from {origin.name} it can become {' or '.join(allowed)}" if allowed else f"{origin.name} is final"
    if (origin, target) == (State.DEPRECATED, State.ACTIVE):
        way += "; RollbackSubject makes a deprecated version active again"
    raise IllegalTransition(
        f"a version cannot go from {origin.name} to {target.name}: {way}",
        metadata={"from": origin.name, "to": target.name, "allowed": ",".join(allowed)},
    )


def rolled_back(live: Sequence[VersionHead], target: VersionHead) -> tuple[int, ...]:
    """Numbers of the versions that a rollback to `target` deprecates, ascending: the newer ACTIVE ones.

    Raises IllegalTransition unless the target is ACTIVE or DEPRECATED.
    """
    if target.state not in (State.ACTIVE, State.DEPRECATED):
        raise IllegalTransition(
            f"version {target.number} is {target.state.name}: a rollback needs one that is ACTIVE or DEPRECATED",
            metadata={"from": target.state.name, "to": State.ACTIVE.name},
        )
    return tuple(head.number for head in live if head.number > target.number and head.state is State.ACTIVE)
