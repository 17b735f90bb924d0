"""Shutdowns: the order, what stops them, and what the next process knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from llm_schema_registry import errors
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.operation import Operation, OperationKind, StepState, Subject
from llm_schema_registry.operations.operations import Operations, Request, Running
from services.admin.domain.shutdown import ShutdownMode
from services.admin.domain.system import State
from services.admin.usecases import shutdown as module
from services.admin.usecases.modes import Modes
from services.admin.usecases.office import Office
from services.admin.usecases.shutdown import Here, Shutdown, Wish
from services.admin.usecases.steer import Steer
from services.backup.adapters.recipients import system_dice
from tests.admin_parts import StandInPeers, process
from tests.backup_parts import HandClock
from tests.fix_faults import eventually
from tests.object_faults import FaultyStore, Plan, Raise

ALL = ["registry", "backup", "admin"]


class Admin:
    """An admin process at a store."""

    def __init__(self, folder: Path, peers: StandInPeers, instance_id: str) -> None:
        self.clock, self.peers = HandClock(), peers
        self.reported: list[str] = []
        store = DirectoryStore(folder / "store", self.clock.now)
        self.operations = Operations(store, self.clock, system_dice, instance_id, self.report)
        self.office = Office(Leases(store, self.clock, instance_id), self.operations)
        here = Here(instance_id, self.clock, self.report)
        self.shutdown = Shutdown(peers, self.operations, self.office, store, here)
        self.modes = Modes(Steer(peers), self.office, self.report)

    def report(self, event: str, **_: object) -> None:
        """Notes what an operator would read."""
        self.reported.append(event)

    async def begin(self, mode: ShutdownMode, services: list[str] = ALL, request_id: str = "") -> Operation:
        """Begins a shutdown."""
        wish = Wish(services, mode, "a test", 0.6)
        return await self.shutdown.begin(wish, actor="me", request=Request(request_id, b"same"))

    async def close(self) -> None:
        """Ends the process."""
        await self.shutdown.close()
        await self.operations.close(0)


@pytest.fixture
def peers() -> StandInPeers:
    """Two registries, a backup service, and the process itself between two other admin processes."""
    made = StandInPeers()
    for service, number in (("registry", 1), ("registry", 2), ("backup", 1), ("admin", 2), ("admin", 1), ("admin", 3)):
        made.add(service, number)
    return made


@pytest_asyncio.fixture
async def admin(tmp_path: Path, peers: StandInPeers) -> AsyncIterator[Admin]:
    """The process admin-1."""
    made = Admin(tmp_path, peers, "admin-1")
    yield made
    await made.close()


async def test_rolling_stops_one_after_the_other(admin: Admin, peers: StandInPeers) -> None:
    """Each replica is back before the next one is stopped; without this service the operation ends here."""
    begun = await admin.begin(ShutdownMode.ROLLING, ["registry", "backup"])

    ended = await admin.operations.wait(begun.name)

    assert ended.error is None
    assert peers.asked == ["restart registry-1:1", "restart registry-2:1", "restart backup-1:1"]
    record = await admin.shutdown.get(begun.name)
    assert [each.process and each.process.instance_id for each in record.replicas] == [
        *("registry-1+", "registry-2+", "backup-1+"),
    ]
    assert [step.state for step in ended.steps] == [StepState.DONE] * 4


async def test_rolling_stops_at_the_first_that_does_not_come_back(admin: Admin, peers: StandInPeers) -> None:
    """What is not replaced in time ends the operation, which names it; the next one is not touched."""
    peers.on_stop = lambda *_: None

    ended = await admin.operations.wait((await admin.begin(ShutdownMode.ROLLING)).name)

    assert ended.error is not None
    assert (ended.error.reason, ended.error.metadata["address"]) == ("PEER_FAILED", "registry-1:1")
    assert peers.asked == ["restart registry-1:1"]


async def test_rolling_waits_for_health(admin: Admin, peers: StandInPeers) -> None:
    """A new process that does not serve is not enough."""
    peers.on_stop = lambda address, _: process(address.service, "new", State.STARTING)

    ended = await admin.operations.wait((await admin.begin(ShutdownMode.ROLLING)).name)

    assert ended.error is not None
    assert "did not serve again" in ended.error.message


async def test_rolling_does_not_begin_when_one_is_down(admin: Admin, peers: StandInPeers) -> None:
    """A replica that is down already is a reason to stop none."""
    peers.places[peers.add("registry", 2)] = None

    ended = await admin.operations.wait((await admin.begin(ShutdownMode.ROLLING)).name)

    assert ended.error is not None
    assert ended.error.reason == "PEER_UNREACHABLE"
    assert peers.asked == []


async def test_full_stops_all_in_order(admin: Admin, peers: StandInPeers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Registry, backup, other admin processes, this one last, after its operation; what is down is told."""
    monkeypatch.setattr(module, "FAREWELL_SECONDS", 0)
    peers.places[peers.add("registry", 2)] = None

    begun = await admin.begin(ShutdownMode.FULL)
    ended = await admin.operations.wait(begun.name)
    asked_before_the_end = list(peers.asked)

    async def stopped() -> bool:
        return "stop admin-1:1" in peers.asked

    await eventually(stopped)

    assert ended.error is None
    assert "stop admin-1:1" not in asked_before_the_end
    assert peers.asked == [f"stop {name}:1" for name in ("registry-1", "backup-1", "admin-2", "admin-3", "admin-1")]
    record = await admin.shutdown.get(begun.name)
    assert [each.address.target for each in record.replicas if each.problem] == ["registry-2:1"]
    assert record.replicas[-1].address.target == "admin-1:1"


