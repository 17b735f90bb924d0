"""What the status makes of the answers of a system's parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations.operations import Operations
from services.admin.domain.system import Health, State, SystemStatus
from services.admin.usecases.recovery_journal import RECOVERIES, RecoveryJournal
from services.admin.usecases.status import PROBLEMS_MAX, Status
from services.admin.usecases.steer import Steer
from services.backup.adapters.recipients import system_dice
from tests.admin_parts import REDIS_AWAY, StandInPeers, StandInProtections
from tests.backup_parts import HandClock


@pytest.fixture
def peers() -> StandInPeers:
    """Two registries, a backup and an admin service, all of them well."""
    made = StandInPeers()
    for service, number in (("registry", 1), ("registry", 2), ("backup", 1), ("admin", 1)):
        made.add(service, number)
    return made


async def look(folder: Path, peers: StandInPeers, protections: StandInProtections | None = None) -> SystemStatus:
    """The status."""
    clock = HandClock()
    store = DirectoryStore(folder / "store", clock.now)
    operations = Operations(store, clock, system_dice, "admin-1", lambda *_, **__: None)
    journal = RecoveryJournal(store, system_dice)
    return await Status(peers, protections or StandInProtections(), operations, journal, clock).system()


async def test_all_well(tmp_path: Path, peers: StandInPeers) -> None:
    """Without a problem the system is HEALTHY, and operations of the backup service are shown."""
    found = await look(tmp_path, peers, StandInProtections(running=["backup-x"]))

    assert (found.health, list(found.problems)) == (Health.HEALTHY, [])
    assert found.running_operations == ["backup-x"]
    assert list(found.replicas) == ["registry", "backup", "admin"]


@pytest.mark.parametrize(
    ("change", "health", "first"),
    [
        ({"state": State.READ_ONLY}, Health.DEGRADED, "registry at registry-1:1 is READ_ONLY"),
        ({"dependencies": [REDIS_AWAY]}, Health.DEGRADED, "registry at registry-1:1: redis is DEGRADED: it does not"),
    ],
)
async def test_a_problem_degrades(
    tmp_path: Path, peers: StandInPeers, change: dict[str, object], health: Health, first: str
) -> None:
    """One replica with less than all makes the system DEGRADED, and is named."""
    peers.add("registry", 1, **change)

    found = await look(tmp_path, peers)

    assert found.health is health
    assert found.problems[0].startswith(first)


async def test_gravest_first(tmp_path: Path, peers: StandInPeers) -> None:
    """A service without any replica comes first and makes the system UNHEALTHY; then who is silent, then the rest."""
    peers.places[peers.add("backup")] = None
    peers.places[peers.add("registry", 2)] = None
    peers.add("registry", 1, state=State.MAINTENANCE)

    found = await look(tmp_path, peers, StandInProtections(problem="no replica answers"))

    assert found.health is Health.UNHEALTHY
    assert found.problems == [
        "no replica of backup serves",
        "registry at registry-2:1 does not answer: nobody is there",
        "backup at backup-1:1 does not answer: nobody is there",
        "registry at registry-1:1 is MAINTENANCE",
        "protection: no replica answers",
        "operations of the backup service: no replica answers",
    ]
    assert found.protection is None


async def test_problems_have_a_limit(tmp_path: Path, peers: StandInPeers) -> None:
    """However much is wrong, the answer stays short."""
    found = await look(tmp_path, peers, StandInProtections(told=["wrong"] * 500))

    assert len(found.problems) == PROBLEMS_MAX


async def test_what_a_replica_could_not_flush_is_told(peers: StandInPeers) -> None:
    """A shared cache that is away is a problem of that replica; a replica that is down does not hide the others."""
    peers.places[peers.add("registry", 2)] = None
    peers.kept = "redis: it does not answer"

    first, second = await Steer(peers).flush_caches(["registry"])

    assert first.problem == "registry at registry-1:1 kept entries: redis: it does not answer"
    assert "does not answer" in second.problem


async def test_a_lost_recovery_is_named(tmp_path: Path, peers: StandInPeers) -> None:
    """A recovery whose record cannot be read is a problem that names the object and says what to do."""
    store = DirectoryStore(tmp_path / "store")
    key = f"{RECOVERIES}01KAX7H2E9P4Z8D3F6G5J1K0MC/000003.json"
    await store.put(key, b"{")

    found = await look(tmp_path, peers)

    (problem,) = found.problems
    assert key in problem
    assert "brought back" in problem
