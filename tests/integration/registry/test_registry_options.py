"""Options of the database and of the registry's own limits: each changes what the process does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import psycopg
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient, from_rpc_error
from llm_schema_registry.registry.v1 import (
    schema_pb2,
    schema_service_pb2,
    schema_service_pb2_grpc,
    validation_service_pb2,
)
from tests.fix_calls import Registry
from tests.fix_postgres import MakeDatabase, OwnPostgres
from tests.fix_service import MakeService, ServiceFailed
from tests.fix_tls import Authority

Name = Callable[..., str]
APPLICATION = "llm_schema_registry registry"
BELL = 1
"""Connections beside the pool: the one that listens for changes."""
SETTLED_LOOKS = 10
"""In a row that find the same."""
STATEMENT_SECONDS = 5
"""Long enough for a caller behind the statement to give up first, on a busy machine too."""


@asynccontextmanager
async def writes_held_up(database_url: str) -> AsyncIterator[None]:
    """Locks the head, so that every commit waits."""
    async with await psycopg.AsyncConnection.connect(database_url) as database:
        await database.execute("SELECT 1 FROM registry.head FOR UPDATE")
        yield
        await database.rollback()


def connections(database_url: str) -> int:
    """Connections of registries to a database."""
    with psycopg.connect(database_url, autocommit=True) as database:
        row = database.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND datname = current_database()",
            [APPLICATION],
        ).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.option("database.url")
async def test_each_registry_has_the_database_of_its_url(
    make_service: MakeService, make_database: MakeDatabase, name: Name
) -> None:
    """What one database holds the other does not."""
    one, two = make_service(make_database()), make_service(make_database())
    await one.start_async()
    await two.start_async()

    async with RegistryClient(one.target) as first, RegistryClient(two.target) as second:
        made = await Registry(first).register(name(), {})
        assert await Registry(first).schema(made.schema.id) == made.schema
        with pytest.raises(errors.SchemaNotFound):
            await Registry(second).schema(made.schema.id)


async def settled(database_url: str, count: int) -> None:
    """Returns when there are so many connections, and stay: those of the start's own work end beside it."""
    same = 0
    async with asyncio.timeout(60):
        while same < SETTLED_LOOKS:
            same = same + 1 if connections(database_url) == count else 0
            await asyncio.sleep(0.02)


@pytest.mark.option("database.pool_min", "database.pool_max")
async def test_the_pool_has_the_size_it_was_given(make_service: MakeService, database_url: str, name: Name) -> None:
    """pool_min connections are there at the start; with more callers than pool_max the rest wait, and all succeed."""
    service = make_service(database_url, database__pool_min=2, database__pool_max=3)
    await service.start_async()
    await settled(database_url, 2 + BELL)

    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        async with writes_held_up(database_url):
            waiting = [asyncio.create_task(calls.register(name(), {"title": name()})) for _ in range(8)]
            await settled(database_url, 3 + BELL)
        await asyncio.gather(*waiting)


@pytest.mark.option("database.connection_timeout_seconds", "database.statement_timeout_seconds")
async def test_waiting_ends_when_the_options_say(make_service: MakeService, database_url: str, name: Name) -> None:
    """A caller waits for a connection, and a statement for its lock, no longer than allowed."""
    service = make_service(
        database_url,
        database__pool_min=1,
        database__pool_max=1,
        database__connection_timeout_seconds=0.3,
        database__statement_timeout_seconds=STATEMENT_SECONDS,
    )
    await service.start_async()

    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        request = schema_service_pb2.RegisterSchemaRequest(
            subject=name(), format=schema_pb2.SCHEMA_FORMAT_JSON, text="{}"
        )
        async with writes_held_up(database_url):
            began = time.monotonic()
            held = asyncio.create_task(calls.call(calls.schemas.RegisterSchema, request))
            async with asyncio.timeout(60):
                while not _one_waits(database_url):  # noqa: ASYNC110 - a fact of another process
                    await asyncio.sleep(0.02)
            async with grpc.aio.insecure_channel(service.target) as unrepeated:
                stub = schema_service_pb2_grpc.SchemaServiceStub(unrepeated)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.GetSchema(schema_service_pb2.GetSchemaRequest(id=12345))
            assert isinstance(from_rpc_error(caught.value), errors.PoolExhausted)
            with pytest.raises(errors.Deadline):
                await held
            waited = time.monotonic() - began
        assert (await calls.register(name(), {})).created

    assert STATEMENT_SECONDS - 0.1 <= waited < 3 * STATEMENT_SECONDS


