"""Waits for an operation of the backup or the admin service: shows its progress, outlasts a broken connection, and says
on Ctrl-C that the operation goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import aclosing
from typing import TypeVar

from llm_schema_registry import errors
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.operation_views import amount, how_to_go_on, operation_document, step
from llm_schema_registry.cli.output import Output, described
from llm_schema_registry.cli.progress import View, progress_view
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import AdminClient, BackupClient
from llm_schema_registry.operation.v1 import operation_pb2
from llm_schema_registry.operation.v1 import operation_service_pb2 as pb

RESUMES_MAX = 60
"""How often a broken watch is begun again before a step that is new. With the attempts that gRPC makes by itself some
minutes pass: longer than a restart of the service takes."""
RESUME_SECONDS = 1.0
"""Before each of them."""

A = TypeVar("A")
OperationsClient = BackupClient | AdminClient
"""A client of a service that has operations."""
_BROKEN = frozenset({errors.Code.UNAVAILABLE, errors.Code.CANCELLED})
"""How streams end that may be opened again. Source: client.calls.Calls.stream."""


async def begun(session: Session, call: Awaitable[A], *, listing: str = "llmsr backup operations") -> A:
    """The answer to a call that begins an operation. Raises what the call raises.
    listing: the command that lists the operations of the service that is called.

    After Ctrl-C nobody knows whether it began, and that is said.
    """
    try:
        return await call
    except asyncio.CancelledError:
        _tell_interrupted(session.output, f"The operation may have begun: {listing} --running", "")
        raise


async def followed(
    session: Session, client: OperationsClient, operation: operation_pb2.Operation, *, wait: bool
) -> operation_pb2.Operation | None:
    """The operation once it has ended, its progress shown; None when nobody wants to wait, which is written instead.

    JSON without waiting is one document, {"operation"}; else JSON lines, the events of WatchOperation, `ended` last.
    """
    if wait:
        return await ended(session, client, operation.name)
    if session.output.json:
        session.output.document({"operation": operation_document(operation)})
    else:
        session.output.text(f"Operation {operation.name} began.")
        session.output.note(how_to_go_on(operation.name, noun(client)))
    return None


async def ended(session: Session, client: OperationsClient, name: str) -> operation_pb2.Operation:
    """The operation once it has ended, its progress shown. Raises like WatchOperation.

    A watch that breaks is begun again, RESUMES_MAX times; then its error is raised and the operation goes on. So it
    does after Ctrl-C. Both are said.
    """
    onward = how_to_go_on(name, noun(client))
    try:
        with progress_view(session.output) as view:
            event = await _last_event(session.output, client, name, view)
    except asyncio.CancelledError:
        _tell_interrupted(session.output, f"Operation {name} goes on.\n{onward}", name)
        raise
    except errors.Error as error:
        if error.code in _BROKEN and not session.output.json:
            session.output.note(f"Operation {name} may go on.\n{onward}")
        raise
    if session.output.json:
        told = as_document(operation_pb2.OperationEvent(time=event.time))
        session.output.line({**told, "ended": operation_document(event.ended)})
    return event.ended


def noun(client: OperationsClient) -> str:
    """Whose commands watch and cancel the operations of a service."""
    return "operation" if isinstance(client, AdminClient) else "backup"


async def _last_event(output: Output, client: OperationsClient, name: str, view: View) -> operation_pb2.OperationEvent:
    """Shows every event once, and returns the one that says `ended`."""
    request = pb.WatchOperationRequest(name=name)
    shown: set[bytes] = set()
    resumes = 0
    while True:
        known = len(shown)
        try:
            async with aclosing(client.stream(client.operations.WatchOperation, request)) as answers:
                async for answer in answers:
                    if answer.event.HasField("ended"):
                        return answer.event
                    _show(view, answer.event, shown)
            broken: errors.Error = errors.NotServing("The service ended the watch before the operation ended.")
        except errors.Error as error:
            if error.code not in _BROKEN:
                raise
            broken = error
        resumes = 1 if len(shown) > known else resumes + 1
        if resumes > RESUMES_MAX:
            raise broken
        if resumes == 1 and not output.json:
            output.note("The connection broke; the operation is not affected. Watching again.")
        await asyncio.sleep(RESUME_SECONDS)


def _show(view: View, event: operation_pb2.OperationEvent, shown: set[bytes]) -> None:
    """Shows the event unless it is a step that was shown in this state: a watch begins with all that has happened."""
    if event.HasField("step"):
        told = event.step.SerializeToString(deterministic=True)
        if told not in shown:
            shown.add(told)
            view.show(step(event.step), as_document(event))
    elif event.HasField("progress"):
        view.show(amount(event.progress), as_document(event))


def _tell_interrupted(output: Output, message: str, name: str) -> None:
    if output.json:
        metadata = {"operation": name} if name else {}
        output.error_document(described("INTERRUPTED", errors.Code.CANCELLED, message, metadata=metadata))
    else:
        output.note(message)
