"""registry.v1.ChangeService over a real channel: resumable, without gap and without duplicate."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import change_pb2, version_pb2
from llm_schema_registry.registry.v1 import change_service_pb2 as pb
from llm_schema_registry.registry.v1 import subject_service_pb2 as subject_pb
from tests.fix_calls import Registry
from tests.fix_service import MakeService

Name = Callable[..., str]


async def listed(calls: Registry, **fields: Any) -> list[change_pb2.Change]:
    """Every change, page by page."""
    seen: list[change_pb2.Change] = []
    token = fields.pop("resume_token", "")
    while True:
        page = await calls.call(calls.changes.ListChanges, pb.ListChangesRequest(resume_token=token, **fields))
        seen += page.changes
        token = page.resume_token
        if not page.more:
            return seen


async def watched(calls: Registry, count: int, **fields: Any) -> list[change_pb2.Change]:
    """The first `count` changes of a watch."""
    seen: list[change_pb2.Change] = []
    request = pb.WatchChangesRequest(**fields)
    async with aclosing(calls.client.stream(calls.changes.WatchChanges, request)) as answers:
        async for answer in answers:
            seen += answer.changes
            if len(seen) >= count:
                return seen
    raise AssertionError("the watch ended by itself")


async def test_every_mutation_is_one_change_with_its_full_value(calls: Registry, name: Name) -> None:
    """Register, update, transition, roll back, delete, purge, settings: in order, by whom, with what."""
    subject = name()
    made = await calls.register(subject, {"title": subject})
    await calls.level(subject)
    await calls.register(subject, {"title": "second"})
    updated = await calls.call(
        calls.subjects.UpdateVersion,
        subject_pb.UpdateVersionRequest(version=version_pb2.Version(subject=subject, number=1, owner="red")),
    )
    await calls.call(calls.subjects.RollbackSubject, subject_pb.RollbackSubjectRequest(subject=subject, number=1))
    archived = await calls.call(
        calls.subjects.TransitionVersion,
        subject_pb.TransitionVersionRequest(subject=subject, number=2, state=version_pb2.VERSION_STATE_ARCHIVED),
    )
    await calls.delete(subject, 2)
    purged = await calls.purge(subject, 2)
    await calls.call(calls.subjects.ResetConfig, subject_pb.ResetConfigRequest(subject=subject))

    changes = [change for change in await listed(calls, subject_prefix=subject) if change.actor == "local"]

    events = [change.event for change in changes]
    assert [event.WhichOneof("kind") for event in events] == [
        "version_registered",
        "config_updated",
        "version_registered",
        "version_updated",
        "subject_rolled_back",
        "version_transitioned",
        "versions_deleted",
        "versions_purged",
        "config_updated",
    ]
    assert events[0].version_registered.version == made.version
    assert events[0].version_registered.schema == made.schema
    assert events[3].version_updated.version == updated.version
    assert list(events[4].subject_rolled_back.deprecated_versions) == [2]
    assert events[5].version_transitioned.version == archived.version
    assert getattr(events[5].version_transitioned, "from") == version_pb2.VERSION_STATE_DEPRECATED
    assert list(events[6].versions_deleted.versions) == [2]
    assert list(events[7].versions_purged.schema_ids) == purged
    assert not events[8].config_updated.HasField("config")


async def test_positions_have_no_gaps(calls: Registry, name: Name) -> None:
    """Also under concurrent writers: the list is the whole history."""
    await asyncio.gather(*(calls.register(name(), {"title": name()}) for _ in range(30)))

    positions = [change.position for change in await listed(calls, view=pb.CHANGE_VIEW_BASIC, page_size=1000)]

    assert positions == list(range(1, len(positions) + 1))


async def test_a_watch_begins_where_its_token_says(calls: Registry, name: Name) -> None:
    """Resuming after the k-th change gives the rest, each once."""
    subject = name()
    await calls.versions(subject, 5)
    changes = await listed(calls, subject_prefix=subject)

    for index in (0, 2, 5):
        rest = changes[index + 1 :]
        seen = (
            await watched(calls, len(rest), resume_token=changes[index].resume_token, subject_prefix=subject)
            if rest
            else []
        )
        assert [change.position for change in seen] == [change.position for change in rest]


async def test_a_watch_from_now_sees_what_comes(calls: Registry, name: Name) -> None:
    """The first answer holds the token; then every change as it happens."""
    subject = name()
    await calls.register(subject, {"title": "before"})
    request = pb.WatchChangesRequest(now=True, subject_prefix=subject)

    async with aclosing(calls.client.stream(calls.changes.WatchChanges, request)) as answers:
        first = await anext(answers)
        await calls.level(subject)
        made = await calls.register(subject, {"title": "after"})
        seen: list[change_pb2.Change] = []
        while len(seen) < 2:
            seen += (await anext(answers)).changes

    assert first.resume_token
    assert list(first.changes) == []
    assert [change.event.WhichOneof("kind") for change in seen] == ["config_updated", "version_registered"]
    assert seen[1].event.version_registered.version == made.version


async def test_watchers_under_load_miss_nothing(calls: Registry, name: Name) -> None:
    """Five watchers see every one of 200 concurrent registrations once, in one order."""
    prefix = name("load")
    start = (await calls.call(calls.changes.ListChanges, pb.ListChangesRequest(page_size=1))).resume_token
    watchers = [asyncio.create_task(watched(calls, 200, resume_token=start, subject_prefix=prefix)) for _ in range(5)]

    await asyncio.gather(*(calls.register(f"{prefix}/{number}", {"title": name()}) for number in range(200)))
    seen = await asyncio.wait_for(asyncio.gather(*watchers), 60)

    orders = {tuple(change.position for change in changes) for changes in seen}
    assert len(orders) == 1
    (order,) = orders
    assert list(order) == sorted(set(order))
    subjects = {change.event.version_registered.version.subject for change in seen[0]}
    assert subjects == {f"{prefix}/{number}" for number in range(200)}


async def test_a_view_without_texts(calls: Registry, name: Name) -> None:
    """BASIC leaves the texts out and nothing else."""
    subject = name()
    made = await calls.register(subject, {"title": subject})

    (basic,) = await listed(calls, subject_prefix=subject, view=pb.CHANGE_VIEW_BASIC)

    assert basic.event.version_registered.schema.id == made.schema.id
    assert basic.event.version_registered.schema.text == ""


def token(epoch: int, position: int) -> str:
    return base64.urlsafe_b64encode(f"1.{epoch}.{position}".encode()).decode().rstrip("=")


@pytest.mark.parametrize("bad", ["?", "x" * 5000, "MS4x", "é"])
async def test_a_token_that_is_none_is_refused(calls: Registry, bad: str) -> None:
    """Both methods name the field."""
    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(calls.changes.ListChanges, pb.ListChangesRequest(resume_token=bad))
    assert caught.value.violations[0].field == "resume_token"
    with pytest.raises(errors.InvalidField):
        await watched(calls, 1, resume_token=bad)


async def test_a_token_of_another_epoch_says_resync(calls: Registry) -> None:
    """A restore began a new line of history: what was read no longer counts."""
    with pytest.raises(errors.EpochChanged, match="read everything again"):
        await watched(calls, 1, resume_token=token(7, 1))


async def test_a_position_that_was_not_reached_is_refused(calls: Registry) -> None:
    """Not silently waited for: the token is from somewhere else."""
    with pytest.raises(errors.PositionUnknown):
        await watched(calls, 1, resume_token=token(1, 10**12))


async def test_a_position_below_the_floor_is_refused(make_service: MakeService, database_url: str, name: Name) -> None:
    """Changes that are no longer kept are not skipped: the reader is told, before and during a watch."""
    service = make_service(database_url)
    await service.start_async()
    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        subject = name()
        await calls.versions(subject, 4)
        changes = await listed(calls)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as database:
            await database.execute("DELETE FROM registry.request_ids WHERE position <= 2")
            await database.execute("DELETE FROM registry.changes WHERE position <= 2")
            await database.execute("UPDATE registry.head SET floor = 2")

        with pytest.raises(errors.PositionExpired):
            await watched(calls, 1, resume_token=changes[0].resume_token)
        kept = await listed(calls)

    assert [change.position for change in kept] == [3, 4, 5]


async def test_a_watch_goes_on_after_a_restart_of_the_server(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """A client that resumes from its last token sees every change once, whatever happened to the server."""
    service = make_service(database_url)
    await service.start_async()
    subject = name()
    seen: list[int] = []
    last = ""

    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        await calls.level(subject)
        for round_ in range(3):
            await calls.register(subject, {"title": f"a{round_}"})
            await calls.register(subject, {"title": f"b{round_}"})
            async with aclosing(_answers(calls, last)) as answers:
                async for answer in answers:
                    seen += [change.position for change in answer.changes]
                    last = answer.resume_token
                    if len(seen) == 1 + 2 * (round_ + 1):
                        break
            if round_ == 0:
                service.kill()
                await service.start_async()
            if round_ == 1:
                await service.stop_async()
                await service.start_async()

    assert seen == list(range(1, 8))


async def test_a_drain_ends_watches_with_a_status_that_says_resume(
    make_service: MakeService, database_url: str
) -> None:
    """NOT_SERVING with retry information, before the server stops; the shutdown does not wait for the watcher."""
    service = make_service(database_url)
    await service.start_async()
    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        answers = calls.client.stream(calls.changes.WatchChanges, pb.WatchChangesRequest(now=True))
        await anext(answers)

        stopping = asyncio.create_task(service.stop_async())
        with pytest.raises(errors.NotServing) as caught:
            await anext(answers)

        assert await stopping == 0
    assert caught.value.retry_seconds is not None


async def _answers(calls: Registry, resume_token: str) -> AsyncGenerator[pb.WatchChangesResponse, None]:
    request = pb.WatchChangesRequest(resume_token=resume_token) if resume_token else pb.WatchChangesRequest()
    async with aclosing(calls.client.stream(calls.changes.WatchChanges, request)) as answers:
        async for answer in answers:
            yield answer
