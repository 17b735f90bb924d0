"""`llmsr operation list`, `watch` and `cancel`."""

from __future__ import annotations

from llm_schema_registry.cli import backup_operations, operation_results
from llm_schema_registry.cli.backup import Operations
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.operation import NamedHere
from llm_schema_registry.cli.operation_wait import ended
from llm_schema_registry.cli.session import Session


async def list_(session: Session, options: Operations) -> ExitCode:
    """Writes operations."""
    async with session.connection.admin() as admin:
        return await backup_operations.listed_here(session, admin, options)


async def watch(session: Session, options: NamedHere) -> ExitCode:
    """Shows an operation to its end, and what it made. REFUSED when it failed."""
    async with session.connection.admin() as admin:
        return await operation_results.tell(session, admin, await ended(session, admin, options.name))


async def cancel(session: Session, options: NamedHere) -> ExitCode:
    """Asks an operation to end."""
    async with session.connection.admin() as admin:
        return await backup_operations.cancelled(session, admin, options.name)
