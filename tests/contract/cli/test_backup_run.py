"""`llmsr backup run` from cron: one backup a slot, silent, with a status that says what to do."""

from __future__ import annotations

from typing import Any

import pytest

from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2_grpc
from llm_schema_registry.backup.v1 import backup_service_pb2 as pb
from llm_schema_registry.common.v1 import failure_pb2
from llm_schema_registry.operation.v1 import operation_pb2, operation_service_pb2, operation_service_pb2_grpc
from tests.fix_cli import BackedUp, run_here, serving_backup


def test_slot_is_filled_once(backed_up: BackedUp) -> None:
    """The first run makes the backup and says nothing; the next finds it; another slot has its own. A backup
    that was deleted is made anew."""
    first = backed_up.run("backup", "run", "--kind", "hourly", "--slot", "once")
    again = backed_up.json("backup", "run", "--kind", "hourly", "--slot", "once")
    other = backed_up.json("backup", "run", "--kind", "hourly", "--slot", "other", "--verify", "V2")

    for made in (again, other):
        assert backed_up.run("backup", "delete", made["backup"]["id"], "--apply").status == 0
    anew = backed_up.json("backup", "run", "--kind", "hourly", "--slot", "once")
    assert backed_up.run("backup", "delete", anew["backup"]["id"], "--apply").status == 0

    assert (first.status, first.stdout, first.stderr) == (0, "", "")
    assert (again["already"], other["already"]) == (True, False)
    assert again["backup"]["kind"] == "BACKUP_KIND_HOURLY"
    assert again["backup"]["id"] != other["backup"]["id"]
    assert other["verification"]["passed"]
    assert not anew["already"]


class Failing(backup_service_pb2_grpc.BackupServiceServicer):
    """A service whose backups fail so many times. asked: the request ids."""

    def __init__(self, failures: int) -> None:
        self.asked: list[str] = []
        self._failures = failures
        self._known: dict[str, operation_pb2.Operation] = {}

    def CreateBackup(self, request: pb.CreateBackupRequest, context: Any) -> pb.CreateBackupResponse:  # noqa: N802
        del context
        self.asked.append(request.request_id)
        operation = self._known.get(request.request_id)
        if operation is None:
            operation = self._known[request.request_id] = operation_pb2.Operation(name=request.request_id)
            return pb.CreateBackupResponse(operation=operation)
        return pb.CreateBackupResponse(operation=self._ended(operation))

    def GetBackup(self, request: pb.GetBackupRequest, context: Any) -> pb.GetBackupResponse:  # noqa: N802
        del context
        return pb.GetBackupResponse(backup=backup_pb2.Backup(id=request.backup_id))

    def ended(self, name: str) -> operation_pb2.Operation:
        """The operation, which has ended by now."""
        return self._ended(self._known[name])

    def _ended(self, operation: operation_pb2.Operation) -> operation_pb2.Operation:
        if not operation.done:
            operation.done = True
            if list(self._known).index(operation.name) < self._failures:
                operation.error.CopyFrom(failure_pb2.Failure(code=9, reason="BACKUP_FAILED", message="no room"))
            else:
                operation.response.Pack(backup_pb2.Backup(id="made"))
        return operation


class Operations(operation_service_pb2_grpc.OperationServiceServicer):
    """The operations of a failing service."""

    def __init__(self, service: Failing) -> None:
        self._service = service

    def GetOperation(  # noqa: N802
        self, request: operation_service_pb2.GetOperationRequest, context: Any
    ) -> operation_service_pb2.GetOperationResponse:
        del context
        return operation_service_pb2.GetOperationResponse(operation=self._service.ended(request.name))


def test_failed_slot_is_tried_again() -> None:
    """A run that failed is status 1 and says why; the next run of the slot begins anew, and fills it."""
    service = Failing(failures=1)  # type: ignore[abstract]  # what is not called is not there
    with serving_backup(service, Operations(service)) as target:  # type: ignore[abstract]
        runs = [run_here("backup", "run", "--slot", "s", "--backup-target", target) for _ in range(3)]

    assert [ran.status for ran in runs] == [1, 0, 0]
    assert "no room" in runs[0].stderr
    assert service.asked == ["run-daily-s-1", "run-daily-s-1", "run-daily-s-2", "run-daily-s-1", "run-daily-s-2"]


def test_nobody_there_is_status_3() -> None:
    """Cron can tell a service that is away from a backup that failed."""
    ran = run_here("backup", "run", "--backup-target", "127.0.0.1:1", "--timeout", "1")

    assert ran.status == 3


@pytest.mark.parametrize("slot", ["with space", "x" * 81, "ü"])
def test_slot_is_checked(slot: str) -> None:
    """A slot that fits no request id is status 2, before anything is called."""
    assert run_here("backup", "run", "--slot", slot, "--backup-target", "127.0.0.1:1").status == 2
