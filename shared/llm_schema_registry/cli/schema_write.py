"""`llmsr schema register`."""

from __future__ import annotations

from llm_schema_registry.cli import schema_inputs, schema_views
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.reading import read_text
from llm_schema_registry.cli.schema import Register
from llm_schema_registry.cli.session import Session
from llm_schema_registry.registry.v1 import compatibility_pb2, version_pb2
from llm_schema_registry.registry.v1 import schema_service_pb2 as pb


async def register(session: Session, options: Register) -> ExitCode:
    """Registers, and writes the version. REFUSED for a schema that `--validate-only` found unfit."""
    request = pb.RegisterSchemaRequest(
        subject=options.subject,
        format=schema_inputs.schema_format(options.format, options.file),
        references=schema_inputs.references(options.references),
        state=version_pb2.VERSION_STATE_DRAFT if options.draft else version_pb2.VERSION_STATE_UNSPECIFIED,
        description=options.description,
        owner=options.owner,
        tags=options.tags,
        metadata=schema_inputs.metadata(options.metadata),
        validate_only=options.validate_only,
        request_id=options.request_id,
        accept_undecided=options.accept_undecided,
        text=await read_text(options.file),
    )
    async with session.connection.registry() as registry:
        answer = await registry.call(registry.schemas.RegisterSchema, request)
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        _tell(session, options, answer)
    return _status(options, answer)


def _tell(session: Session, options: Register, answer: pb.RegisterSchemaResponse) -> None:
    version = answer.version
    if options.validate_only:
        schema_views.report(session.output, answer.report)
        if not _status(options, answer):
            session.output.text("\nIt would be registered." if answer.created else "\nThe subject has it already.")
        return
    begun = "Registered" if answer.created else "Found"
    state = schema_views.state(version)
    session.output.text(f"{begun} {version.subject} version {version.number}, id {version.schema_id}, {state}")


def _status(options: Register, answer: pb.RegisterSchemaResponse) -> ExitCode:
    fit = {compatibility_pb2.VERDICT_UNSPECIFIED, compatibility_pb2.VERDICT_COMPATIBLE}
    if options.accept_undecided:
        fit.add(compatibility_pb2.VERDICT_UNDECIDED)
    return ExitCode.FINE if answer.report.verdict in fit else ExitCode.REFUSED
