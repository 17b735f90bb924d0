"""Contents that replicas share in Redis or Valkey. Without it everything works, slower.

Keys carry the registry's cluster id, so registries that share a server and a prefix never read each other's contents,
and the epoch and the position of the newest purge, so a purge or a restore leaves every older entry behind, also one
that is written late. An entry is the encoded registry.v1.Schema.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import redis.asyncio as redis
from google.protobuf.message import DecodeError
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from llm_schema_registry.errors import Error, Overloaded
from llm_schema_registry.registry.v1 import schema_pb2
from services.registry.codec import nouns
from services.registry.domain.events import Change, VersionsPurged
from services.registry.domain.model import Schema
from services.registry.ports import Contents, Head

COMMAND_SECONDS_MAX = 0.25
"""A cache that is slower than this is no help: the database answers sooner."""
PAUSE_SECONDS = 1.0
PAUSE_SECONDS_MAX = 30.0
FLUSH_SECONDS_MAX = 15.0
SCAN_COUNT = 500

Place: TypeAlias = tuple[int, int]
"""An epoch and a position in it."""


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """How to reach Redis. Times in seconds."""

    url: str
    pool_min: int
    pool_max: int
    connection_timeout_seconds: float
    tls_enabled: bool
    key_prefix: str
    ttl_seconds: int


@asynccontextmanager
async def open_redis(options: RedisOptions) -> AsyncIterator[redis.Redis]:
    """A client with a bounded pool. It need not be reachable: `pool_min` connections are opened when it is."""
    url = options.url
    if options.tls_enabled and url.startswith("redis://"):
        url = "rediss://" + url.removeprefix("redis://")
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=options.pool_max,
        timeout=options.connection_timeout_seconds,
        socket_connect_timeout=options.connection_timeout_seconds,
        socket_timeout=options.connection_timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=30,
    )
    client = redis.Redis(connection_pool=pool)
    try:
        await _warm(pool, options.pool_min)
        yield client
    finally:
        await client.aclose()
        await pool.aclose()


async def check_redis(client: redis.Redis) -> None:
    """Returns when Redis answers; raises what the driver raises otherwise."""
    await client.ping()


class RedisContents:
    """Contents behind Redis. Never raises for Redis: a failure is a miss, and a pause before the next attempt."""

    def __init__(
        self, inner: Contents, client: redis.Redis, options: RedisOptions, monotonic: Callable[[], float]
    ) -> None:
        self._inner = inner
        self._client = client
        self._options = options
        self._monotonic = monotonic
        self._head: Head | None = None
        self._purged: Place = (0, 0)
        self._space: str | None = None
        self._closed_until = 0.0
        self._pause_seconds = PAUSE_SECONDS
        self.hits = 0
        self.misses = 0
        self.failures = 0

    def observe_commit(self, change: Change) -> None:
        """Leaves the old keys behind when this process itself purged, before the purge is answered."""
        if isinstance(change.event, VersionsPurged):
            self._move((change.epoch, change.position))

    def observe(self, head: Head, changes: Sequence[Change]) -> None:  # noqa: ARG002 - the observer's signature
        """Moves to the keys of the present epoch and purge position. Until the first call nothing is kept."""
        known, self._head = self._head, head
        if known is not None and not head.continues(known):
            self._purged = (0, 0)
        self._move((head.epoch, head.purge_position))

    def _move(self, purged: Place) -> None:
        """Never back to the keys of an earlier purge, which a late look at the head would name."""
        self._purged = max(self._purged, purged)
        if self._head is not None:
            epoch, position = self._purged
            self._space = f"{self._options.key_prefix}{self._head.cluster_id}:{epoch}:{position}:schema:"

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """Contents by id. See Contents."""
        space = self._space
        if space is None or not ids or self._monotonic() < self._closed_until:
            return await self._inner.schemas(ids)
        found = await self._read(space, list(ids))
        missing = [schema_id for schema_id in ids if schema_id not in found]
        self.hits += len(found)
        self.misses += len(missing)
        if missing:
            fetched = await self._inner.schemas(missing)
            if space == self._space:
                await self._write(space, fetched)
            found.update(fetched)
        return found

    async def flush(self) -> int:
        """Removes every key below the prefix, also those of earlier epochs, and returns how many.

        Other keys of the server are never touched. Raises errors.Overloaded when Redis cannot be reached or does not do
        it in FLUSH_SECONDS_MAX: a repeat goes on.
        """
        removed = 0
        try:
            async with asyncio.timeout(FLUSH_SECONDS_MAX):
                keys: list[bytes] = []
                async for key in self._client.scan_iter(
                    match=f"{_literal(self._options.key_prefix)}*", count=SCAN_COUNT
                ):
                    keys.append(key)
                    if len(keys) == SCAN_COUNT:
                        removed += await self._client.unlink(*keys)
                        keys.clear()
                if keys:
                    removed += await self._client.unlink(*keys)
        except TimeoutError:
            raise Overloaded(
                f"Redis did not remove every entry within {FLUSH_SECONDS_MAX:g} s: {removed} are gone. Repeat."
            ) from None
        except (RedisError, OSError):
            raise Overloaded(f"Redis cannot be reached: {removed} entries are gone. Repeat.") from None
        return removed

    async def _read(self, space: str, ids: Sequence[int]) -> dict[int, Schema]:
        """What Redis has. A damaged entry counts as none."""
        values = await self._guarded(lambda: self._client.mget([f"{space}{schema_id}" for schema_id in ids]))
        found: dict[int, Schema] = {}
        for schema_id, value in zip(ids, values or (), strict=False):
            if value is not None:
                schema = _decoded(value)
                if schema is not None and schema.id == schema_id:
                    found[schema_id] = schema
        return found

    async def _write(self, space: str, schemas: Mapping[int, Schema]) -> None:
        if not schemas:
            return
        pipeline = self._client.pipeline(transaction=False)
        for schema_id, schema in schemas.items():
            pipeline.set(f"{space}{schema_id}", nouns.schema(schema).SerializeToString(), ex=self._options.ttl_seconds)
        await self._guarded(pipeline.execute)

    async def _guarded(self, command: Callable[[], Any]) -> Any:
        """The command's result, or None after a failure, which closes the way to Redis for a while."""
        if self._monotonic() < self._closed_until:
            return None
        try:
            async with asyncio.timeout(COMMAND_SECONDS_MAX):
                result = await command()
        except (RedisError, OSError, TimeoutError):
            self.failures += 1
            self._closed_until = self._monotonic() + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, PAUSE_SECONDS_MAX)
            return None
        self._pause_seconds = PAUSE_SECONDS
        return result


def _literal(prefix: str) -> str:
    """A pattern that fits the prefix alone. Source: redis.io/commands/keys, glob-style patterns, 2026."""
    return "".join(f"\\{letter}" if letter in "*?[]\\" else letter for letter in prefix)


def _decoded(value: bytes) -> Schema | None:
    """The content of an entry; None when it is none that this code can read."""
    try:
        return nouns.read_schema(schema_pb2.Schema.FromString(value))
    except (DecodeError, Error):
        return None


async def _warm(pool: redis.BlockingConnectionPool, connections: int) -> None:
    """Opens connections ahead of their use. One that fails ends it: they are opened when they are needed."""
    opened = []
    try:
        for _ in range(connections):
            # The driver leaves this method untyped. No comprehension: what was opened must be released.
            opened.append(await pool.get_connection())  # type: ignore[no-untyped-call] # noqa: PERF401
    except (RedisError, OSError, TimeoutError):
        pass
    finally:
        for connection in opened:
            await pool.release(connection)
