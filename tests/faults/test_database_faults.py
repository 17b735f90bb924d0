"""The registry while its servers fail: PostgreSQL gone, slow, busy, fenced, of another epoch, late; Valkey gone."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import change_service_pb2, subject_service_pb2
from tests.fix_calls import Registry
from tests.fix_faults import (
    NOT_SERVING,
    SERVING,
    assert_history_whole,
    eventually,
    head_locked,
    once,
    registrations,
    waits_for_head,
)
from tests.fix_postgres import OwnPostgres
from tests.fix_service import MakeService, Service
from tests.fix_valkey import OwnValkey

Name = Callable[..., str]
RECOVERY_SECONDS_MAX = 20
"""The product's own bound is a few seconds; the rest is for a busy machine."""
STATEMENT_SECONDS = 6
"""Long enough for a call behind the statement to give up first, on a busy machine too."""
WATCHFUL = {"health__poll_seconds": 0.2, "health__failure_threshold": 2}
"""Options of a registry that notices within a second."""


async def document(service: Service, path: str = "/health/ready") -> tuple[int, dict[str, Any]]:
    """Status and body of a health page."""
    status, body = await asyncio.to_thread(service.http, path)
    return status, json.loads(body)


async def becomes_ready(service: Service, *, ready: bool) -> float:
    """Waits until the readiness page says so."""

    async def says_so() -> bool:
        return (await document(service))[0] == (200 if ready else 503)

    return await eventually(says_so)


@pytest.mark.parametrize("crash", [False, True], ids=["stopped", "crashed"])
async def test_postgresql_goes_and_comes_back_under_load(
    own_postgres: Callable[..., OwnPostgres], make_service: MakeService, name: Name, *, crash: bool
) -> None:
    """Refusals are UNAVAILABLE with retry information, the process is not ready but lives, and recovers by itself."""
    server = own_postgres(durable=crash)
    url = server.create_database("registry")
    service = make_service(url, database__connection_timeout_seconds=2, **WATCHFUL)
    await service.start_async()

    async with once(service) as calls, registrations(calls, name()) as load:
        await load.grow()
        await (server.kill_async() if crash else server.stop_async())
        await becomes_ready(service, ready=False)
        assert (await document(service, "/health/live"))[0] == 200
        assert [await calls.health(of) for of in ("", "readiness", "liveness")] == [NOT_SERVING, NOT_SERVING, SERVING]
        refused = len(load.refused)

        async def still_answered() -> bool:
            return len(load.refused) >= refused + 20

        await eventually(still_answered)
        await server.start_async()
        recovered = await becomes_ready(service, ready=True)
        await load.grow()

    assert recovered < RECOVERY_SECONDS_MAX
    assert {type(error) for error in load.refused} == {errors.DatabaseUnavailable}
    assert all(error.retry_seconds for error in load.refused)
    assert all("psycopg" not in error.message and "127.0.0.1" not in error.message for error in load.refused)
    await assert_history_whole(url, load.acknowledged)


async def test_slow_and_busy_postgresql(make_service: MakeService, database_url: str, name: Name) -> None:
    """A statement that takes too long is a deadline, a pool without a free connection says so; both leave nothing."""
    options = {"database__pool_max": 1, "database__connection_timeout_seconds": 1}
    service = make_service(database_url, database__statement_timeout_seconds=STATEMENT_SECONDS, **options)
    await service.start_async()
    slow, waiting, short = name(), name(), name()
    async with once(service) as calls:
        await calls.register(name(), {"title": "before"})

        async with head_locked(database_url):
            commit = asyncio.create_task(calls.register(slow, {"title": slow}))
            await waits_for_head(database_url)
            with pytest.raises(errors.PoolExhausted) as exhausted:
                await calls.register(waiting, {"title": waiting})
            with pytest.raises(errors.Deadline):
                await commit
            began = time.monotonic()
            with pytest.raises(errors.Deadline):
                await calls.register(short, {"title": short}, timeout_seconds=0.7)
            waited = time.monotonic() - began

        after = await calls.register(name(), {"title": "after"})

    assert exhausted.value.retry_seconds
    assert waited < STATEMENT_SECONDS, "the caller's deadline ends the work before the statement timeout does"
    assert after.created

    async def few() -> bool:
        # The server ends a session that was closed a moment after its client did.
        return await connections(database_url) <= 2

    # The pool's one and the one that listens.
    await eventually(few)
    assert await subjects(database_url) == 2, "nothing of what was refused was written"


async def connections(database_url: str) -> int:
    """How many connections registries have to a database."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'llm_schema_registry%'"
    )
    return await number(database_url, statement)


async def subjects(database_url: str) -> int:
    """How many subjects there are in the tables."""
    return await number(database_url, "SELECT count(*) FROM registry.subjects")


async def number(database_url: str, statement: str) -> int:
    """The one number that a statement returns."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as database:
        row: Any = await (await database.execute(statement.encode())).fetchone()
        return int(row[0])


async def execute(database_url: str, *statements: str) -> None:
    """Runs statements in one transaction, as an operator or another program would."""
    async with await psycopg.AsyncConnection.connect(database_url) as database:
        for statement in statements:
            await database.execute(statement.encode())


