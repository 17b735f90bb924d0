"""What tests of faults share: polling with a deadline, calls that are tried once, a load, and its bookkeeping."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio
import psycopg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_schema_registry import errors
from llm_schema_registry.client import from_rpc_error
from llm_schema_registry.registry.v1 import (
    schema_pb2,
    schema_service_pb2,
    schema_service_pb2_grpc,
    subject_service_pb2,
    subject_service_pb2_grpc,
    validation_service_pb2_grpc,
)

if TYPE_CHECKING:  # Imported at run time, it would be there before pytest could register it as a plugin.
    from tests.fix_calls import Registry
    from tests.fix_service import Service

Answer = TypeVar("Answer")

POLL_SECONDS = 0.05
LIMIT_SECONDS = 60.0
LOAD_WORKERS = 8
PAUSE_SECONDS = 0.02
"""After a refused call, so that a load does not only count refusals."""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def eventually(holds: Callable[[], Awaitable[bool]], limit_seconds: float = LIMIT_SECONDS) -> float:
    """Waits until it holds and returns the seconds that took. Fails after the limit."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() < began + limit_seconds, f"not within {limit_seconds:g} s"
        await asyncio.sleep(POLL_SECONDS)
    return time.monotonic() - began


class Once:
    """Calls to one process that are tried once: what the process answers is what the test sees."""

    def __init__(self, target: str) -> None:
        options = [
            ("grpc.enable_retries", 0),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self.channel = grpc.aio.insecure_channel(target, options=options)
        self.schemas = schema_service_pb2_grpc.SchemaServiceStub(self.channel)
        self.subjects = subject_service_pb2_grpc.SubjectServiceStub(self.channel)
        self.validation = validation_service_pb2_grpc.ValidationServiceStub(self.channel)
        self._health: Any = health_pb2_grpc.HealthStub(self.channel)

    async def call(self, method: Any, request: Any, *, timeout_seconds: float = 30) -> Any:
        """The answer to a unary call. Raises the server's error."""
        try:
            return await method(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError as failed:
            raise from_rpc_error(failed) from None

    async def register(self, subject: str, schema: object, **options: Any) -> schema_service_pb2.RegisterSchemaResponse:
        """Registers a JSON Schema: text, or a value that becomes text."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        request = schema_service_pb2.RegisterSchemaRequest(
            subject=subject, format=schema_pb2.SCHEMA_FORMAT_JSON, text=text
        )
        answer: schema_service_pb2.RegisterSchemaResponse = await self.call(
            self.schemas.RegisterSchema, request, **options
        )
        return answer

    async def schema(self, schema_id: int, **options: Any) -> schema_pb2.Schema:
        """A content."""
        request = schema_service_pb2.GetSchemaRequest(id=schema_id)
        answer: schema_service_pb2.GetSchemaResponse = await self.call(self.schemas.GetSchema, request, **options)
        return answer.schema

    async def raw(self, method: str, payload: bytes) -> bytes:
        """Sends bytes to a method, whatever they are, and returns those of the answer. Raises the server's error."""
        answer: bytes = await self.call(self.channel.unary_unary(method), payload)
        return answer

    async def health(self, name: str = "") -> int:
        """Status of a name of grpc.health.v1."""
        answer = await self.call(self._health.Check, health_pb2.HealthCheckRequest(service=name))
        status: int = answer.status
        return status


@asynccontextmanager
async def once(service: Service) -> AsyncIterator[Once]:
    """Calls that are tried once, on a connection of their own."""
    calls = Once(service.target)
    async with calls.channel:
        yield calls


@dataclass
class Registrations:
    """A load of registrations. acknowledged: schema id of each subject. refused: the errors of the others."""

    prefix: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: list[errors.Error] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    async def run(self, calls: Once) -> None:
        """Registers one subject after the other, for ever."""
        while True:
            subject = f"{self.prefix}/{next(self._numbers)}"
            try:
                made = await calls.register(subject, {"title": subject})
            except errors.Error as error:
                self.refused.append(error)
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                self.acknowledged[subject] = made.schema.id

    async def grow(self, count: int = 20) -> None:
        """Waits until so many more registrations were acknowledged."""
        wanted = len(self.acknowledged) + count

        async def grown() -> bool:
            return len(self.acknowledged) >= wanted

        await eventually(grown)


@asynccontextmanager
async def registrations(calls: Once, prefix: str, workers: int = LOAD_WORKERS) -> AsyncIterator[Registrations]:
    """A load of registrations that runs during the block. What is in flight at its end is neither."""
    load = Registrations(prefix)
    tasks = [asyncio.create_task(load.run(calls)) for _ in range(workers)]
    try:
        yield load
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass
class Load:
    """Mixed calls of several clients. acknowledged: schema id of each registration. failures: what failed, and how."""

    prefix: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self, registry: Registry, worker: int) -> None:
        """Registers, and reads what was registered, until it is over. Nothing is repeated here."""
        number = 0
        while not self.over.is_set():
            number += 1
            subject = f"{self.prefix}/{worker}/{number}"
            made = await self._count("register", registry.register(subject, {"title": subject}))
            if made is None:
                continue
            self.acknowledged[subject] = made.schema.id
            latest = subject_service_pb2.GetVersionRequest(subject=subject, latest=True)
            listed = subject_service_pb2.ListVersionsRequest(subject=subject)
            await self._count("get", registry.schema(made.schema.id))
            await self._count("latest", registry.call(registry.subjects.GetVersion, latest))
            await self._count("list", registry.call(registry.subjects.ListVersions, listed))

    async def _count(self, name: str, call: Awaitable[Answer]) -> Answer | None:
        """The answer of a call; None when it failed, which is noted."""
        self.calls[name] += 1
        began = time.monotonic()
        try:
            return await call
        except errors.Error as error:
            self.failures.append(f"{name} after {time.monotonic() - began:.3f} s: {error.reason} {error.message}")
            return None


@asynccontextmanager
async def mixed_load(registries: Sequence[Registry], prefix: str) -> AsyncIterator[Load]:
    """A load that runs during the block, LOAD_WORKERS over the clients. At its end every call is waited for."""
    load = Load(prefix)
    working = [
        asyncio.create_task(load.work(registries[worker % len(registries)], worker)) for worker in range(LOAD_WORKERS)
    ]
    try:
        yield load
    finally:
        load.over.set()
        await asyncio.gather(*working)


async def assert_history_whole(database_url: str, acknowledged: dict[str, int]) -> None:
    """Everything acknowledged is there; every change has its version and every version its change; no gaps."""
    statements = (
        "SELECT subject, schema_id FROM registry.versions",
        "SELECT subject FROM registry.changes WHERE kind = 'version_registered' ORDER BY position",
        "SELECT position FROM registry.changes ORDER BY position",
        "SELECT position FROM registry.head",
        "SELECT name FROM registry.subjects",
        "SELECT id FROM registry.schemas",
    )
    async with await psycopg.AsyncConnection.connect(database_url) as database:
        # One snapshot: a call that nobody waits for any longer may commit meanwhile.
        await database.set_isolation_level(psycopg.IsolationLevel.REPEATABLE_READ)
        rows = [await (await database.execute(statement.encode())).fetchall() for statement in statements]
    versions: dict[str, int] = dict(rows[0])
    changed, positions, head, subjects, schemas = ([row[0] for row in found] for found in rows[1:])
    assert acknowledged.items() <= versions.items()
    assert sorted(changed) == sorted(versions)
    assert positions == list(range(1, len(positions) + 1))
    assert head == [len(positions)]
    assert set(subjects) == set(versions)
    assert set(schemas) == set(versions.values())


@asynccontextmanager
async def head_locked(database_url: str) -> AsyncIterator[None]:
    """Holds the row that every commit updates last: meanwhile nobody can commit."""
    async with await psycopg.AsyncConnection.connect(database_url) as database:
        await database.execute("SELECT FROM registry.head FOR UPDATE")
        yield
        await database.rollback()


async def waits_for_head(database_url: str, count: int = 1) -> None:
    """Waits until so many statements of registries wait for a lock."""
    statement = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as database:

        async def waiting() -> bool:
            rows: Sequence[Any] = await (await database.execute(statement)).fetchall()
            return bool(rows[0][0] >= count)

        await eventually(waiting)
