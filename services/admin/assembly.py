"""The parts of the admin service, made from its settings."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

from llm_schema_registry.client.channel import Tls
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.failpoints import failpoints
from llm_schema_registry.kernel.postgres import PostgresOptions
from llm_schema_registry.objects.buckets import bucket
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.s3_options import s3_options
from llm_schema_registry.objects.store import ObjectStore
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.operations import Operations
from services.admin.adapters.backup_peer import BackupPeer
from services.admin.adapters.backup_restores import BackupRestores
from services.admin.adapters.control_peers import ControlPeers, PeerOptions
from services.admin.adapters.postgres_maintenance import PostgresMaintenance
from services.admin.adapters.prometheus import Prometheus
from services.admin.adapters.registry_peer import RegistryPeer
from services.admin.settings import AdminServiceSettings, PeersSettings
from services.admin.usecases.capacity import Capacity, Sources
from services.admin.usecases.history import History
from services.admin.usecases.maintain import Maintain
from services.admin.usecases.modes import Modes
from services.admin.usecases.office import Office
from services.admin.usecases.recover import Records, Recover
from services.admin.usecases.recovery_journal import RecoveryJournal
from services.admin.usecases.recovery_steps import RecoverySteps
from services.admin.usecases.recovery_work import RestoreWork
from services.admin.usecases.returning import Returning
from services.admin.usecases.sample import Sampler
from services.admin.usecases.shutdown import Here, Shutdown
from services.admin.usecases.smoke import CHECK_SECONDS, Smoke
from services.admin.usecases.status import Status
from services.admin.usecases.steer import Steer

PREFIX = "admin/"
"""What the keys of this service begin with, in the bucket that it shares with the backup service."""

PROMETHEUS_SECONDS = 5.0
"""For one of its answers."""

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all parts share: options, clock, the process's id, and where an operator's notes go."""

    settings: AdminServiceSettings
    clock: Clock
    instance_id: str
    report: Report


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts."""

    store: ObjectStore
    leases: Leases
    operations: Operations
    peers: ControlPeers
    backup: BackupPeer
    steer: Steer
    status: Status
    office: Office
    modes: Modes
    shutdown: Shutdown
    smoke: Smoke
    database: PostgresMaintenance
    maintain: Maintain
    sampler: Sampler
    capacity: Capacity
    recover: Recover
    returning: Returning


async def assemble(setting: Setting, stack: AsyncExitStack) -> Assembly:
    """Makes the parts; the stack closes what was opened. Nothing must answer for that."""
    settings, clock = setting.settings, setting.clock
    store = await _store(settings, stack)
    operations = Operations(store, clock, _dice, setting.instance_id, setting.report)
    tls = _tls(settings.peers)
    peers = ControlPeers(_peers(settings.peers, tls))
    backup = BackupPeer(peers, tls, settings.peers.timeout_seconds)
    leases = Leases(store, clock, setting.instance_id)
    office, steer = Office(leases, operations), Steer(peers)
    here = Here(setting.instance_id, clock, setting.report)
    database = await stack.enter_async_context(
        PostgresMaintenance(PostgresOptions.of(settings.database, settings.service_name))
    )
    history = History(store, settings.admin.sample_seconds)
    sampler = Sampler(peers, database, backup, history, clock)
    sources = Sources(sampler, history, database, peers, _recorded(settings))
    smoke = Smoke(RegistryPeer(peers, tls, CHECK_SECONDS), clock, setting.instance_id)
    steps = RecoverySteps(peers, RestoreWork(BackupRestores(backup)), smoke, clock)
    journal = RecoveryJournal(store, _dice, setting.report)
    return Assembly(
        store=store,
        leases=leases,
        operations=operations,
        peers=peers,
        backup=backup,
        steer=steer,
        status=Status(peers, backup, operations, journal, clock),
        office=office,
        modes=Modes(steer, office, setting.report),
        shutdown=Shutdown(peers, operations, office, store, here),
        smoke=smoke,
        database=database,
        maintain=Maintain(database, operations, office, store, clock),
        sampler=sampler,
        capacity=Capacity(sources, clock, settings.admin.database_bytes_limit),
        recover=Recover(Records(journal, office, _dice), operations, steps, clock, failpoints(os.environ)),
        returning=Returning(peers, journal, office, clock, setting.report),
    )


def _recorded(settings: AdminServiceSettings) -> Prometheus | None:
    url = settings.admin.prometheus_url
    return Prometheus(url, PROMETHEUS_SECONDS) if url else None


def _dice(count: int) -> bytes:
    return os.urandom(count)


async def _store(settings: AdminServiceSettings, stack: AsyncExitStack) -> ObjectStore:
    if settings.admin.directory is not None:
        return DirectoryStore(settings.admin.directory)
    return await stack.enter_async_context(bucket(s3_options(settings.s3, below=PREFIX)))


def _peers(settings: PeersSettings, tls: Tls | None) -> PeerOptions:
    token = settings.control_token
    return PeerOptions(
        targets={"registry": settings.registry, "backup": settings.backup, "admin": settings.admin},
        token=token.get_secret_value() if token else None,
        tls=tls,
        timeout_seconds=settings.timeout_seconds,
    )


def _tls(settings: PeersSettings) -> Tls | None:
    if not settings.tls_enabled:
        return None
    return Tls(settings.ca_cert_path, settings.client_cert_path, settings.client_key_path, settings.server_name)
