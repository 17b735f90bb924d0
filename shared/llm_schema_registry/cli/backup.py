"""`llmsr backup`: what its commands take. What they do is in backup_*.py, loaded when a command runs, with gRPC."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

import typer

from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.dry_run import Apply
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.options import NoWait, RequestId
from llm_schema_registry.cli.paging import LISTED_MAX, Limit, PageToken
from llm_schema_registry.cli.session import Session

app = typer.Typer(help="Make backups, verify them, see what can be restored. The backup service does the work.")

EXAMPLE_BACKUP = "01KAX5DBZ8Q7M3T9W2R6Y4V1NS"
EXAMPLE_OPERATION = "backup-01kax5dbz8q7m3t9w2r6y4v1ns"
"""Stand in examples for what everybody has others of; tests put real ones in their place."""


class KindName(enum.StrEnum):
    """Why a backup was made."""

    HOURLY = "hourly"
    DAILY = "daily"
    MONTHLY = "monthly"
    MANUAL = "manual"
    SAFETY = "safety"


class LevelName(enum.StrEnum):
    """How far a backup is verified; each level includes those before it."""

    V1 = "V1"
    V2 = "V2"
    V3 = "V3"
    V4 = "V4"


BackupId = Annotated[
    str, typer.Argument(metavar="ID", help="The backup, as 'llmsr backup list' shows it.", show_default=False)
]
OperationName = Annotated[
    str, typer.Argument(metavar="NAME", help="The operation, as 'llmsr backup operations' shows it.")
]


@dataclass(frozen=True, slots=True)
class Create:
    """Options of `backup create`."""

    kind: Annotated[
        KindName, typer.Option(case_sensitive=False, help="Why; one of a schedule's kind fills its slot.")
    ] = KindName.MANUAL
    pin: Annotated[bool, typer.Option("--pin", help="Never delete it by retention.")] = False
    request_id: RequestId = ""
    no_wait: NoWait = False


@command(app, Create, examples=["llmsr backup create"])
async def create(session: Session, options: Create) -> ExitCode:
    """Makes a backup of the live database, and shows how far it is.

    The backup exists once the command ends with status 0; one that fails leaves nothing, status 1. Ctrl-C ends the
    waiting, not the backup. As JSON: JSON lines, the events of WatchOperation, 'ended' with the Backup the last; with
    --no-wait CreateBackupResponse.
    """
    from llm_schema_registry.cli import backup_write

    return await backup_write.create(session, options)


class SlotKind(enum.StrEnum):
    """Kinds of which one is enough in a stretch of time."""

    HOURLY = "hourly"
    DAILY = "daily"
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True)
class RunOnce:
    """Options of `backup run`."""

    kind: Annotated[SlotKind, typer.Option(case_sensitive=False, help="Why; says how long a slot is.")] = SlotKind.DAILY
    slot: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="The slot to fill: letters, digits, '-_.:'.",
            show_default="this hour, day or month, UTC",
        ),
    ] = ""
    verify: Annotated[
        LevelName | None,
        typer.Option(case_sensitive=False, help="Also verify what was made, as 'llmsr backup verify' does."),
    ] = None


@command(app, RunOnce, examples=["llmsr backup run --kind hourly"])
async def run(session: Session, options: RunOnce) -> ExitCode:
    """Makes the backup of a slot and waits for it, for cron: silent when all is well, and safe to repeat.

    Status 0 when the slot's backup is made, also when an earlier run made it; 1 when it failed, which the next run of
    the slot tries again, or did not verify; 3 when the service cannot be reached. As JSON: {"slot", "already": whether
    an earlier run made it, "backup", "verification"}.
    """
    from llm_schema_registry.cli import backup_run

    return await backup_run.run(session, options)


@dataclass(frozen=True, slots=True)
class List:
    """Options of `backup list`."""

    kind: Annotated[KindName | None, typer.Option(case_sensitive=False, help="Only those of this kind.")] = None
    verified: Annotated[
        LevelName | None, typer.Option(case_sensitive=False, help="Only those verified so far, or further.")
    ] = None
    limit: Limit = LISTED_MAX
    page_token: PageToken = ""


@command(app, List, name="list", examples=["llmsr backup list", "llmsr backup list --verified V3 --limit 1"])
async def list_(session: Session, options: List) -> ExitCode:
    """Lists the backups, newest first, as the object store has them.

    PLACE is epoch/position of the newest change. Manifests that cannot be trusted are named on standard error. As JSON:
    ListBackupsResponse, with them as its problems.
    """
    from llm_schema_registry.cli import backup_read

    return await backup_read.list_(session, options)


@dataclass(frozen=True, slots=True)
class Show:
    """Options of `backup show`."""

    id: BackupId


@command(app, Show, examples=[f"llmsr backup show {EXAMPLE_BACKUP}"])
async def show(session: Session, options: Show) -> ExitCode:
    """Shows a backup with its verifications, tables and objects.

    As JSON: GetBackupResponse.
    """
    from llm_schema_registry.cli import backup_read

    return await backup_read.show(session, options)


@dataclass(frozen=True, slots=True)
class Verify:
    """Options of `backup verify`."""

    id: BackupId
    level: Annotated[
        LevelName,
        typer.Option(
            case_sensitive=False,
            help="V1: sizes and checksums in the store. V2: the keys open it. V3: every byte is read. V4: restored.",
        ),
    ] = LevelName.V3
    request_id: RequestId = ""
    no_wait: NoWait = False


@command(app, Verify, examples=[f"llmsr backup verify {EXAMPLE_BACKUP} --level V2"])
async def verify(session: Session, options: Verify) -> ExitCode:
    """Verifies a backup and lists what is wrong with it.

    Status 1 when it did not pass. As JSON: JSON lines, the events of WatchOperation, 'ended' with the Verification the
    last; with --no-wait VerifyBackupResponse.
    """
    from llm_schema_registry.cli import backup_write

    return await backup_write.verify(session, options)


@dataclass(frozen=True, slots=True)
class Pin:
    """Options of `backup pin` and `backup unpin`."""

    id: BackupId


@command(app, Pin, examples=[f"llmsr backup pin {EXAMPLE_BACKUP}"])
async def pin(session: Session, options: Pin) -> ExitCode:
    """Pins a backup: nothing deletes it until it is unpinned.

    As JSON: UpdateBackupResponse.
    """
    from llm_schema_registry.cli import backup_write

    return await backup_write.pin(session, options, pinned=True)


@command(app, Pin, examples=[f"llmsr backup unpin {EXAMPLE_BACKUP}"])
async def unpin(session: Session, options: Pin) -> ExitCode:
    """Unpins a backup: retention decides about it again.

    As JSON: UpdateBackupResponse.
    """
    from llm_schema_registry.cli import backup_write

    return await backup_write.pin(session, options, pinned=False)


@dataclass(frozen=True, slots=True)
class Delete:
    """Options of `backup delete`."""

    id: BackupId
    apply: Apply = False


@command(app, Delete, examples=[f"llmsr backup delete {EXAMPLE_BACKUP}"])
async def delete(session: Session, options: Delete) -> ExitCode:
    """Deletes one backup at once. Without --apply it only says what would happen.

    Refused with status 1 for one that is pinned or locked, and for the newest ones verified to V3. As JSON:
    {"applied": bool, "backup_id", and the fields of DeleteBackupResponse}.
    """
    from llm_schema_registry.cli import backup_delete

    return await backup_delete.delete(session, options)


@dataclass(frozen=True, slots=True)
class Prune:
    """Options of `backup prune`."""

    force: Annotated[bool, typer.Option("--force", help="Also when more than a fifth of the backups would go.")] = False
    apply: Apply = False


@command(app, Prune, examples=["llmsr backup prune"])
async def prune(session: Session, options: Prune) -> ExitCode:
    """Deletes what retention does not keep. Without --apply it shows what would go, and each decision's cause.

    What goes is buried first and deleted after its grace time. Status 1 when nothing may be deleted, for example
    because no backup was proven for too long. As JSON: {"applied": bool, and the fields of PruneBackupsResponse}.
    """
    from llm_schema_registry.cli import backup_delete

    return await backup_delete.prune(session, options)


@dataclass(frozen=True, slots=True)
class Nothing:
    """Commands without options of their own."""


@command(app, Nothing, examples=["llmsr backup schedules"])
async def schedules(session: Session, options: Nothing) -> ExitCode:
    """Shows when backups are made, in UTC.

    As JSON: ListSchedulesResponse.
    """
    from llm_schema_registry.cli import backup_read

    return await backup_read.schedules(session, options)


@command(app, Nothing, examples=["llmsr backup archive"])
async def archive(session: Session, options: Nothing) -> ExitCode:
    """Shows the archive of changes: its lag behind the database, and the times that a restore can go to.

    Status 1 when nothing is archived at the moment though it should be, or when the archive is broken somewhere. As
    JSON: GetArchiveStatusResponse.
    """
    from llm_schema_registry.cli import backup_read

    return await backup_read.archive(session, options)


@command(app, Nothing, examples=["llmsr backup stores"])
async def stores(session: Session, options: Nothing) -> ExitCode:
    """Shows the object stores that backups are kept in, what they can do, and what is wrong with them.

    Status 1 when anything is. As JSON: GetStoreStatusResponse.
    """
    from llm_schema_registry.cli import backup_read

    return await backup_read.stores(session, options)


@command(app, Nothing, name="rebuild-catalog", examples=["llmsr backup rebuild-catalog"])
async def rebuild_catalog(session: Session, options: Nothing) -> ExitCode:
    """Writes the catalog anew from the manifests in the store, and lists what does not fit together.

    Status 1 when anything does not; the catalog is written all the same. As JSON: RebuildCatalogResponse.
    """
    from llm_schema_registry.cli import backup_write

    return await backup_write.rebuild_catalog(session, options)


@dataclass(frozen=True, slots=True)
class RotateKeys:
    """Options of `backup rotate-keys`."""

    apply: Apply = False


@command(app, RotateKeys, name="rotate-keys", examples=["llmsr backup rotate-keys"])
async def rotate_keys(session: Session, options: RotateKeys) -> ExitCode:
    """Wraps every data key for the recipients in the service's settings. Without --apply it only says how many.

    The backups themselves stay as they are. As JSON: {"applied": bool, and the fields of RotateKeysResponse}.
    """
    from llm_schema_registry.cli import backup_write

    return await backup_write.rotate_keys(session, options)


@dataclass(frozen=True, slots=True)
class Drill:
    """Options of `backup drill`."""

    request_id: RequestId = ""
    no_wait: NoWait = False


@command(app, Drill, examples=["llmsr backup drill"])
async def drill(session: Session, options: Drill) -> ExitCode:
    """Restores the newest verified backup and all of the archive to a scratch database, verifies, measures, drops it.

    Status 1 when it did not pass. As JSON: JSON lines, the events of WatchOperation, 'ended' with the Drill the last;
    with --no-wait RunDrillResponse.
    """
    from llm_schema_registry.cli import backup_write

    return await backup_write.drill(session, options)


@dataclass(frozen=True, slots=True)
class Operations:
    """Options of `backup operations`."""

    running: Annotated[bool, typer.Option("--running", help="Only those that have not ended.")] = False
    limit: Limit = LISTED_MAX
    page_token: PageToken = ""


@command(app, Operations, examples=["llmsr backup operations --running"])
async def operations(session: Session, options: Operations) -> ExitCode:
    """Lists what the backup service does and did: backups, verifications, restores, drills; newest first.

    As JSON: ListOperationsResponse.
    """
    from llm_schema_registry.cli import backup_operations

    return await backup_operations.operations(session, options)


@dataclass(frozen=True, slots=True)
class Named:
    """Options of `backup watch` and `backup cancel`."""

    name: OperationName


@command(app, Named, examples=[f"llmsr backup watch {EXAMPLE_OPERATION}"])
async def watch(session: Session, options: Named) -> ExitCode:
    """Shows an operation from its start to its end, and what it made; as the command that began it does.

    Status 1 when it failed, or found that something is not as it should be. As JSON: JSON lines, the events of
    WatchOperation, 'ended' the last.
    """
    from llm_schema_registry.cli import backup_operations

    return await backup_operations.watch(session, options)


@command(app, Named, examples=[f"llmsr backup cancel {EXAMPLE_OPERATION}"])
async def cancel(session: Session, options: Named) -> ExitCode:
    """Asks an operation to end; what it had begun is undone. One that has ended stays as it is.

    It returns at once: 'llmsr backup watch' shows the end. As JSON: CancelOperationResponse.
    """
    from llm_schema_registry.cli import backup_operations

    return await backup_operations.cancel(session, options)
