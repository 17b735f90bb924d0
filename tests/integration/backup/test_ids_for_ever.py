"""Random histories of a registry and its restores: an id means one content, and an epoch one line, for ever."""

from __future__ import annotations

import json
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.operations.operation import Operation, OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from llm_schema_registry.registry.v1 import version_pb2
from services.backup.assembly import Assembly
from services.backup.domain.model import Kind, Level
from services.backup.domain.restore import Restore, RestoreState
from services.backup.domain.targets import AtBackup, AtPlace, AtTime, Latest, Target
from services.backup.usecases.make_backup import Wanted
from services.backup.usecases.prepare import Aim
from tests import registry_tools
from tests.backup_parts import HandClock
from tests.fix_backup import AssembleBackup
from tests.fix_calls import Registry
from tests.fix_faults import eventually
from tests.fix_postgres import MakeDatabase
from tests.fix_service import MakeService
from tests.memory_places import Process, World, process

DEEDS = 60
SEEDS = 4
SEEDS_SLOW = 150
REAL_DEEDS = 25
ALL = "999999@{}/999999999"


@dataclass
class Story:
    """What happened in a world. epochs: every line that ever served, with its parent and fork."""

    process: Process
    rng: random.Random
    epochs: dict[int, tuple[int | None, int]] = field(default_factory=lambda: {1: (None, 0)})
    requests: dict[str, int] = field(default_factory=dict)

    async def deed(self) -> None:
        """Does something at random. What is refused is refused."""
        world, one = self.process.world, self.process
        deeds: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (30, self.register),
            (4, one.backup),
            (8, one.archive),
            (6, self.restore),
            (3, self.revert),
            (2, self.release),
            (1, self.lose),
        ]
        weights, choices = zip(*deeds, strict=True)
        with suppress(errors.TargetUnreachable, errors.IllegalState, errors.LossWindowChanged, errors.DatabaseUnfit):
            await self.rng.choices(choices, weights)[0]()
        for line in world.live.epochs:
            known = self.epochs.setdefault(line.id, (line.parent, line.fork_position))
            assert known == (line.parent, line.fork_position), "an epoch was given twice"
        assert world.twice == []
        assert not world.live.fenced
        for number, text in world.contents().items():
            assert world.acknowledged[number] == text

    async def register(self) -> None:
        """Registers some contents."""
        self.process.world.clock.move(seconds=1)
        for _ in range(self.rng.randint(1, 4)):
            self.process.world.register()

    async def restore(self) -> None:
        """Restores to a random target, whatever is lost by it."""
        world = self.process.world
        backups = await self.process.parts.ids()
        history = world.live.history
        targets: list[Target] = [Latest()]
        targets += [AtBackup(self.rng.choice(backups))] if backups else []
        if history:
            targets.append(AtPlace(self.rng.choice(sorted(self.epochs)), self.rng.randint(0, len(history))))
            targets.append(AtTime(self.rng.choice(history).time))
        prepared = await self.process.prepared(self.rng.choice(targets))
        if self.rng.random() < 0.8:
            await self.process.activated(prepared, ALL.format(world.live.epochs[-1].id))

    async def revert(self) -> None:
        """Reverts one of the restores."""
        restore = await self._one(RestoreState.ACTIVE)
        if restore is not None:
            await self.process.reverted(restore, ALL.format(self.process.world.live.epochs[-1].id))

    async def release(self) -> None:
        """Releases one of the restores."""
        restore = await self._one(RestoreState.ACTIVE, RestoreState.REVERTED, RestoreState.PREPARED)
        if restore is not None:
            await self.process.swap.release(restore.id)

    async def lose(self) -> None:
        """Loses the database soon after the archive told of it, and restores what there is."""
        if not await self.process.parts.ids():
            return
        await self.process.archive()
        self.process.world.register()
        del self.process.world.databases["live"]
        await self.process.activated(await self.process.prepared())

    async def _one(self, *states: RestoreState) -> Restore | None:
        found = [each for each in await self.process.journal.list() if each.state in states]
        return self.rng.choice(found) if found else None


async def live(folder: Path, seed: int) -> Story:
    """A story of some length."""
    world = World(HandClock())
    story = Story(process(folder, world), random.Random(seed))
    await story.register()
    await story.process.backup()
    for _ in range(DEEDS):
        await story.deed()
    return story


