"""The registry process, put together: the only file that knows every part of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llm_schema_registry.kernel.about import version
from llm_schema_registry.kernel.dependencies import DependencyCheck
from llm_schema_registry.kernel.metrics import Metric, Point
from llm_schema_registry.kernel.migrate import MigrationFailed, migrate
from llm_schema_registry.kernel.postgres import Postgres, PostgresOptions
from llm_schema_registry.kernel.process import Cache, Definition, Parts, Runtime, Servicer, StartFailed
from llm_schema_registry.registry.v1 import (
    change_service_pb2_grpc,
    compatibility_service_pb2_grpc,
    schema_service_pb2_grpc,
    subject_service_pb2_grpc,
    validation_service_pb2_grpc,
)
from services.registry.adapters.cached_contents import CachedContents
from services.registry.adapters.postgres_bell import PostgresBell
from services.registry.adapters.postgres_store import PostgresStore
from services.registry.adapters.protoc import compile_files
from services.registry.adapters.workers import WorkerPool
from services.registry.domain.events import Change
from services.registry.domain.formats import SchemaFormat
from services.registry.domain.formats.avro import Avro
from services.registry.domain.formats.jsonschema import DRAFT_ADDRESSES, JsonSchema
from services.registry.domain.formats.protobuf import Protobuf
from services.registry.domain.model import Format
from services.registry.handlers.changes import ChangeService
from services.registry.handlers.compatibility import CompatibilityService
from services.registry.handlers.encoded import EncodedSchemas
from services.registry.handlers.schemas import SchemaService
from services.registry.handlers.subjects import SubjectService
from services.registry.handlers.validation import ValidationService
from services.registry.ports import Contents, Head, Store, Workers
from services.registry.settings import RegistrySettings
from services.registry.usecases.change_subject import ChangeSubject
from services.registry.usecases.change_version import ChangeVersion
from services.registry.usecases.feed import Feed, Observer
from services.registry.usecases.housekeeping import keep_house
from services.registry.usecases.library import Library
from services.registry.usecases.queries import Queries
from services.registry.usecases.register import Register
from services.registry.usecases.validate import ValidateData
from services.registry.usecases.writer import Writer

if TYPE_CHECKING:
    import redis.asyncio as redis

    from services.registry.adapters.redis_contents import RedisContents, RedisOptions

PACKAGE = "llm_schema_registry.registry.v1"
MIGRATIONS = Path(__file__).parent / "migrations"


@dataclass(slots=True)
class Caches:
    """The ways to contents: the nearest one to ask, and who must hear of changes."""

    contents: Contents
    memory: CachedContents | None = None
    shared: RedisContents | None = None
    observers: list[Observer] = field(default_factory=list)
    dependencies: list[DependencyCheck] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ports:
    """What the use cases reach out to."""

    store: Store
    caches: Caches
    feed: Feed
    workers: Workers


@asynccontextmanager
async def build(runtime: Runtime[RegistrySettings]) -> AsyncIterator[Parts[RegistrySettings]]:
    """Connects to Redis and PostgreSQL, migrates, and serves the five services of the contract."""
    settings = runtime.settings
    options = PostgresOptions.of(settings.database, settings.service_name)
    shared = await _open_shared_cache(runtime)
    database = await runtime.steps.enter("close database", Postgres(options))
    await _migrate(runtime, options)
    store = PostgresStore(database)
    caches = _caches(settings, store, shared, runtime)
    caches.observers.append(_noting(runtime))
    async with PostgresBell(options) as bell, WorkerPool() as workers:
        feed = Feed(store, bell, _telling(runtime, "changes not read"), caches.observers)
        jitter = random.Random()  # noqa: S311 - spreads work, keeps no secret
        background = [
            asyncio.create_task(feed.run(), name="change feed"),
            asyncio.create_task(
                keep_house(store, runtime.clock, jitter, _telling(runtime, "housekeeping failed")), name="housekeeping"
            ),
        ]
        try:
            yield Parts(
                servicers=servicers(Ports(store, caches, feed, workers), runtime),
                dependencies=[
                    DependencyCheck("postgresql", critical=True, check=database.check),
                    *caches.dependencies,
                    DependencyCheck("changes", critical=True, check=feed.check),
                ],
                metrics=[lambda: _metrics(database, caches, feed)],
                caches=_flushable(caches),
            )
        finally:
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


DEFINITION = Definition(name="registry", settings=RegistrySettings, build=build)


def _telling(runtime: Runtime[RegistrySettings], event: str) -> Callable[[Exception], None]:
    """Logs an error that nobody expected."""

    def tell(error: Exception) -> None:
        runtime.logger.error(event, exc_info=error)

    return tell


def _noting(runtime: Runtime[RegistrySettings]) -> Observer:
    """Logs that the history is another one than before: a new epoch as a fact, anything else as what somebody must see
    to."""
    known: Head | None = None

    def observe(head: Head, changes: Sequence[Change]) -> None:  # noqa: ARG001 - the observer's signature
        nonlocal known
        if known is not None and not head.continues(known):
            facts = {"epoch": head.epoch, "position": head.position, "epoch_before": known.epoch}
            facts |= {"position_before": known.position}
            if head.restores(known):
                runtime.logger.info("a new epoch began", **facts)
            else:
                runtime.logger.warning(
                    "the database was put back, or another one took its name",
                    advice="flush the caches of all replicas (llmsr system flush): a shared one may hold contents of"
                    " the lost history",
                    **facts,
                )
        known = head

    return observe


def servicers(ports: Ports, runtime: Runtime[RegistrySettings]) -> Sequence[Servicer]:
    """The services of the contract."""
    store, caches, clock, limits = ports.store, ports.caches, runtime.clock, runtime.settings.limits
    dialects = {Format.JSON: DRAFT_ADDRESSES[runtime.settings.formats.json_schema_draft]}
    formats: dict[Format, SchemaFormat] = {
        Format.JSON: JsonSchema(),
        Format.AVRO: Avro(),
        Format.PROTOBUF: Protobuf(compile_files),
    }
    library = Library(store, caches.contents, formats, ports.workers, dialects)
    observers = [tier.observe_commit for tier in (caches.memory, caches.shared) if tier is not None]
    writer = Writer(store, clock, random.Random(), observers)  # noqa: S311 - spreads repeats, keeps no secret
    queries = Queries(store, library)
    text_bytes_max = limits.schema_text_bytes_max
    encoded = EncodedSchemas() if caches.memory else EncodedSchemas(bytes_max=0)
    schemas = SchemaService(Register(store, library, writer, clock), queries, library, encoded, text_bytes_max)
    subjects = SubjectService(queries, ChangeVersion(store, library, writer), ChangeSubject(store, writer))
    compatibility = CompatibilityService(store, queries, library, text_bytes_max)
    validate = ValidateData(store, queries, library)
    validation = ValidationService(
        validate, library, text_bytes_max=text_bytes_max, data_bytes_max=limits.data_bytes_max
    )
    changes = ChangeService(ports.feed)
    return [
        Servicer(
            f"{PACKAGE}.SchemaService",
            lambda server: schema_service_pb2_grpc.add_SchemaServiceServicer_to_server(schemas, server),
        ),
        Servicer(
            f"{PACKAGE}.SubjectService",
            lambda server: subject_service_pb2_grpc.add_SubjectServiceServicer_to_server(subjects, server),
        ),
        Servicer(
            f"{PACKAGE}.CompatibilityService",
            lambda server: compatibility_service_pb2_grpc.add_CompatibilityServiceServicer_to_server(
                compatibility, server
            ),
        ),
        Servicer(
            f"{PACKAGE}.ValidationService",
            lambda server: validation_service_pb2_grpc.add_ValidationServiceServicer_to_server(validation, server),
        ),
        Servicer(
            f"{PACKAGE}.ChangeService",
            lambda server: change_service_pb2_grpc.add_ChangeServiceServicer_to_server(changes, server),
        ),
    ]


async def _migrate(runtime: Runtime[RegistrySettings], options: PostgresOptions) -> None:
    """Brings the tables to what this code needs, once the database answers. Raises StartFailed."""

    async def attempt() -> list[str]:
        return await migrate(options, MIGRATIONS, schema="registry", code_version=version())

    try:
        applied = await runtime.wait_for("postgresql", attempt)
    except MigrationFailed as failed:
        raise StartFailed(str(failed)) from failed
    runtime.logger.info("migrated", applied=applied)


async def _open_shared_cache(
    runtime: Runtime[RegistrySettings],
) -> tuple[redis.Redis, RedisOptions] | None:
    """Redis, when the settings name one and caching is on."""
    settings = runtime.settings.redis
    if settings.url is None or not runtime.settings.features.caching_enabled:
        return None
    # Here, because the library takes a tenth of a second and seven MiB, which a process without Redis does not need.
    from services.registry.adapters.redis_contents import RedisOptions, open_redis  # noqa: PLC0415

    options = RedisOptions(
        url=settings.url.get_secret_value(),
        pool_min=settings.pool_min,
        pool_max=settings.pool_max,
        connection_timeout_seconds=settings.connection_timeout_seconds,
        tls_enabled=settings.tls_enabled,
        key_prefix=settings.key_prefix,
        ttl_seconds=settings.default_ttl_seconds,
    )
    return await runtime.steps.enter("close redis", open_redis(options)), options


def _caches(
    settings: RegistrySettings,
    store: Store,
    shared: tuple[redis.Redis, RedisOptions] | None,
    runtime: Runtime[RegistrySettings],
) -> Caches:
    """Memory before Redis before the store; the store alone when caching is off."""
    caches = Caches(store)
    if not settings.features.caching_enabled:
        return caches
    if shared is not None:
        from services.registry.adapters.redis_contents import RedisContents, check_redis  # noqa: PLC0415

        client, options = shared
        caches.shared = RedisContents(store, client, options, runtime.clock.monotonic)
        caches.contents = caches.shared
        caches.observers.append(caches.shared.observe)
        caches.dependencies.append(DependencyCheck("redis", critical=False, check=lambda: check_redis(client)))
    caches.memory = CachedContents(caches.contents, settings.cache.memory_bytes_max)
    caches.contents = caches.memory
    caches.observers.append(caches.memory.observe)
    return caches


def _flushable(caches: Caches) -> Sequence[Cache]:
    """What FlushCaches empties: the shared tier first, or memory would be filled from it again."""
    tiers = (("redis", caches.shared), ("memory", caches.memory))
    return [Cache(name, tier.flush) for name, tier in tiers if tier is not None]


def _metrics(database: Postgres, caches: Caches, feed: Feed) -> Iterable[Metric]:
    """What the registry itself tells, beside the calls that the kernel counts."""
    pool = database.measure()
    states = [
        Point(pool.size - pool.idle, {"state": "used"}),
        Point(pool.idle, {"state": "idle"}),
    ]
    yield Metric("db.client.connection.count", "gauge", "{connection}", "Connections of the database pool.", states)
    waiting = [Point(pool.waiting)]
    yield Metric("db.client.connection.pending_requests", "gauge", "{request}", "Calls waiting for one.", waiting)
    yield Metric("registry.change.position", "gauge", "", "Position of the newest change seen.", [Point(feed.position)])
    yield Metric("registry.change.epoch", "gauge", "", "Epoch of the newest change seen.", [Point(feed.epoch)])
    yield Metric("registry.watchers", "gauge", "{stream}", "Watches that are open.", [Point(feed.watchers)])
    tiers = {"memory": caches.memory, "redis": caches.shared}
    found = [(name, tier) for name, tier in tiers.items() if tier is not None]
    hits = [Point(tier.hits, {"tier": name}) for name, tier in found]
    misses = [Point(tier.misses, {"tier": name}) for name, tier in found]
    yield Metric("registry.cache.hits", "counter", "{schema}", "Schemas found in a cache.", hits)
    yield Metric("registry.cache.misses", "counter", "{schema}", "Schemas not found in a cache.", misses)