async def test_fence_and_new_epoch_under_a_running_process(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """While fenced, writes are refused and reads go on; after a restore watchers resync and writes go on."""
    service = make_service(database_url)
    await service.start_async()
    async with once(service) as calls, RegistryClient(service.target) as client:
        registry = Registry(client)
        made = await calls.register(name(), {"title": "before"})
        watch = client.stream(client.changes.WatchChanges, change_service_pb2.WatchChangesRequest(now=True))
        async with aclosing(watch):
            await anext(watch)

            await execute(database_url, "UPDATE registry.head SET fenced = true")
            with pytest.raises(errors.WritesFenced) as fenced:
                await calls.register(name(), {"title": "fenced"})
            latest = subject_service_pb2.GetVersionRequest(subject=made.version.subject, latest=True)
            read = await registry.call(registry.subjects.GetVersion, latest)
            await execute(
                database_url,
                "INSERT INTO registry.epochs (id, parent, fork_position, start_time)"
                " SELECT 2, epoch, position, now() FROM registry.head",
                "UPDATE registry.head SET epoch = 2, fenced = false",
            )
            with pytest.raises(errors.EpochChanged, match="read everything again"):
                await asyncio.wait_for(anext(watch), RECOVERY_SECONDS_MAX)

        after = await calls.register(name(), {"title": "after"})
        page = await registry.call(registry.changes.ListChanges, change_service_pb2.ListChangesRequest())
        second = change_service_pb2.ListChangesRequest(resume_token=page.changes[0].resume_token)
        rest = await registry.call(registry.changes.ListChanges, second)

    assert fenced.value.retry_seconds
    assert read.version == made.version
    assert after.created
    assert [(change.epoch, change.position) for change in page.changes] == [(1, 1), (2, 2)]
    assert [change.position for change in rest.changes] == [2], "the history before the restore is read on in it"


async def test_valkey_goes_and_comes_back(
    own_valkey: Callable[[], OwnValkey], make_service: MakeService, database_url: str, name: Name
) -> None:
    """Without Valkey the process is degraded and ready, answers the same, and no call waits for it for long."""
    server = own_valkey()
    service = make_service(database_url, server.url, cache__memory_bytes_max=0, **WATCHFUL)
    await service.start_async()

    async def status(wanted: str) -> None:
        async def is_so() -> bool:
            code, body = await document(service)
            assert code == 200, "Valkey never decides about readiness"
            return bool(body["status"] == wanted)

        await eventually(is_so)

    async with once(service) as calls:
        await status("HEALTHY")
        made = await calls.register(name(), {"title": "with"})
        await calls.schema(made.schema.id)

        await server.stop_async()
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            without = await calls.register(name(), {"title": name()})
            assert await calls.schema(without.schema.id) == without.schema
            assert await calls.schema(made.schema.id) == made.schema
            slowest = max(slowest, time.monotonic() - began)
        await status("DEGRADED")
        assert await calls.health() == SERVING

        await server.start_async()
        await status("HEALTHY")
        assert await calls.schema(made.schema.id) == made.schema

    assert slowest < 5, "a call waited for Valkey"


async def test_newer_tables_are_refused(make_service: MakeService, database_url: str) -> None:
    """Code that is older than a migration allows does not start, and says what to do."""
    service = make_service(database_url)
    await service.start_async()
    assert await service.stop_async() == 0
    await execute(
        database_url,
        "INSERT INTO registry.migrations (number, name, checksum, min_code_version)"
        " VALUES ((SELECT max(number) + 1 FROM registry.migrations), 'later', 'x', '9.0.0')",
    )

    service.launch()
    status = await asyncio.to_thread(service.wait)

    assert status == 1
    (told,) = (line for line in service.log_lines() if line["event"] == "start failed")
    assert "needs version 9.0.0 or later" in told["message"]
    assert "start a later version" in told["message"]


async def test_a_database_that_is_late_is_waited_for(
    own_postgres: Callable[..., OwnPostgres], make_service: MakeService, name: Name
) -> None:
    """The process waits for its database and starts when it comes; when it never comes, it ends and says so."""
    server = own_postgres()
    url = server.create_database("registry")
    await server.stop_async()
    patient = make_service(url, server__startup_timeout_seconds=120)
    impatient = make_service(url, server__startup_timeout_seconds=1)

    for service in (patient, impatient):
        service.launch()
    gave_up = await asyncio.to_thread(impatient.wait)
    await eventually(lambda: told(patient, "waiting for dependency"))
    await server.start_async()
    await asyncio.to_thread(patient.wait_ready)

    async with once(patient) as calls:
        assert (await calls.register(name(), {"title": "late"})).created
    assert gave_up == 1
    (failed,) = (line for line in impatient.log_lines() if line["event"] == "start failed")
    assert "postgresql was not there within 1 s" in failed["message"]


async def told(service: Service, event: str) -> bool:
    """Whether a process has logged an event."""
    return any(line["event"] == event for line in service.log_lines())