async def test_full_tells_of_a_supervisor(admin: Admin, peers: StandInPeers) -> None:
    """A process that is started again although it ended in order is not stopped: the shutdown says so and ends."""
    peers.on_stop = lambda address, _: process(address.service, "again")

    ended = await admin.operations.wait((await admin.begin(ShutdownMode.FULL)).name)

    assert ended.error is not None
    assert "its supervisor" in ended.error.message
    assert peers.asked == ["stop registry-1:1"]


async def test_the_successor_completes_a_rolling_shutdown(admin: Admin, peers: StandInPeers, tmp_path: Path) -> None:
    """The operation runs on until the process in this one's place serves; another replica leaves it alone."""
    begun = await admin.begin(ShutdownMode.ROLLING)
    await admin.operations.wait(begun.name)
    handed_over = await admin.operations.get(begun.name)
    other, successor = Admin(tmp_path, peers, "admin-3"), Admin(tmp_path, peers, "admin-1+")

    keeping = [asyncio.create_task(each.shutdown.keep()) for each in (other, successor)]

    async def done() -> bool:
        return (await other.operations.get(begun.name)).done

    await eventually(done)
    ended = await other.operations.get(begun.name)
    for task in keeping:
        task.cancel()
    await asyncio.gather(*keeping, return_exceptions=True)

    assert not handed_over.done
    assert peers.asked[-1] == "restart admin-1:1"
    assert ended.error is None
    assert ended.instance_id == "admin-1+"
    assert ended.steps[-1].message == "admin-1+ serves in place of admin-1"
    record = await other.shutdown.get(begun.name)
    assert record.pending is None
    assert len(record.replicas) == 6
    await other.close()
    await successor.close()


async def test_one_operation_changes_the_system(admin: Admin, peers: StandInPeers, tmp_path: Path) -> None:
    """While another one has the office, shutdowns and modes are refused, and told its name; a repeat is answered."""
    other = Admin(tmp_path, peers, "admin-2")
    go = asyncio.Event()

    async def recover(running_: Running) -> Subject:
        async with other.office.held(running_.operation.name):
            go.set()
            await asyncio.Event().wait()
        return Subject("recovery")

    running = await other.operations.begin(OperationKind.RECOVERY, recover, actor="me")
    await go.wait()

    with pytest.raises(errors.OperationRunning) as refused:
        await admin.begin(ShutdownMode.ROLLING)
    assert refused.value.metadata["operation"] == running.name
    assert running.name in refused.value.message
    with pytest.raises(errors.OperationRunning):
        await admin.modes.set(["registry"], State.READ_ONLY)
    assert peers.asked == []
    await other.close()
    assert [each.problem for each in await admin.modes.set(["registry"], State.READ_ONLY)] == ["", ""]


async def test_a_mode_is_set_without_the_store(peers: StandInPeers, tmp_path: Path) -> None:
    """When the journals cannot be reached no operation goes on, and a mode is set all the same; that is noted."""
    clock, plan = HandClock(), Plan()
    noted: list[str] = []
    store = FaultyStore(DirectoryStore(tmp_path / "store", clock.now), plan)
    operations = Operations(store, clock, system_dice, "admin-1", lambda *_, **__: None)
    office = Office(Leases(store, clock, "admin-1"), operations)
    plan.add("get", *[Raise(errors.ObjectStoreUnavailable("the store of the test is down"))] * 100)

    found = await Modes(Steer(peers), office, lambda event, **_: noted.append(event)).set(["registry"], State.READ_ONLY)

    assert [each.process and each.process.state for each in found] == [State.READ_ONLY] * 2
    assert len(noted) == 1


async def test_a_repeat_returns_the_same_shutdown(admin: Admin, peers: StandInPeers) -> None:
    """The same request id begins nothing new, also while it runs."""
    peers.on_stop = lambda *_: None
    first = await admin.begin(ShutdownMode.ROLLING, request_id="once")

    again = await admin.begin(ShutdownMode.ROLLING, request_id="once")

    assert again.name == first.name
    await admin.operations.wait(first.name)
    assert peers.asked == ["restart registry-1:1"]


async def test_this_process_must_be_among_the_addresses(admin: Admin, peers: StandInPeers) -> None:
    """Settings that do not name this process end the operation before anything is stopped."""
    peers.places[peers.add("admin", 1)] = process("admin", "somebody else")

    ended = await admin.operations.wait((await admin.begin(ShutdownMode.FULL)).name)

    assert ended.error is not None
    assert "peers.admin" in ended.error.message
    assert peers.asked == []
