"""`llmsr restore prepare`."""

from __future__ import annotations

import re

from google.protobuf.timestamp_pb2 import Timestamp

from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.cli import backup_inputs, operation_results
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.operation_wait import begun, followed
from llm_schema_registry.cli.restore import Prepare
from llm_schema_registry.cli.session import Session

EPOCH_MAX = 2**31 - 1
POSITION_MAX = 2**63 - 1
"""Source: restore.proto, HistoryPlace."""
_PLACE = re.compile(r"([0-9]{1,10})/([0-9]{1,19})", re.ASCII)


async def prepare(session: Session, options: Prepare) -> ExitCode:
    """Prepares a restore and writes it with its loss window. REFUSED when it failed."""
    request = pb.PrepareRestoreRequest(
        target=target(options),
        verified_level=backup_inputs.level(options.verified),
        request_id=options.request_id,
    )
    async with session.connection.backup() as backup:
        answer = await begun(session, backup.call(backup.restores.PrepareRestore, request))
        operation = await followed(session, backup, answer.operation, wait=not options.no_wait)
        return await operation_results.tell(session, backup, operation)


def target(options: Prepare) -> restore_pb2.RestoreTarget:
    """The target that the options name. Raises UsageFault unless it is exactly one."""
    given = [options.latest, bool(options.backup), bool(options.time), bool(options.place)]
    if sum(given) != 1:
        raise UsageFault("Say where to: one of --latest, --backup, --time and --place.")
    if options.backup:
        return restore_pb2.RestoreTarget(backup_id=options.backup)
    if options.time:
        return restore_pb2.RestoreTarget(time=_time(options.time))
    if options.place:
        return restore_pb2.RestoreTarget(place=_place(options.place))
    return restore_pb2.RestoreTarget(latest=True)


def _time(text: str) -> Timestamp:
    time = Timestamp()
    try:
        time.FromJsonString(text)
    except ValueError:
        raise UsageFault(
            f"--time: {text!r} is no moment. Write it as in 2026-11-23T18:30:00Z, or with the zone: +02:00."
        ) from None
    return time


def _place(text: str) -> restore_pb2.HistoryPlace:
    found = _PLACE.fullmatch(text)
    epoch, position = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= epoch <= EPOCH_MAX or position > POSITION_MAX:
        raise UsageFault(f"--place: {text!r} is no place. Write epoch/position, for example 1/340.")
    return restore_pb2.HistoryPlace(epoch=epoch, position=position)
