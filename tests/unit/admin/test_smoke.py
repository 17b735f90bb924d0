"""The smoke test: what it tries, what it says, and that it leaves nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from llm_schema_registry import errors
from services.admin.usecases.smoke import LEFTOVERS_MAX, PREFIX, Smoke
from tests.admin_parts import NOON, StandInRegistry
from tests.backup_parts import HandClock

EVERYTHING = [
    *("health", "list", "validate schema", "watch begins", "register", "get by id", "get by version", "compatibility"),
    *("validate data", "watch", "delete", "purge"),
]
READ_ONLY = errors.ReadOnly("The server is read-only.")


def smoke(registry: StandInRegistry) -> Smoke:
    """A smoke test of a process."""
    return Smoke(registry, HandClock(NOON), "admin-1")


async def test_everything_passes_and_nothing_is_left() -> None:
    """Each check passes in order; afterwards the subject is gone."""
    registry = StandInRegistry()

    checks = await smoke(registry).run()

    assert [each.name for each in checks] == EVERYTHING
    assert all(each.passed for each in checks)
    assert registry.subjects_by_name == {}


async def test_read_only_is_told_and_reads_are_tried() -> None:
    """Writes are refused with the reason; what is there is read; nothing is deleted."""
    registry = StandInRegistry({"orders": ("{}", NOON)}, {"register": READ_ONLY})

    checks = {each.name: each for each in await smoke(registry).run()}

    assert not checks["register"].passed
    assert checks["register"].message.startswith("READ_ONLY: ")
    assert [name for name, each in checks.items() if each.passed] == [
        *("health", "list", "validate schema", "watch begins", "get by id", "get by version"),
    ]
    assert not {"remove", "purge"} & set(registry.asked)


async def test_nothing_more_without_health() -> None:
    """What is not healthy is not tried further."""
    checks = await smoke(StandInRegistry(lies={"health"})).run()

    assert [(each.name, each.passed) for each in checks] == [("health", False)]
    assert checks[0].message


@pytest.mark.parametrize(
    ("method", "name"),
    [("compatible", "compatibility"), ("version", "get by version"), ("seen", "watch")],
)
async def test_a_wrong_answer_does_not_pass(method: str, name: str) -> None:
    """An answer that is wrong is told, the other checks go on, and the subject is removed."""
    registry = StandInRegistry(lies={method})

    checks = {each.name: each for each in await smoke(registry).run()}

    assert [each.name for each in checks.values() if not each.passed] == [name]
    assert checks[name].message
    assert registry.subjects_by_name == {}


async def test_what_fails_half_way_is_tidied() -> None:
    """A deletion that fails is tried once more at the end."""
    registry = StandInRegistry(broken={"remove": errors.Conflict("busy")})

    checks = await smoke(registry).run()

    assert [each.name for each in checks if not each.passed] == ["delete"]
    assert registry.asked.count("remove") == 2


async def test_leftovers_of_others_are_purged() -> None:
    """Old subjects below the prefix go, a bounded number at once; young ones may be somebody's who runs now."""
    old, young = NOON - timedelta(hours=1), NOON - timedelta(seconds=5)
    registry = StandInRegistry({f"{PREFIX}old-{number:02}": ("{}", old) for number in range(30)})
    registry.subjects_by_name |= {f"{PREFIX}a-young": ("{}", young), "orders": ("{}", old)}

    [purge] = [each for each in await smoke(registry).run() if each.name == "purge"]

    assert purge.message == f"{LEFTOVERS_MAX - 1} left by earlier runs purged too"
    assert {f"{PREFIX}a-young", "orders"} <= set(registry.subjects_by_name)
    assert len(registry.subjects_by_name) == 2 + 30 - LEFTOVERS_MAX + 1