async def test_histories(tmp_path: Path) -> None:
    """Over random histories of registrations, backups, restores, reverts and losses no id has two contents and no epoch
    is two lines."""
    restored = 0
    for seed in range(SEEDS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        story = await live(folder, seed)
        restored += len(story.epochs) - 1

    assert restored >= SEEDS


@pytest.mark.slow
@pytest.mark.rotating(4)
@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(10))
async def test_many_histories(tmp_path: Path, part: int) -> None:
    """As above, many of them."""
    for seed in range(1000 + part * SEEDS_SLOW // 10, 1000 + (part + 1) * SEEDS_SLOW // 10):
        folder = tmp_path / str(seed)
        folder.mkdir()
        await live(folder, seed)


@dataclass
class RealStory:
    """What happened to a real registry. told: text by schema id. made: the version by request id."""

    calls: Registry
    parts: Assembly
    rng: random.Random
    told: dict[int, str] = field(default_factory=dict)
    made: dict[str, version_pb2.Version] = field(default_factory=dict)
    epochs: set[int] = field(default_factory=lambda: {1})

    def running(self) -> Running:
        """What an operation would tell through."""
        clock = self.parts.repository.clock
        kind = OperationKind.ACTIVATE_RESTORE
        return Running(Operation("x-1", kind, "ann", "", "here", clock.now(), Subject("restore")), clock)

    async def register(self, number: int) -> None:
        """Registers a content, repeating the request until it is acknowledged."""
        text = json.dumps({"title": f"content {number}", "type": "object"})
        request = f"request-{number}"

        async def done() -> bool:
            try:
                made = (await self.calls.register(f"subject-{number % 5}", text, request_id=request)).version
            except (errors.DatabaseUnavailable, errors.WritesFenced, errors.EpochChanged):
                return False
            assert self.told.setdefault(made.schema_id, text) == text
            self.made[request] = made
            return True

        await eventually(done)

    async def purge(self) -> None:
        """Deletes and purges a version, if it is there."""
        version = self.rng.choice([*self.made.values()])
        try:
            await self.calls.delete(version.subject, version.number)
            await self.calls.purge(version.subject, version.number)
        except errors.Error as refused:
            if refused.code.name not in {"NOT_FOUND", "FAILED_PRECONDITION", "UNAVAILABLE"}:
                raise

    async def restore(self, number: int) -> None:
        """Restores to a random target, perhaps reverts, checks and releases it."""
        parts = self.parts
        backups = [entry.id for entry in (await parts.repository.catalog.listing()).entries]
        targets: list[Target] = [Latest(), AtBackup(self.rng.choice(backups))]
        target = self.rng.choice(targets)
        restore_id = parts.repository.new_id()
        await parts.prepare.run(restore_id, Aim(target, Level.V2), self.running())
        await parts.swap.activate(restore_id, ALL.format(max(self.epochs)), self.running())
        await self._began(restore_id)
        await self.register(10_000 + number)
        if self.rng.random() < 0.5:
            await parts.swap.revert(restore_id, ALL.format(max(self.epochs)), self.running())
            await self._began(restore_id)
        checked = await parts.places.check(parts.places.live)
        assert checked.problems == ()
        await parts.swap.release(restore_id)

    async def _began(self, restore_id: str) -> None:
        """Notes the epoch that a swap began."""
        epoch = (await self.parts.journal.get(restore_id)).new_epoch
        assert epoch is not None
        assert epoch not in self.epochs
        self.epochs.add(epoch)


@pytest.mark.rotating(3, "long faults")
@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_real_history(
    make_database: MakeDatabase, make_service: MakeService, assemble_backup: AssembleBackup, rng: random.Random
) -> None:
    """A real registry that registers, deletes and purges between restores and reverts: every id ever acknowledged has
    one content for ever, a request whose effect is there is not run again, and the check finds nothing."""
    url = make_database()
    registry = make_service(url)
    await registry.start_async()
    async with RegistryClient(registry.target) as client, assemble_backup(url) as parts:
        story = RealStory(Registry(client), parts, rng)
        for subject in range(5):
            await story.calls.level(f"subject-{subject}")
        for number in range(REAL_DEEDS * 3):
            await story.register(number)
            if number % 7 == 3:
                await story.purge()
            if number % 10 == 1:
                await parts.make.run(Wanted(Kind.MANUAL), story.running())
            if number % 15 == 14:
                await story.restore(number)
        # What came last before may have been reverted, and would rightly run again.
        await story.register(REAL_DEEDS * 3)
        position = await registry_tools.value(url, "SELECT position FROM registry.head")
        await story.register(REAL_DEEDS * 3)

    assert await registry_tools.value(url, "SELECT position FROM registry.head") == position
    for number, text in json.loads(await registry_tools.value(url, _CONTENTS)):
        assert json.loads(story.told[number]) == json.loads(text)
    assert len(story.epochs) > 3


_CONTENTS = """
SELECT coalesce(json_agg(json_build_array(id, text)), '[]')::text FROM registry.schemas WHERE text IS NOT NULL
"""
