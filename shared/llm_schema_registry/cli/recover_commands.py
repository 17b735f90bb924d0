"""`llmsr recover start`, `resume`, `abort`, `show` and `list`."""

from __future__ import annotations

import re

from google.protobuf.timestamp_pb2 import Timestamp

from llm_schema_registry import errors
from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.admin.v1 import recovery_service_pb2 as pb
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.cli import dry_run, operation_results, recover_views
from llm_schema_registry.cli.backup import Nothing
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.operation_wait import begun, followed
from llm_schema_registry.cli.recover import Onward, Show, Start
from llm_schema_registry.cli.restore_prepare import EPOCH_MAX, POSITION_MAX
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import AdminClient

LISTING = "llmsr operation list"
LATEST = "latest"
_PLACE = re.compile(r"([0-9]{1,10})/([0-9]{1,19})", re.ASCII)
_BACKUP = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)


async def start(session: Session, options: Start) -> ExitCode:
    """Plans a recovery, or does it. REFUSED when it failed, or would."""
    if options.stop_first and options.serve:
        raise UsageFault("--stop-first and --serve say the contrary: one of them, or neither.")
    if not options.apply and options.no_wait:
        raise UsageFault("--no-wait goes with --apply: without it nothing is begun.")
    request = pb.StartRecoveryRequest(spec=_spec(options), dry_run=not options.apply, request_id=options.request_id)
    async with session.connection.admin() as admin:
        answer = await begun(session, admin.call(admin.recoveries.StartRecovery, request), listing=LISTING)
        operation = await followed(session, admin, answer.operation, wait=not options.no_wait)
        status = await operation_results.tell(session, admin, operation)
    if not options.apply and not session.output.json:
        session.output.note("Nothing was changed: --apply does it.")
    return status


async def resume(session: Session, options: Onward) -> ExitCode:
    """Goes on with a recovery, or says with what. REFUSED when it failed."""
    async with session.connection.admin() as admin:
        if not options.apply:
            return await _plan(session, admin, options, back=False)
        request = pb.ResumeRecoveryRequest(
            recovery_id=options.id, confirmation=options.confirm, request_id=options.request_id
        )
        answer = await begun(session, admin.call(admin.recoveries.ResumeRecovery, request), listing=LISTING)
        operation = await followed(session, admin, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, admin, operation)


async def abort(session: Session, options: Onward) -> ExitCode:
    """Goes back, or says how. REFUSED when it failed."""
    async with session.connection.admin() as admin:
        if not options.apply:
            return await _plan(session, admin, options, back=True)
        request = pb.AbortRecoveryRequest(
            recovery_id=options.id, confirmation=options.confirm, request_id=options.request_id
        )
        answer = await begun(session, admin.call(admin.recoveries.AbortRecovery, request), listing=LISTING)
        operation = await followed(session, admin, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, admin, operation)


async def show(session: Session, options: Show) -> ExitCode:
    """Writes a recovery."""
    async with session.connection.admin() as admin:
        recovery = await _get(admin, options.id)
    if session.output.json:
        session.output.document(as_document(pb.GetRecoveryResponse(recovery=recovery)))
    else:
        recover_views.tell(session.output, recovery)
    return ExitCode.FINE


async def list_(session: Session, options: Nothing) -> ExitCode:
    """Writes the recoveries on record."""
    del options
    async with session.connection.admin() as admin:
        answer = await admin.call(admin.recoveries.ListRecoveries, pb.ListRecoveriesRequest())
    if session.output.json:
        session.output.document(as_document(answer))
    else:
        session.output.table(recover_views.COLUMNS, recover_views.rows(answer.recoveries), whole=1)
    return ExitCode.FINE


async def _plan(session: Session, admin: AdminClient, options: Onward, *, back: bool) -> ExitCode:
    """Says which steps `--apply` would do, or undo."""
    if options.request_id or options.no_wait:
        raise UsageFault("--request-id and --no-wait go with --apply: without it nothing is begun.")
    recovery = await _get(admin, options.id)
    over = (recovery_pb2.RECOVERY_STATE_DONE, recovery_pb2.RECOVERY_STATE_ABORTED)
    passed = (recovery_pb2.RECOVERY_STEP_STATE_DONE, recovery_pb2.RECOVERY_STEP_STATE_SKIPPED)
    if recovery.state in over:
        state = recovery_pb2.RecoveryState.Name(recovery.state).removeprefix("RECOVERY_STATE_")
        raise errors.IllegalState(f"Recovery {recovery.id} is {state}: it has ended.", metadata={"state": state})
    if back:
        steps = [one.undo for one in reversed(recovery.steps) if one.undo and one.attempts]
    else:
        steps = [one.purpose for one in recovery.steps if one.state not in passed]
    dry_run.planned(session.output, steps, {"recovery": as_document(recovery)})
    return ExitCode.FINE


async def _get(admin: AdminClient, recovery_id: str) -> recovery_pb2.Recovery:
    answer = await admin.call(admin.recoveries.GetRecovery, pb.GetRecoveryRequest(recovery_id=recovery_id))
    return answer.recovery


def _spec(options: Start) -> recovery_pb2.RecoverySpec:
    traffic = recovery_pb2.TRAFFIC_POLICY_FENCE_WRITES
    if options.stop_first:
        traffic = recovery_pb2.TRAFFIC_POLICY_STOP_FIRST
    elif options.serve:
        traffic = recovery_pb2.TRAFFIC_POLICY_SERVE
    safety = recovery_pb2.SAFETY_POLICY_NONE if options.no_safety else recovery_pb2.SAFETY_POLICY_REQUIRED
    return recovery_pb2.RecoverySpec(
        target=target(options.to),
        traffic=traffic,
        safety=safety,
        confirmation=options.confirm,
        cause=options.cause,
    )


def target(text: str) -> restore_pb2.RestoreTarget:
    """The target that a text names: the four kinds cannot be taken for each other. Raises UsageFault for any other."""
    if text == LATEST:
        return restore_pb2.RestoreTarget(latest=True)
    if _BACKUP.fullmatch(text):
        return restore_pb2.RestoreTarget(backup_id=text)
    if found := _PLACE.fullmatch(text):
        epoch, position = int(found[1]), int(found[2])
        if 1 <= epoch <= EPOCH_MAX and position <= POSITION_MAX:
            return restore_pb2.RestoreTarget(place=restore_pb2.HistoryPlace(epoch=epoch, position=position))
    time = Timestamp()
    try:
        time.FromJsonString(text)
    except ValueError:
        raise UsageFault(
            f"--to: {text!r} is no target. Write 'latest', a backup's id, a moment as in 2026-11-23T18:30:00Z, or"
            " epoch/position as in 1/340."
        ) from None
    return restore_pb2.RestoreTarget(time=time)
