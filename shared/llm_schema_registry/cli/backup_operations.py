"""`llmsr backup operations`, `watch` and `cancel`."""

from __future__ import annotations

from llm_schema_registry.cli import operation_results, operation_views
from llm_schema_registry.cli.backup import Named, Operations
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.operation_views import how_to_go_on
from llm_schema_registry.cli.operation_wait import OperationsClient, ended, noun
from llm_schema_registry.cli.paging import listed, note_more
from llm_schema_registry.cli.session import Session
from llm_schema_registry.operation.v1 import operation_service_pb2 as pb

PAGE_MAX = 200
"""Largest page that the service gives. Source: operation_service.proto."""


async def operations(session: Session, options: Operations) -> ExitCode:
    """Writes operations."""
    async with session.connection.backup() as backup:
        return await listed_here(session, backup, options)


async def listed_here(session: Session, client: OperationsClient, options: Operations) -> ExitCode:
    """Writes the operations of a service."""

    async def read(page_size: int, token: str) -> pb.ListOperationsResponse:
        request = pb.ListOperationsRequest(running_only=options.running, page_size=page_size, page_token=token)
        return await client.call(client.operations.ListOperations, request)

    found = await listed(
        read, lambda page: page.operations, limit=options.limit, token=options.page_token, page_size_max=PAGE_MAX
    )
    if session.output.json:
        entries = [operation_views.operation_document(one) for one in found.entries]
        session.output.document({"operations": entries, "next_page_token": found.next_page_token})
    else:
        session.output.table(operation_views.COLUMNS, operation_views.rows(found.entries), whole=1)
        note_more(session.output, found)
    return ExitCode.FINE


async def watch(session: Session, options: Named) -> ExitCode:
    """Shows an operation to its end, and what it made. REFUSED when it failed or did not pass."""
    async with session.connection.backup() as backup:
        return await operation_results.tell(session, backup, await ended(session, backup, options.name))


async def cancel(session: Session, options: Named) -> ExitCode:
    """Asks an operation to end."""
    async with session.connection.backup() as backup:
        return await cancelled(session, backup, options.name)


async def cancelled(session: Session, client: OperationsClient, name: str) -> ExitCode:
    """Asks an operation of a service to end, and writes it."""
    answer = await client.call(client.operations.CancelOperation, pb.CancelOperationRequest(name=name))
    operation = answer.operation
    if session.output.json:
        session.output.document({"operation": operation_views.operation_document(operation)})
    elif operation.done:
        session.output.text(f"Operation {operation.name} has ended already: {operation_views.state(operation)}")
    else:
        session.output.text(f"Operation {operation.name} was asked to end.")
        session.output.note(how_to_go_on(operation.name, noun(client)).partition("\n")[0])
    return ExitCode.FINE
