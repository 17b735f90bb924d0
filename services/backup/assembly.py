"""The parts of the backup service, made from its settings: for the process, and for the commands without it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from llm_schema_registry.kernel.about import version
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.failpoints import failpoints
from llm_schema_registry.kernel.postgres import PostgresOptions
from llm_schema_registry.kernel.settings_stores import S3Settings
from llm_schema_registry.objects.buckets import bucket
from llm_schema_registry.objects.directory import DirectoryStore
from llm_schema_registry.objects.s3_options import s3_options
from llm_schema_registry.objects.store import ObjectStore
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.operations import Operations
from services.backup.adapters.bounded_store import BoundedStore
from services.backup.adapters.dump_reader import PostgresDumpCheck
from services.backup.adapters.postgres_places import DatabasePlaces
from services.backup.adapters.postgres_source import PostgresSource
from services.backup.adapters.recipients import (
    load_recipient,
    load_signing_key,
    load_verifier,
    no_signing_key,
    system_dice,
)
from services.backup.adapters.schema_places import SchemaPlaces
from services.backup.codec import segments
from services.backup.domain.model import Kind
from services.backup.domain.retention import Policy
from services.backup.domain.schedules import Schedule
from services.backup.ports import Failpoints, Places, Recipient
from services.backup.settings import BackupServiceSettings, BackupSettings, SecondStoreSettings
from services.backup.usecases.archive import Archive, ArchiveRules
from services.backup.usecases.audit import ArchiveAudit
from services.backup.usecases.catalog import Catalog
from services.backup.usecases.copying import NAME, PRIMARY, Copying
from services.backup.usecases.data_keys import DataKeys
from services.backup.usecases.drill import Drill
from services.backup.usecases.journal import Journal
from services.backup.usecases.keeping import Hands, Keeping, Plans, SecondHands
from services.backup.usecases.make_backup import BackupRules, MakeBackup
from services.backup.usecases.prepare import Prepare
from services.backup.usecases.prune import Origin, Prune, PruneRules
from services.backup.usecases.repair import Repair
from services.backup.usecases.repository import Repository
from services.backup.usecases.ship import Ship
from services.backup.usecases.status import NamedStore, Status
from services.backup.usecases.swap import Swap, SwapRules
from services.backup.usecases.verify import Verify

SCHEDULED = (Kind.HOURLY, Kind.DAILY, Kind.MONTHLY)

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all parts share: options, clock, the process's id, and where an operator's notes go."""

    settings: BackupServiceSettings
    clock: Clock
    instance_id: str
    report: Report


@dataclass(frozen=True, slots=True)
class Assembly:
    """The parts."""

    repository: Repository
    stores: Sequence[NamedStore]
    source: PostgresSource
    places: Places
    archive: Archive
    audit: ArchiveAudit
    journal: Journal
    operations: Operations
    make: MakeBackup
    verify: Verify
    prune: Prune
    prepare: Prepare
    swap: Swap
    drill: Drill
    copying: Copying | None
    ship: Ship | None
    keeping: Keeping
    repair: Repair
    status: Status
    schedules: Sequence[Schedule]


async def assemble(setting: Setting, stack: AsyncExitStack) -> Assembly:
    """Makes the parts; the stack closes what was opened. Nothing must answer for that.

    Raises errors.KeyUnavailable for a key file that cannot be used.
    """
    settings, clock, report = setting.settings, setting.clock, setting.report
    points = failpoints(os.environ)
    primary = await _primary(settings, stack)
    second = await _second(settings.second_store, stack)
    repository = await _repository(setting, primary, points, stack)
    options, folders = PostgresOptions.of(settings.database, settings.service_name), settings.backup.tool_folders
    source = await stack.enter_async_context(PostgresSource(options, folders, clock))
    places = _places(settings, options, points)
    archive = Archive(repository, segments)
    journal = Journal(repository, report)
    operations = Operations(repository.store, clock, system_dice, setting.instance_id, report)
    verify = Verify(repository, PostgresDumpCheck(folders), places)
    rules = BackupRules(version(), settings.backup.compression, lock_days=settings.backup.lock_days)
    make = MakeBackup(source, repository, verify, rules)
    audit = ArchiveAudit(repository, archive)
    prune = Prune(repository, archive, audit, _prune_rules(settings))
    prepared_keep = timedelta(hours=settings.restore.prepared_keep_hours)
    prepare = Prepare(repository, archive, places, journal, prepared_keep)
    keep = timedelta(hours=settings.restore.keep_hours)
    swap = Swap(repository, places, journal, prepare, SwapRules(keep, settings.restore.schema_id_margin))
    drill = Drill(repository, prepare)
    copied = _second_hands(setting, archive, second, verify, repository) if second else None
    ship = Ship(source, repository, archive, _archive_rules(settings), report) if settings.archive.enabled else None
    enabled = settings.backup.schedules_enabled
    schedules = _schedules(settings.backup) if enabled else []
    hands = Hands(operations, make, verify, drill, prune, swap, audit, copied)
    plans = Plans(schedules, _drill_schedule(settings.backup), enabled)
    stores = [NamedStore(PRIMARY, _location(settings), repository.store, repository.catalog, audit, journal)]
    if copied and second:
        place = _second_location(settings.second_store)
        stores.append(NamedStore(NAME, place, second, copied.copying.catalog, copied.audit))
    return Assembly(
        repository=repository,
        stores=stores,
        source=source,
        places=places,
        archive=archive,
        journal=journal,
        operations=operations,
        make=make,
        verify=verify,
        prune=prune,
        prepare=prepare,
        swap=swap,
        drill=drill,
        copying=copied.copying if copied else None,
        ship=ship,
        repair=Repair(repository, operations, swap, report),
        keeping=Keeping(repository, hands, plans, report),
        audit=audit,
        status=Status(source, archive, repository.catalog, ship, audit),
        schedules=schedules,
    )


