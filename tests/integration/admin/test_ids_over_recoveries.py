"""Random histories of a real registry and recoveries of it: an id of a lost epoch is never given again."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.backup.v1 import backup_pb2, restore_pb2
from llm_schema_registry.client import RegistryClient, error_of
from llm_schema_registry.operation.v1 import operation_pb2
from tests import registry_tools
from tests.fix_admin import MakeAdminService
from tests.fix_backup import MakeBackupService
from tests.fix_calls import Registry
from tests.fix_postgres import MakeDatabase
from tests.fix_service import MakeService, Service
from tests.recovery_site import LATEST, Site, site
from tests.restore_site import Ledger, load, make_backup

RECOVERIES = 4
DEEDS_MAX = 8
"""Between two recoveries."""
WRITES_MAX = 5
AHEAD = 10_000
"""Changes that may be lost beyond those there are: clients write until the swap."""
CONFIRMATIONS_MAX = 5


@dataclass
class Story:
    """What happens to a registry of two replicas. backups: newest last. epochs: every one that ever served. gone: the
    database is, until the next recovery has ended."""

    url: str
    place: Site
    clients: list[Registry]
    rng: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    backups: list[backup_pb2.Backup] = field(default_factory=list)
    epochs: set[int] = field(default_factory=lambda: {1})
    lost: int = 0
    gone: bool = False

    async def deed(self) -> None:
        """Does something at random between two recoveries."""
        deeds: list[tuple[int, Callable[[], Awaitable[object]]]] = [
            (8, self.write),
            (2, self.purge),
            (2, self.back_up),
            (1, self.restart),
        ]
        weights, choices = zip(*deeds, strict=True)
        await self.rng.choices(choices, weights)[0]()

    async def write(self) -> None:
        """Registers contents that nobody registered before, at either replica: each has ids in store."""
        for _ in range(self.rng.randint(1, WRITES_MAX)):
            await self.ledger.write(self.rng.choice(self.clients), "told")

    async def purge(self) -> None:
        """Deletes and purges a version, if it is there: its id is not given again either."""
        if self.ledger.versions:
            subject, number = self.rng.choice([*self.ledger.versions])
            calls = self.rng.choice(self.clients)
            with suppress(errors.SubjectNotFound, errors.VersionNotFound):
                await calls.delete(subject, number)
                await calls.purge(subject, number)

    async def back_up(self) -> None:
        """Makes a backup."""
        self.backups.append(await make_backup(self.place.backup))

    async def restart(self) -> None:
        """Kills a replica and starts it again: the ids that it had in store are gone."""
        service = self.rng.choice([*self.place.registries])
        service.kill()
        await service.start_async()

    async def recover(self) -> None:
        """Recovers to a random moment under writers, whatever is lost, or goes back where that is to be confirmed; now
        and then the database is gone before. Where the moment cannot be reached, to the newest change."""
        self.gone = self.rng.random() < 0.25
        if self.gone:
            server, name = self.url.rsplit("/", 1)
            await registry_tools.execute(f"{server}/postgres", f"DROP DATABASE {name} WITH (FORCE)")
        policies: dict[str, Any] = {
            "traffic": self.rng.choice(recovery_pb2.TrafficPolicy.values()),
            "safety": self.rng.choice(recovery_pb2.SafetyPolicy.values()),
        }
        async with AsyncExitStack() as stack:
            for number, service in enumerate(self.place.registries):
                during = load(service.target, self.ledger, f"during-{number}", writers=1, readers=0)
                await stack.enter_async_context(during)
            if not await self.ended(await self.place.start(self.target(), **policies)):
                assert await self.ended(await self.place.start(LATEST, **policies))
        self.lost += len(await self.ledger.lost(self.url))
        assert self.ledger.twice == []
        epoch = await registry_tools.value(self.url, "SELECT epoch FROM registry.head")
        assert epoch >= max(self.epochs), "an older epoch serves"
        self.epochs.add(epoch)

    def target(self) -> restore_pb2.RestoreTarget:
        """Where to."""
        backup = self.rng.choice(self.backups)
        place = restore_pb2.HistoryPlace(epoch=backup.epoch, position=backup.position + self.rng.randint(0, WRITES_MAX))
        return self.rng.choice(
            [
                LATEST,
                restore_pb2.RestoreTarget(backup_id=backup.id),
                restore_pb2.RestoreTarget(time=backup.end_time),
                restore_pb2.RestoreTarget(place=place),
            ]
        )

    async def ended(self, operation: operation_pb2.Operation) -> bool:
        """Ends a recovery: confirms what it would lose, as often as that grows, or aborts it. False where its target
        cannot be reached."""
        for _ in range(CONFIRMATIONS_MAX):
            ended = await self.place.ended(operation)
            if not ended.HasField("error"):
                return True
            refused = error_of(ended.error)
            recovery_id = refused.metadata["recovery_id"]
            if isinstance(refused, errors.TargetUnreachable):
                if (await self.place.get(recovery_id)).state == recovery_pb2.RECOVERY_STATE_STOPPED:
                    await self.place.done(await self.place.abort(recovery_id))
                return False
            assert isinstance(refused, errors.LossWindowChanged), refused
            if not self.gone and self.rng.random() < 0.2:
                await self.place.done(await self.place.abort(recovery_id))
                return True
            operation = await self.place.resume(recovery_id, confirmation(refused))
        raise AssertionError(f"still not confirmed: {refused}")


def confirmation(refused: errors.Error) -> str:
    """Confirms everything that a window holds, and what comes yet."""
    epoch, position = refused.metadata["live_place"].split("/")
    return f"{refused.metadata['changes']}@{epoch}/{int(position) + AHEAD}"


@pytest.fixture
async def story(
    make_database: MakeDatabase,
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    make_admin_service: MakeAdminService,
    tmp_path: Path,
    rng: random.Random,
) -> AsyncIterator[Story]:
    """The beginning of one: two replicas, some content, a backup."""
    url = make_database()
    registries: list[Service] = [make_service(url), make_service(url)]
    for each in registries:
        await each.start_async()
    async with AsyncExitStack() as stack:
        clients = [Registry(await stack.enter_async_context(RegistryClient(each.target))) for each in registries]
        backup_service = make_backup_service(url)
        place = await stack.enter_async_context(
            site(registries, backup_service, make_admin_service, tmp_path / "admin", url)
        )
        made = Story(url, place, clients, rng)
        await made.write()
        await made.back_up()
        yield made


@pytest.mark.slow
@pytest.mark.rotating(3)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("part", range(3))
async def test_no_id_of_a_lost_epoch_is_given_again(story: Story, part: int) -> None:
    """Two replicas register, purge, restart and are recovered again and again, to the newest change, a backup, a moment
    or a place, with and without the database: no id ever told means two contents, and no older epoch ever serves."""
    for _ in range(RECOVERIES):
        for _ in range(story.rng.randint(1, DEEDS_MAX)):
            await story.deed()
        await story.recover()
    await story.write()

    assert (await registry_tools.run(story.url, "check")).result["problems"] == []
    assert story.ledger.twice == []
    assert len(story.epochs) > 1, f"nothing was recovered in part {part}"
