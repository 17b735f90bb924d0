"""`llmsr system status` and `config`."""

from __future__ import annotations

from llm_schema_registry.admin.v1 import admin_service_pb2 as pb
from llm_schema_registry.cli import system_views
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.session import Session
from llm_schema_registry.cli.system import Config, Nothing
from llm_schema_registry.control.v1 import process_pb2

DEFAULT = "default"


async def status(session: Session, options: Nothing) -> ExitCode:
    """Writes the status. REFUSED when the system is UNHEALTHY."""
    del options
    async with session.connection.admin() as admin:
        found = (await admin.call(admin.system.GetSystemStatus, pb.GetSystemStatusRequest())).status
    if session.output.json:
        session.output.document(as_document(found))
    else:
        system_views.tell_status(session.output, found)
    return ExitCode.REFUSED if found.health == process_pb2.HEALTH_STATUS_UNHEALTHY else ExitCode.FINE


async def config(session: Session, options: Config) -> ExitCode:
    """Writes the options in force. REFUSED when a replica did not answer."""
    async with session.connection.admin() as admin:
        request = pb.GetEffectiveConfigRequest(service=options.service)
        answer = await admin.call(admin.system.GetEffectiveConfig, request)
    if options.changed:
        for replica in answer.replicas:
            kept = [row for row in replica.options if row.source != DEFAULT]
            del replica.options[:]
            replica.options.extend(kept)
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        rows = [(each.address, row.option, row.value, row.source) for each in answer.replicas for row in each.options]
        session.output.table(("address", "option", "value", "source"), rows)
        for replica in answer.replicas:
            if replica.problem:
                session.output.note(replica.problem)
    there = answer.replicas and not any(each.problem for each in answer.replicas)
    return ExitCode.FINE if there else ExitCode.REFUSED
