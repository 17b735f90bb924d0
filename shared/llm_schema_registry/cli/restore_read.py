"""`llmsr restore list` and `show`."""

from __future__ import annotations

from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.cli import restore_views
from llm_schema_registry.cli.backup import Nothing
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.restore import Show
from llm_schema_registry.cli.session import Session


async def list_(session: Session, options: Nothing) -> ExitCode:
    """Writes the restores on record."""
    del options
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.restores.ListRestores, pb.ListRestoresRequest())
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        session.output.table(restore_views.COLUMNS, restore_views.rows(answer.restores), whole=1)
    return ExitCode.FINE


async def show(session: Session, options: Show) -> ExitCode:
    """Writes a restore with what its next step would lose."""
    async with session.connection.backup() as backup:
        answer = await backup.call(backup.restores.GetRestore, pb.GetRestoreRequest(restore_id=options.id))
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        restore_views.tell_restore(session.output, answer.restore)
    return ExitCode.FINE