async def _repository(setting: Setting, store: ObjectStore, points: Failpoints, stack: AsyncExitStack) -> Repository:
    """The repository with its keys. Raises errors.KeyUnavailable."""
    backup = setting.settings.backup
    signing = load_signing_key(backup.signing_key_path) if backup.signing_key_path else no_signing_key()
    verifiers = [load_verifier(path) for path in backup.trusted_key_paths]
    if backup.signing_key_path:
        verifiers.insert(0, signing.signer.verifier)
    loaded = [load_recipient(path) for path in backup.key_paths]
    for problem in (*signing.problems, *(problem for each in loaded for problem in each.problems)):
        setting.report("unsafe key file", message=problem)
    recipients: list[Recipient] = [each.recipient for each in loaded]
    if backup.kms_key_id:
        recipients.append(await _kms_recipient(backup.kms_key_id, setting.settings.s3, stack))
    return Repository(
        store=store,
        catalog=Catalog(store, verifiers, signing.signer),
        keys=DataKeys(store, recipients, system_dice),
        leases=Leases(store, setting.clock, setting.instance_id),
        signer=signing.signer,
        verifiers=verifiers,
        clock=setting.clock,
        dice=system_dice,
        failpoints=points,
    )


async def _kms_recipient(key_id: str, settings: S3Settings, stack: AsyncExitStack) -> Recipient:
    # Here as in objects/buckets.py: most processes have no key service.
    import aioboto3  # noqa: PLC0415

    from services.backup.adapters.kms import KmsRecipient  # noqa: PLC0415

    return KmsRecipient(await stack.enter_async_context(aioboto3.Session().client("kms", **_aws(settings))), key_id)


def _second_hands(
    setting: Setting, archive: Archive, store: ObjectStore, verify: Verify, repository: Repository
) -> SecondHands:
    """What is done in the second store. Retention goes by the same rules, but of what the first no longer has."""
    copying = Copying(repository, store, setting.settings.backup.lock_days)
    second = replace(
        repository,
        store=store,
        catalog=copying.catalog,
        keys=repository.keys.at(store),
        leases=Leases(store, setting.clock, setting.instance_id),
    )
    rules = _prune_rules(setting.settings)
    # The first store's plans were small enough, and whatever it lost is no part of any.
    policy = replace(rules.policy, share_max=1.0)
    origin = Origin(repository.catalog, archive)
    copied = Archive(second, segments)
    audit = ArchiveAudit(second, copied, archive)
    prune = Prune(second, copied, audit, replace(rules, policy=policy), origin)
    return SecondHands(copying, verify.at(second, NAME), prune, audit)


async def _primary(settings: BackupServiceSettings, stack: AsyncExitStack) -> ObjectStore:
    if settings.backup.directory is not None:
        return DirectoryStore(settings.backup.directory)
    return BoundedStore(await stack.enter_async_context(bucket(s3_options(settings.s3))))


async def _second(settings: SecondStoreSettings, stack: AsyncExitStack) -> ObjectStore | None:
    if settings.directory is not None:
        return DirectoryStore(settings.directory)
    if settings.bucket is None:
        return None
    return BoundedStore(await stack.enter_async_context(bucket(s3_options(settings))))


def _aws(settings: S3Settings) -> dict[str, str | None]:
    """How the key service is reached: as the bucket is, or would be."""
    access, secret = settings.access_key_id, settings.secret_access_key
    return {
        "region_name": settings.region,
        "endpoint_url": settings.endpoint,
        "aws_access_key_id": access.get_secret_value() if access else None,
        "aws_secret_access_key": secret.get_secret_value() if secret else None,
    }


def _places(settings: BackupServiceSettings, options: PostgresOptions, points: Failpoints) -> Places:
    folders: Sequence[Path] = settings.backup.tool_folders
    if settings.restore.place == "schema":
        return SchemaPlaces(options, points, folders=folders)
    return DatabasePlaces(options, points, maintenance_database=settings.restore.maintenance_database, folders=folders)


def _archive_rules(settings: BackupServiceSettings) -> ArchiveRules:
    return ArchiveRules(settings.archive.seal_bytes, settings.archive.seal_seconds)


def _prune_rules(settings: BackupServiceSettings) -> PruneRules:
    backup = settings.backup
    policy = Policy(hourly=backup.keep_hourly, daily=backup.keep_daily, monthly=backup.keep_monthly)
    return PruneRules(policy, timedelta(hours=backup.delete_grace_hours), timedelta(days=settings.archive.keep_days))


def _schedules(backup: BackupSettings) -> list[Schedule]:
    crons = (backup.hourly_schedule, backup.daily_schedule, backup.monthly_schedule)
    return [Schedule(kind, cron) for kind, cron in zip(SCHEDULED, crons, strict=True) if cron]


def _drill_schedule(backup: BackupSettings) -> Schedule | None:
    return Schedule(Kind.MANUAL, backup.drill_schedule) if backup.drill_schedule else None


def _location(settings: BackupServiceSettings) -> str:
    if settings.backup.directory is not None:
        return f"directory {settings.backup.directory}"
    return f"s3 {settings.s3.bucket}/{settings.s3.prefix}"


def _second_location(settings: SecondStoreSettings) -> str:
    return f"directory {settings.directory}" if settings.directory else f"s3 {settings.bucket}/{settings.prefix}"