def _one_waits(database_url: str) -> bool:
    with psycopg.connect(database_url, autocommit=True) as database:
        row = database.execute(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE application_name = %s AND wait_event_type = 'Lock' AND datname = current_database()",
            [APPLICATION],
        ).fetchone()
    assert row is not None
    return int(row[0]) > 0


@pytest.mark.option("database.ssl_enabled", "database.ssl_root_cert_path")
async def test_tls_to_postgresql_is_required_and_verified(
    make_service: MakeService,
    own_postgres: Callable[..., OwnPostgres],
    authority: Authority,
    tmp_path: Path,
    database_url: str,
) -> None:
    """With TLS required, a server without it, or with a certificate of another authority, is refused."""
    leaf = authority.issue("postgres")
    strangers = tmp_path / "strangers"
    strangers.mkdir()
    leaf.key.chmod(0o600)
    server = own_postgres(options={"ssl": "on", "ssl_cert_file": str(leaf.cert), "ssl_key_file": str(leaf.key)})
    url = server.create_database("tls")

    refused = make_service(database_url, database__ssl_enabled="true", server__startup_timeout_seconds=1)
    with pytest.raises(ServiceFailed, match="postgresql"):
        await refused.start_async()
    distrusted = make_service(
        url,
        database__ssl_enabled="true",
        database__ssl_root_cert_path=Authority(strangers).cert,
        server__startup_timeout_seconds=1,
    )
    with pytest.raises(ServiceFailed, match="postgresql"):
        await distrusted.start_async()
    trusted = make_service(url, database__ssl_enabled="true", database__ssl_root_cert_path=authority.cert)
    await trusted.start_async()
    with psycopg.connect(url, autocommit=True) as database:
        rows = database.execute(
            "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = %s",
            [APPLICATION],
        ).fetchall()

    assert rows == [(True,)]


@pytest.mark.option("formats.json_schema_draft")
async def test_texts_without_a_draft_are_read_in_the_one_given(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """What was registered before keeps its draft; one text in two drafts is two contents."""
    text = {"exclusiveMaximum": True, "maximum": 3}
    wide, narrow = {"items": [{"type": "string"}]}, b"[1]"

    async def valid(calls: Registry, schema_id: int) -> bool:
        request = validation_service_pb2.ValidateDataRequest(schema_id=schema_id, data=narrow)
        return (await calls.call(calls.validation.ValidateData, request)).valid

    old = make_service(database_url, formats__json_schema_draft="4")
    await old.start_async()
    async with RegistryClient(old.target) as client:
        calls = Registry(client)
        await calls.register(name(), text)
        first = await calls.register(name(), wide)
        said = await calls.register(name(), {"$schema": "http://json-schema.org/draft-06/schema#"} | wide)
    await old.stop_async()
    new = make_service(database_url, formats__json_schema_draft="2019-09")
    await new.start_async()
    async with RegistryClient(new.target) as client:
        calls = Registry(client)
        with pytest.raises(errors.InvalidSchema):
            await calls.register(name(), text)
        second = await calls.register(name(), wide)
        kept = await calls.schema(first.schema.id)
        results = [await valid(calls, made.schema.id) for made in (first, said, second)]

    assert first.schema.dialect == kept.dialect == "http://json-schema.org/draft-04/schema"
    assert said.schema.dialect == "http://json-schema.org/draft-06/schema"
    assert second.schema.dialect == "https://json-schema.org/draft/2019-09/schema"
    assert second.schema.id != first.schema.id
    assert results == [False, False, False]


@pytest.mark.option("limits.schema_text_bytes_max", "limits.data_bytes_max")
async def test_the_limits_of_texts_and_data_are_the_ones_given(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """One byte more is refused with the field's name, one less is taken; limits above the default work too."""
    service = make_service(database_url, limits__schema_text_bytes_max=1024, limits__data_bytes_max=2_000_000)
    await service.start_async()

    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        fits = '{"title":"' + "x" * 1012 + '"}'
        assert len(fits) == 1024
        made = await calls.register(name(), fits)
        with pytest.raises(errors.InvalidField, match="1024"):
            await calls.register(name(), fits + " ")
        request = validation_service_pb2.ValidateDataRequest(schema_id=made.schema.id, data=b" " * 1_999_999 + b"1")
        assert (await calls.call(calls.validation.ValidateData, request)).valid
        request.data += b" "
        with pytest.raises(errors.InvalidField, match="2000000"):
            await calls.call(calls.validation.ValidateData, request)
