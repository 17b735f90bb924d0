"""Caches over real Valkey: shared by replicas, right after purges, and unimportant when they are gone."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import redis

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import schema_pb2
from tests.fix_calls import Registry
from tests.fix_postgres import MakeDatabase
from tests.fix_service import MakeService, Service
from tests.fix_valkey import OwnValkey

Name = Callable[..., str]
SOON = 30.0


def metric(service: Service, name: str, tier: str) -> float:
    """A counter of the metrics page."""
    status, page = service.http("/metrics")
    assert status == 200
    for line in page.splitlines():
        if re.match(rf'{name}(_total)?{{.*tier="{tier}".*}} ', line):
            return float(line.split()[-1])
    return 0.0


async def eventually(fact: Callable[[], bool]) -> None:
    """Waits until the fact holds."""
    async with asyncio.timeout(SOON):
        while not fact():  # noqa: ASYNC110 - a fact of another process has no event here
            await asyncio.sleep(0.02)


@pytest.mark.option("redis.url", "redis.key_prefix", "redis.default_ttl_seconds", "features.caching_enabled")
async def test_replicas_share_what_one_of_them_read(
    make_service: MakeService, database_url: str, valkey_url: str, name: Name
) -> None:
    """Keys have the prefix and expire; a second replica reads from Valkey; without caching nothing is kept anywhere."""
    first = make_service(database_url, valkey_url, redis__key_prefix="mine:", redis__default_ttl_seconds=77)
    second = make_service(database_url, valkey_url, redis__key_prefix="mine:")
    third = make_service(database_url, valkey_url, redis__key_prefix="off:", features__caching_enabled="false")
    for service in (first, second, third):
        await service.start_async()

    async with RegistryClient(first.target) as one, RegistryClient(second.target) as two:
        made = await Registry(one).register(name(), {"title": name()})
        assert await Registry(one).schema(made.schema.id) == made.schema
        with redis.Redis.from_url(valkey_url) as valkey:
            keys = [key.decode() for key in valkey.keys("*")]
            assert [key for key in keys if key.startswith("mine:")] == keys
            assert keys
            assert 0 < valkey.ttl(keys[0]) <= 77
        assert await Registry(two).schema(made.schema.id) == made.schema
    assert metric(second, "registry_cache_hits", "redis") == 1

    async with RegistryClient(third.target) as client:
        assert await Registry(client).schema(made.schema.id) == made.schema
    with redis.Redis.from_url(valkey_url) as valkey:
        assert valkey.keys("off:*") == []
    dependencies = json.loads(third.http("/health/ready")[1])["dependencies"]
    assert list(dependencies) == ["postgresql", "changes"]


@pytest.mark.option("cache.memory_bytes_max")
async def test_the_memory_cache_has_the_size_it_was_given(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """With no bytes every read is a miss; with the default only the first one is."""
    small = make_service(database_url, cache__memory_bytes_max=0)
    usual = make_service(database_url)
    for service in (small, usual):
        await service.start_async()
        async with RegistryClient(service.target) as client:
            made = await Registry(client).register(name(), {"title": name()})
            for _ in range(5):
                await Registry(client).schema(made.schema.id)

    assert metric(small, "registry_cache_misses", "memory") == 5
    assert metric(usual, "registry_cache_misses", "memory") == 1


async def test_registries_that_share_a_server_do_not_share_contents(
    make_service: MakeService, make_database: MakeDatabase, valkey_url: str, name: Name
) -> None:
    """Two registries, by mistake with one prefix: the same schema id is each one's own."""
    services = [make_service(make_database(), valkey_url) for _ in range(2)]
    made: list[schema_pb2.Schema] = []
    for service in services:
        await service.start_async()
        async with RegistryClient(service.target) as client:
            made.append((await Registry(client).register(name(), {"title": name()})).schema)
            assert await Registry(client).schema(made[-1].id) == made[-1]
    assert made[0].id == made[1].id
    assert made[0].text != made[1].text
    await asyncio.to_thread(services[0].stop)
    await services[0].start_async()

    async with RegistryClient(services[0].target) as client:
        assert await Registry(client).schema(made[0].id) == made[0]

    assert metric(services[0], "registry_cache_hits", "redis") == 1, "it is kept there, under its own key"


