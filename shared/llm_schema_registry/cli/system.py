"""`llmsr system`: what its commands take. What they do is in system_*.py, loaded when a command runs, with gRPC."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Annotated

import typer

from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.dry_run import Apply
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.options import RequestId
from llm_schema_registry.cli.session import Session

app = typer.Typer(help="See and steer all processes of the system. The admin service does the work.")

REPLICA_SECONDS = 120.0


class SystemService(enum.StrEnum):
    """Which of the services."""

    REGISTRY = "registry"
    BACKUP = "backup"
    ADMIN = "admin"


class ModeName(enum.StrEnum):
    """What a process accepts."""

    SERVING = "serving"
    READ_ONLY = "read-only"
    MAINTENANCE = "maintenance"


Services = Annotated[
    list[SystemService],
    typer.Option(
        "--service",
        metavar="NAME",
        help="Only this service; may be repeated.",
        show_default=False,
        default_factory=list,
    ),
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Begin it and return; 'llmsr operation watch' shows the rest.")]


@dataclass(frozen=True, slots=True)
class Nothing:
    """A command without options."""


@command(app, Nothing, examples=["llmsr system status", "llmsr --output json system status"])
async def status(session: Session, options: Nothing) -> ExitCode:
    """Shows every process as it sees itself, backups and archive, operations that run, and what is wrong.

    Status 1 when a service has no replica that serves. As JSON: SystemStatus.
    """
    from llm_schema_registry.cli import system_read

    return await system_read.status(session, options)


@dataclass(frozen=True, slots=True)
class Config:
    """Options of `system config`."""

    service: Annotated[SystemService, typer.Argument(help="Whose options.")]
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are not at their default.")] = False


@command(app, Config, examples=["llmsr system config registry --changed"])
async def config(session: Session, options: Config) -> ExitCode:
    """Shows the options in force at every replica of a service. Values of secrets are never told.

    Status 1 when a replica did not answer. As JSON: GetEffectiveConfigResponse.
    """
    from llm_schema_registry.cli import system_read

    return await system_read.config(session, options)


@dataclass(frozen=True, slots=True)
class Mode:
    """Options of `system mode`."""

    mode: Annotated[ModeName, typer.Argument(help="What is accepted: everything, reads alone, control alone.")]
    service: Services


@command(app, Mode, examples=["llmsr system mode read-only", "llmsr system mode serving"])
async def mode(session: Session, options: Mode) -> ExitCode:
    """Sets what every replica of the registry accepts, until its next start.

    Status 1 when a replica did not do it: repeat it then. As JSON: SetModeResponse.
    """
    from llm_schema_registry.cli import system_write

    return await system_write.mode(session, options)


@dataclass(frozen=True, slots=True)
class Flush:
    """Options of `system flush`."""

    service: Services


@command(app, Flush, examples=["llmsr system flush"])
async def flush(session: Session, options: Flush) -> ExitCode:
    """Makes every replica of the registry forget what it keeps of the database, and the shared cache too.

    It costs time, never correctness. Status 1 when a replica did not do it. As JSON: FlushCachesResponse.
    """
    from llm_schema_registry.cli import system_write

    return await system_write.flush(session, options)


@dataclass(frozen=True, slots=True)
class Stop:
    """Options of `system restart` and `system shutdown`."""

    service: Services
    cause: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the logs of what is stopped.")] = ""
    replica_seconds: Annotated[float, typer.Option(metavar="SECONDS", help="How long one replica may take.")] = (
        REPLICA_SECONDS
    )
    apply: Apply = False
    request_id: RequestId = ""
    no_wait: NoWait = False


@command(app, Stop, examples=["llmsr system restart", "llmsr system restart --service registry"])
async def restart(session: Session, options: Stop) -> ExitCode:
    """Restarts every replica, one after the other: the next one only when the one before serves again.

    A supervisor must start what ends with exit status 75. It ends at the first replica that does not come back. Without
    --apply it only says what it would restart. As JSON with --apply: JSON lines, the events of WatchOperation, 'ended'
    with the ShutdownRecord the last.
    """
    from llm_schema_registry.cli import system_write

    return await system_write.stop(session, options, rolling=True)


@command(app, Stop, examples=["llmsr system shutdown"])
async def shutdown(session: Session, options: Stop) -> ExitCode:
    """Stops every replica for good: the registry, then the backup service with the archive complete, then this service.

    Without --apply it only says what it would stop. As JSON with --apply: JSON lines, the events of WatchOperation,
    'ended' with the ShutdownRecord the last.
    """
    from llm_schema_registry.cli import system_write

    return await system_write.stop(session, options, rolling=False)
