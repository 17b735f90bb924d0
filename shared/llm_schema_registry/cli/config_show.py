"""`llmsr config show`."""

from __future__ import annotations

from llm_schema_registry.cli.config import ServiceName, Show
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.session import Session
from llm_schema_registry.cli.tokens import read_token
from llm_schema_registry.control.v1 import control_service_pb2 as pb

DEFAULT = "default"


async def show(session: Session, options: Show) -> ExitCode:
    """Writes the options in force."""
    of_backup = options.service is ServiceName.BACKUP
    token = read_token(options.token_file, "--token-file")
    async with session.connection.control(of_backup=of_backup, token=token) as process:
        answer = await process.call(process.control.GetConfig, pb.GetConfigRequest())
    rows = [row for row in answer.options if not options.changed or row.source != DEFAULT]
    if session.output.json:
        session.output.document(as_document(pb.GetConfigResponse(options=rows)))
    else:
        session.output.table(("option", "value", "source"), ((row.option, row.value, row.source) for row in rows))
    return ExitCode.FINE