async def test_a_purge_reaches_the_other_replicas(
    make_service: MakeService, database_url: str, valkey_url: str, name: Name
) -> None:
    """The replica that purged forgets at once, the others a moment later; Valkey does not bring it back."""
    services = [make_service(database_url, valkey_url) for _ in range(2)]
    for service in services:
        await service.start_async()
    subject = name()

    async with RegistryClient(services[0].target) as first, RegistryClient(services[1].target) as second:
        one, two = Registry(first), Registry(second)
        made = await one.register(subject, {"title": subject})
        for calls in (one, two, one, two):
            assert await calls.schema(made.schema.id) == made.schema
        await one.delete(subject, 1)
        assert await one.purge(subject, 1) == [made.schema.id]

        with pytest.raises(errors.SchemaNotFound):
            await one.schema(made.schema.id)

        async def gone() -> bool:
            try:
                await two.schema(made.schema.id)
            except errors.SchemaNotFound:
                return True
            return False

        async with asyncio.timeout(SOON):
            while not await gone():  # noqa: ASYNC110 - a fact of another process has no event here
                await asyncio.sleep(0.02)
        again = await two.register(subject, {"title": subject})
        assert again.schema.id == made.schema.id
        assert (await one.schema(made.schema.id)).text == made.schema.text


async def test_a_damaged_entry_is_a_miss(
    make_service: MakeService, database_url: str, valkey_url: str, name: Name
) -> None:
    """What another program wrote under our keys is ignored."""
    service = make_service(database_url, valkey_url, cache__memory_bytes_max=0)
    await service.start_async()
    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        made = await calls.register(name(), {"title": name()})
        assert await calls.schema(made.schema.id) == made.schema
        with redis.Redis.from_url(valkey_url) as valkey:
            for key in valkey.keys("*"):
                valkey.set(key, b"\xff\xfenothing")

        assert await calls.schema(made.schema.id) == made.schema


@pytest.mark.option("redis.pool_min", "redis.pool_max")
async def test_the_pool_has_the_size_it_was_given(
    make_service: MakeService, database_url: str, own_valkey: Callable[[], OwnValkey], name: Name
) -> None:
    """pool_min connections are there at the start; under load there are never more than pool_max."""
    server = own_valkey()

    def connections() -> int:
        with redis.Redis.from_url(server.url) as valkey:
            return len(valkey.client_list()) - 1

    service = make_service(database_url, server.url, redis__pool_min=3, redis__pool_max=4, cache__memory_bytes_max=0)
    await service.start_async()
    at_start = connections()

    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        made = await calls.register(name(), {"title": name()})
        await asyncio.gather(*(calls.schema(made.schema.id) for _ in range(200)))
    under_load = connections()

    assert at_start == 3
    assert 3 <= under_load <= 4


@contextmanager
def silent_server() -> Iterator[tuple[int, list[bytes]]]:
    """A server that accepts, keeps the first bytes of each connection and never answers."""
    heard: list[bytes] = []
    open_connections: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_connections.append(connection)
            connection.settimeout(5)
            try:
                heard.append(connection.recv(64))
            except OSError:
                heard.append(b"")

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in open_connections:
            connection.close()
        thread.join(5)


@pytest.mark.option("redis.tls_enabled", "redis.connection_timeout_seconds")
async def test_tls_is_spoken_and_a_silent_server_is_not_waited_for(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """With TLS the first byte is that of a handshake (RFC 8446, section 5.1); the start goes on after the timeout."""
    with silent_server() as (port, heard):
        service = make_service(
            database_url,
            f"redis://127.0.0.1:{port}/0",
            redis__tls_enabled="true",
            redis__pool_min=1,
            redis__connection_timeout_seconds=0.3,
        )
        await service.start_async()

        # An attempt that was given up before its first byte says nothing.
        await eventually(lambda: any(heard))
        assert {first[:1] for first in heard if first} == {b"\x16"}
        async with RegistryClient(service.target) as client:
            made = await Registry(client).register(name(), {"title": name()})
            assert await Registry(client).schema(made.schema.id) == made.schema
        assert await service.stop_async() == 0
