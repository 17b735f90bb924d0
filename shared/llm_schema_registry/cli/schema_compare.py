"""`llmsr schema check` and `diff`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from llm_schema_registry.cli import schema_inputs, schema_views
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document, label
from llm_schema_registry.cli.reading import read_text
from llm_schema_registry.cli.schema import Check, Diff
from llm_schema_registry.cli.session import Session
from llm_schema_registry.registry.v1 import compatibility_pb2, version_pb2
from llm_schema_registry.registry.v1 import compatibility_service_pb2 as pb


async def check(session: Session, options: Check) -> ExitCode:
    """Writes the report. REFUSED unless the verdict is COMPATIBLE."""
    request = pb.CheckCompatibilityRequest(
        subject=options.subject,
        format=schema_inputs.schema_format(options.format, options.file),
        references=schema_inputs.references(options.references),
        version=options.version or 0,
        level=schema_inputs.level_wanted(options.level),
        policy=schema_inputs.policy_wanted(options.policy),
        text=await read_text(options.file),
    )
    async with session.connection.registry() as registry:
        answer = await registry.call(registry.compatibility.CheckCompatibility, request)
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        schema_views.report(session.output, answer.report)
    fine = answer.report.verdict == compatibility_pb2.VERDICT_COMPATIBLE
    return ExitCode.FINE if fine else ExitCode.REFUSED


async def diff(session: Session, options: Diff) -> ExitCode:
    """Writes what differs."""
    request = pb.DiffSchemasRequest(
        before=pb.SchemaSource(version=version_pb2.VersionKey(subject=options.subject, number=options.before)),
        after=await _after(options),
        policy=schema_inputs.policy_wanted(options.policy),
    )
    async with session.connection.registry() as registry:
        answer = await registry.call(registry.compatibility.DiffSchemas, request)
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        _tell(session, answer)
    return ExitCode.FINE


async def _after(options: Diff) -> pb.SchemaSource:
    if not options.file:
        if options.references or options.format:
            raise UsageFault("--reference and --format go with --file.")
        number = schema_inputs.number(options.after, "--to")
        return pb.SchemaSource(version=version_pb2.VersionKey(subject=options.subject, number=number))
    text = pb.SchemaText(
        format=schema_inputs.schema_format(options.format, options.file),
        references=schema_inputs.references(options.references),
        text=await read_text(options.file),
    )
    return pb.SchemaSource(text=text)


def _tell(session: Session, answer: pb.DiffSchemasResponse) -> None:
    backward, forward = label(answer, "backward"), label(answer, "forward")
    session.output.text(f"{label(answer, 'suggested_step')}  backward {backward}, forward {forward}\n")
    if answer.differences:
        session.output.table(("kind", "place", "rule", "breaks", "change"), _rows(answer.differences))
    else:
        session.output.text("No differences.")
    if answer.truncated:
        session.output.note("There are more differences than the service lists.")
    schema_views.findings(session.output, answer.findings)


def _rows(differences: Sequence[pb.Difference]) -> Iterator[Sequence[object]]:
    for one in differences:
        breaks = [
            name
            for name, verdict in (("backward", one.backward), ("forward", one.forward))
            if verdict == compatibility_pb2.VERDICT_INCOMPATIBLE
        ]
        yield label(one, "kind"), one.after_path or one.before_path or "/", one.rule, ",".join(breaks), one.message
