"""The backup process: its services, what runs in the background, and what it tells of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_service_pb2_grpc, restore_service_pb2_grpc
from llm_schema_registry.kernel.dependencies import DependencyCheck
from llm_schema_registry.kernel.metrics import Metric
from llm_schema_registry.kernel.postgres import PostgresOptions
from llm_schema_registry.kernel.process import Definition, Parts, Runtime, Servicer, StartFailed
from llm_schema_registry.operation.v1 import operation_service_pb2_grpc
from llm_schema_registry.operations.service import OperationService
from services.backup import priority
from services.backup.adapters.postgres_election import PostgresElection
from services.backup.assembly import Assembly, Setting, assemble
from services.backup.gauges import Gauges
from services.backup.handlers.answers import Answers
from services.backup.handlers.backups import BackupFacts, BackupService, BackupVerbs
from services.backup.handlers.restores import RestoreService
from services.backup.settings import BackupServiceSettings

BACKUP = "llm_schema_registry.backup.v1"
PROBE_SECONDS = 30.0
OPERATION = "llm_schema_registry.operation.v1"
CLOSING_SECONDS = 5.0
"""For undoing what was cancelled, beside the time that operations have to finish."""


@asynccontextmanager
async def build(runtime: Runtime[BackupServiceSettings]) -> AsyncIterator[Parts[BackupServiceSettings]]:
    """Opens stores and keys, and serves the three services of the contract. Neither database nor store must answer."""
    settings = runtime.settings
    asyncio.get_running_loop().set_default_executor(priority.threads())

    def report(event: str, **facts: Any) -> None:
        level = runtime.logger.error if "exc_info" in facts else runtime.logger.info
        level(event, **facts)

    steps = runtime.steps
    stack = await steps.enter("close stores and database", AsyncExitStack())
    try:
        assembly = await assemble(Setting(settings, runtime.clock, runtime.instance_id, report), stack)
    except errors.KeyUnavailable as failed:
        raise StartFailed(failed.message) from None
    election = PostgresElection(PostgresOptions.of(settings.database, settings.service_name))
    gauges = Gauges(assembly, runtime.clock)
    background = [
        asyncio.create_task(assembly.keeping.run(election), name="keeping"),
        asyncio.create_task(gauges.run(), name="gauges"),
        asyncio.create_task(assembly.repair.run(), name="repair"),
        asyncio.create_task(_warn(assembly, runtime.logger.warning), name="store warnings"),
    ]
    if assembly.ship is not None:
        background.append(asyncio.create_task(assembly.ship.run(election), name="archive"))

    async def end_background() -> None:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)

    async def end_operations() -> None:
        left = steps.remaining_seconds() - CLOSING_SECONDS
        await assembly.operations.close(max(0.0, min(settings.server.grace_seconds, left)))

    # Operations end first: what they undo needs the stores. Then the archive: it ships what was written until now.
    steps.add("end archive and schedules", end_background)
    steps.add("end operations", end_operations, settings.server.grace_seconds + CLOSING_SECONDS)
    yield Parts(
        servicers=servicers(assembly, runtime),
        dependencies=_dependencies(assembly),
        metrics=[lambda: _metrics(gauges)],
    )


DEFINITION = Definition(name="backup", settings=BackupServiceSettings, build=build)


def servicers(assembly: Assembly, runtime: Runtime[BackupServiceSettings]) -> Sequence[Servicer]:
    """The services of the contract."""
    repository, operations = assembly.repository, assembly.operations
    answers = Answers(repository.catalog, assembly.journal, assembly.drill, assembly.copying)
    verbs = BackupVerbs(operations, assembly.make, assembly.verify, assembly.drill, assembly.prune, assembly.status)
    facts = BackupFacts(assembly.schedules, assembly.stores, runtime.settings.archive.enabled)
    backups = BackupService(repository, verbs, answers, facts)
    restores = RestoreService(repository, operations, answers, assembly.swap)
    shown = OperationService(operations, answers, runtime.clock)
    return [
        Servicer(
            f"{BACKUP}.BackupService",
            lambda server: backup_service_pb2_grpc.add_BackupServiceServicer_to_server(backups, server),
        ),
        Servicer(
            f"{BACKUP}.RestoreService",
            lambda server: restore_service_pb2_grpc.add_RestoreServiceServicer_to_server(restores, server),
        ),
        Servicer(
            f"{OPERATION}.OperationService",
            lambda server: operation_service_pb2_grpc.add_OperationServiceServicer_to_server(shown, server),
        ),
    ]


async def _warn(assembly: Assembly, warn: Callable[..., None]) -> None:
    """Says once what is wrong with a store, as soon as it answers: above all that only one replica may run on it."""
    waiting = list(assembly.stores)
    while waiting:
        for named in tuple(waiting):
            status = await assembly.status.store(named)
            if status.capabilities is None:
                continue
            waiting.remove(named)
            if status.problem:
                warn("store warning", store=named.name, message=status.problem)
        if waiting:
            await asyncio.sleep(PROBE_SECONDS)


def _dependencies(assembly: Assembly) -> Sequence[DependencyCheck]:
    """None is critical: this service is needed when something else is gone."""
    checks = [DependencyCheck("postgresql", critical=False, check=assembly.source.check)]
    checks += [
        DependencyCheck(f"{named.name} store", critical=False, check=named.store.check) for named in assembly.stores
    ]
    if assembly.ship is not None:
        checks.append(DependencyCheck("archive", critical=False, check=assembly.ship.check))
    checks += [
        DependencyCheck(f"archive's chain in the {named.name} store", critical=False, check=named.audit.check)
        for named in assembly.stores
    ]
    checks.append(DependencyCheck("schedules", critical=False, check=assembly.keeping.check))
    checks.append(DependencyCheck("retention", critical=False, check=assembly.keeping.check_retention))
    checks.append(DependencyCheck("restores", critical=False, check=assembly.repair.check))
    return checks


def _metrics(gauges: Gauges) -> Iterable[Metric]:
    yield from gauges.metrics()
