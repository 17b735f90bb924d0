"""`llmsr config show`."""

from __future__ import annotations

from pathlib import Path

from llm_schema_registry.cli.config import ServiceName, Show
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.session import Session
from llm_schema_registry.control.v1 import control_service_pb2 as pb

TOKEN_BYTES_MAX = 4096
DEFAULT = "default"


async def show(session: Session, options: Show) -> ExitCode:
    """Writes the options in force."""
    of_backup = options.service is ServiceName.BACKUP
    token = _token(options.token_file)
    async with session.connection.control(of_backup=of_backup, token=token) as process:
        answer = await process.call(process.control.GetConfig, pb.GetConfigRequest())
    rows = [row for row in answer.options if not options.changed or row.source != DEFAULT]
    if session.output.json:
        session.output.document(as_document(pb.GetConfigResponse(options=rows)))
    else:
        session.output.table(("option", "value", "source"), ((row.option, row.value, row.source) for row in rows))
    return ExitCode.FINE


def _token(path: Path | None) -> str:
    """The token in a file, empty without one. Raises UsageFault for a file that holds none."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageFault(f"--token-file: {path} cannot be read, or holds no token.") from None
    if not token or any(character.isspace() for character in token):
        raise UsageFault(f"--token-file: {path} holds no token.")
    return token
