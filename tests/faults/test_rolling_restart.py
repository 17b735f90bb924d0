"""A rolling restart under load: nobody who uses the client as it is notices."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import change_service_pb2, subject_service_pb2
from tests.fix_calls import Registry
from tests.fix_faults import mixed_load
from tests.fix_service import MakeService, Service

Name = Callable[..., str]

CLIENTS = 4
RESTARTS = 2
CATCH_UP_SECONDS = 60
ENDED = {errors.Code.UNAVAILABLE, errors.Code.CANCELLED}
"""Codes of a stream that its server ended for no fault of the caller's."""


@dataclass
class Watcher:
    """Follows the changes, and resumes where a drain ended the stream. subjects: in the order they came."""

    calls: Registry
    prefix: str
    subjects: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    resumed: int = 0

    async def run(self, token: str) -> None:
        """Follows for ever. Raises for anything but a drain."""
        while True:
            request = change_service_pb2.WatchChangesRequest(resume_token=token, subject_prefix=self.prefix)
            try:
                async with aclosing(self.calls.client.stream(self.calls.changes.WatchChanges, request)) as answers:
                    async for answer in answers:
                        self.positions += [change.position for change in answer.changes]
                        self.subjects += [change.event.version_registered.version.subject for change in answer.changes]
                        token = answer.resume_token
            except errors.Error as error:
                if error.code not in ENDED:
                    raise
                self.resumed += 1


async def restart(service: Service) -> None:
    """Replaces a replica as an orchestrator does: SIGTERM, wait for its end, start."""
    assert await service.stop_async() == 0, service.log[-4000:]
    await service.start_async()


@pytest.fixture
async def replicas(make_service: MakeService, database_url: str, valkey_url: str) -> list[Service]:
    """Two replicas on one database."""
    made = [make_service(database_url, valkey_url, server__drain_seconds=2) for _ in range(2)]
    for service in made:
        service.launch()
    for service in made:
        await asyncio.to_thread(service.wait_ready)
    return made


async def roll(replicas: list[Service], name: str, seconds: float) -> None:
    """Rolls all replicas under load for at least so long, and asserts that nobody noticed."""
    ends = time.monotonic() + seconds
    async with AsyncExitStack() as stack:
        targets = [replica.target for replica in replicas]
        registries = [
            Registry(await stack.enter_async_context(RegistryClient(targets[turn % 2 :] + targets[: turn % 2])))
            for turn in range(CLIENTS)
        ]
        calls = registries[0]
        page = await calls.call(calls.changes.ListChanges, change_service_pb2.ListChangesRequest(page_size=1))
        watchers = [Watcher(registry, name) for registry in registries[:2]]
        watching = [asyncio.create_task(watcher.run(page.resume_token)) for watcher in watchers]
        async with mixed_load(registries, name) as load:
            restarts = 0
            while restarts < RESTARTS or time.monotonic() < ends:
                for replica in replicas:
                    await restart(replica)
                restarts += 1
        stored = {subject: await schema_id(calls, subject) for subject in load.acknowledged}
        await caught_up(watchers, watching, set(stored))

    assert load.failures == [], Counter(failure.partition(" after ")[0] for failure in load.failures)
    assert stored == load.acknowledged
    assert min(load.calls.values()) > 50, load.calls
    for watcher in watchers:
        assert watcher.positions == sorted(set(watcher.positions))
        assert len(watcher.subjects) == len(set(watcher.subjects))
        assert watcher.resumed > 0


async def schema_id(calls: Registry, subject: str) -> int:
    """Id of the content of a subject's first version."""
    request = subject_service_pb2.GetVersionRequest(subject=subject, number=1)
    return (await calls.call(calls.subjects.GetVersion, request)).schema.id


async def caught_up(watchers: list[Watcher], watching: list[asyncio.Task[None]], subjects: set[str]) -> None:
    """Waits until every watcher has seen all subjects, and ends it."""
    try:
        async with asyncio.timeout(CATCH_UP_SECONDS):
            while any(not subjects <= set(watcher.subjects) for watcher in watchers):
                assert not any(task.done() for task in watching), [task.exception() for task in watching if task.done()]
                await asyncio.sleep(0.05)
    finally:
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)


async def test_a_rolling_restart_is_not_noticed(replicas: list[Service], name: Name) -> None:
    """Each of two replicas restarts twice under load: no call fails, nothing acknowledged or changed is missed."""
    await roll(replicas, name("rolling"), 10)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_minute_of_rolling_restarts_is_not_noticed(replicas: list[Service], name: Name) -> None:
    """The same, over and over for a minute."""
    await roll(replicas, name("rolling"), 60)
