"""Waiting for an operation whose connection breaks, and answers of the backup service that are seldom seen."""

# ruff: noqa: N802, ARG002
# A servicer's methods have the contract's names and parameters.

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as Packed

from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2_grpc, restore_pb2
from llm_schema_registry.backup.v1 import backup_service_pb2 as backups_pb
from llm_schema_registry.cli import operation_wait
from llm_schema_registry.operation.v1 import operation_pb2, operation_service_pb2_grpc
from llm_schema_registry.operation.v1 import operation_service_pb2 as pb
from tests.fix_cli import Ran, Start, run_here, serving_backup

NAME = "backup-1"
JSON = ["--output", "json"]


def happened(name: str, state: operation_pb2.StepState.ValueType) -> pb.WatchOperationResponse:
    """A step that began or ended."""
    step = operation_pb2.OperationStep(name=name, state=state)
    return pb.WatchOperationResponse(event=operation_pb2.OperationEvent(step=step))


def over(operation: operation_pb2.Operation) -> pb.WatchOperationResponse:
    """The event that says the end."""
    return pb.WatchOperationResponse(event=operation_pb2.OperationEvent(ended=operation))


DUMP_RUNS = happened("dump", operation_pb2.STEP_STATE_RUNNING)
DUMP_DONE = happened("dump", operation_pb2.STEP_STATE_DONE)
STORE_RUNS = happened("store", operation_pb2.STEP_STATE_RUNNING)
DONE = over(operation_pb2.Operation(name=NAME, done=True, kind=operation_pb2.OPERATION_KIND_PRUNE))


class Watch(operation_service_pb2_grpc.OperationServiceServicer):
    """Each watch gives the next list of events, the last one again and again; one without an end breaks with the code,
    or just ends.
    """

    def __init__(self, *streams: Sequence[pb.WatchOperationResponse], code: grpc.StatusCode | None) -> None:
        self.streams = list(streams)
        self.code = code

    def WatchOperation(self, request: pb.WatchOperationRequest, context: Any) -> Iterator[pb.WatchOperationResponse]:
        events = self.streams.pop(0) if len(self.streams) > 1 else self.streams[0]
        yield from events
        if not events[-1].event.HasField("ended") and self.code is not None:
            context.abort(self.code, "the connection broke")


def serving_watch(
    *streams: Sequence[pb.WatchOperationResponse], code: grpc.StatusCode | None = None, port: int = 0
) -> AbstractContextManager[str]:
    """Address of a server with Watch; its other methods are UNIMPLEMENTED."""
    return serving_backup(Watch(*streams, code=code), port=port)  # type: ignore[abstract]


def watch(
    *streams: Sequence[pb.WatchOperationResponse], code: grpc.StatusCode | None = None, more: Sequence[str] = ()
) -> Ran:
    """`llmsr backup watch` against Watch."""
    with serving_watch(*streams, code=code) as target:
        return run_here("backup", "watch", NAME, *more, LLMSR_BACKUP_TARGET=target)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken watch is begun again at once, twice."""
    monkeypatch.setattr(operation_wait, "RESUMES_MAX", 2)
    monkeypatch.setattr(operation_wait, "RESUME_SECONDS", 0.0)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, None])
def test_a_broken_watch_is_begun_again(code: grpc.StatusCode | None) -> None:
    """However a stream ends before its operation, the next one goes on, and no step is told twice."""
    streams = [DUMP_RUNS], [DUMP_RUNS, DUMP_DONE], [DUMP_DONE, STORE_RUNS, DONE]

    ran = watch(*streams, code=code, more=JSON)

    assert (ran.status, ran.stderr) == (0, "")
    steps = [(line["step"]["name"], line["step"]["state"]) for line in ran.lines if "step" in line]
    assert steps == [
        ("dump", "STEP_STATE_RUNNING"),
        ("dump", "STEP_STATE_DONE"),
        ("store", "STEP_STATE_RUNNING"),
    ]
    assert ran.lines[-1]["ended"]["name"] == NAME


@pytest.mark.usefixtures("no_waiting")
def test_a_watch_that_only_breaks_is_given_up() -> None:
    """After so many attempts without news it is status 3, and says that the operation may go on."""
    ran = watch([DUMP_RUNS], code=grpc.StatusCode.UNAVAILABLE)

    assert ran.status == 3
    assert ran.stderr.count("dump: running") == 1
    assert ran.stderr.count("Watching again.") == 1
    assert f"Operation {NAME} may go on.\nWatch it: llmsr backup watch {NAME}\n" in ran.stderr
    assert ran.stderr.endswith("Reason: UNREACHABLE\n")


@pytest.mark.usefixtures("no_waiting")
def test_a_refused_watch_is_not_repeated() -> None:
    """Every other error ends the command at once."""
    ran = watch([DUMP_RUNS], [DONE], code=grpc.StatusCode.PERMISSION_DENIED, more=JSON)

    assert ran.status == 1
    assert json.loads(ran.stderr)["error"]["code"] == "PERMISSION_DENIED"


def test_a_watch_outlasts_a_restart_of_the_service(start_llmsr: Start, free_port: Callable[[], int]) -> None:
    """The service goes away and comes back at its address: the watch goes on there."""
    port = free_port()
    with ExitStack() as first:
        target = first.enter_context(serving_watch([DUMP_RUNS], code=grpc.StatusCode.UNAVAILABLE, port=port))
        process = start_llmsr(["backup", "watch", NAME, "--output", "json"], LLMSR_BACKUP_TARGET=target)
        assert process.stdout is not None
        began = json.loads(process.stdout.readline())

    with serving_watch([DUMP_RUNS, DUMP_DONE, DONE], port=port):
        rest, told = process.communicate()

    lines = [json.loads(line) for line in rest.splitlines()]
    assert (process.returncode, told) == (0, b"")
    assert began["step"]["state"] == "STEP_STATE_RUNNING"
    assert [line["step"]["state"] for line in lines[:-1]] == ["STEP_STATE_DONE"]
    assert lines[-1]["ended"]["done"] is True


def test_ctrl_c_before_the_answer_says_that_it_may_have_begun(start_llmsr: Start) -> None:
    """Nobody knows whether a call that was not answered began an operation: status 130, and where to look."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        process = start_llmsr(["backup", "create", "--timeout", "60"], LLMSR_BACKUP_TARGET=target)
        connection, _ = server.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, told = process.communicate()

    assert process.returncode == 130
    assert told == b"The operation may have begun: llmsr backup operations --running\n"


def test_a_result_of_a_newer_service() -> None:
    """What an operation made is passed on as bytes when this program does not know its kind."""
    packed = Packed(type_url="type.googleapis.com/of.Tomorrow", value=b"\x08\x01")
    ended = over(operation_pb2.Operation(name=NAME, done=True, response=packed))

    human = watch([ended])
    machine = watch([ended], more=JSON)

    assert (human.status, machine.status) == (0, 0)
    assert human.stdout.split()[:2] == ["operation", NAME]
    assert machine.lines[-1]["ended"]["response"] == {"@type": packed.type_url, "value": "CAE="}


def test_an_operation_that_failed_is_refused_whatever_its_reason() -> None:
    """Status 1 also for reasons that would be 3 for a call: the service answered, the operation is over."""
    failed = operation_pb2.Operation(name=NAME, done=True)
    failed.error.code, failed.error.reason = 14, "OBJECT_STORE_UNAVAILABLE"
    failed.error.message = "The bucket does not answer."

    ran = watch([over(failed)])

    assert ran.status == 1
    assert ran.stderr == "Error: The bucket does not answer.\nReason: OBJECT_STORE_UNAVAILABLE\n"


def test_a_loss_that_grew_meanwhile_is_confirmed_anew() -> None:
    """An activation that fails because more would be lost says what to type, for people."""
    failed = operation_pb2.Operation(name=NAME, done=True, kind=operation_pb2.OPERATION_KIND_ACTIVATE_RESTORE)
    failed.metadata.Pack(restore_pb2.Restore(id="R"))
    failed.error.code, failed.error.reason, failed.error.message = 10, "LOSS_WINDOW_CHANGED", "Not confirmed."
    failed.error.metadata["confirmation"] = "4@1/41"

    ran = watch([over(failed)])

    assert ran.status == 1
    assert ran.stderr.startswith("To lose that: llmsr restore activate R --confirm 4@1/41 --apply\n")


def test_a_drill_that_did_not_pass_is_refused() -> None:
    """Status 1, and each problem on a line."""
    drill = operation_pb2.Operation(name=NAME, done=True, kind=operation_pb2.OPERATION_KIND_DRILL)
    found = backup_pb2.Drill(backup_id="x", problems=["table versions: 3 rows less"])
    found.recovery_time.FromSeconds(120)
    drill.response.Pack(found)

    ran = watch([over(drill)])

    facts = dict(line.split("  ", maxsplit=1) for line in ran.stdout.splitlines()[:-1])
    assert ran.status == 1
    assert (facts["drill"].strip(), facts["recovery time"].strip()) == ("NOT passed", "2 min")
    assert ran.stdout.endswith("\n  table versions: 3 rows less\n")


class Troubled(backup_service_pb2_grpc.BackupServiceServicer):
    """A service with something wrong everywhere."""

    def GetArchiveStatus(self, request: Any, context: Any) -> backups_pb.GetArchiveStatusResponse:
        status = backup_pb2.ArchiveStatus(enabled=True, problem="the store is full")
        return backups_pb.GetArchiveStatusResponse(status=status)

    def GetStoreStatus(self, request: Any, context: Any) -> backups_pb.GetStoreStatusResponse:
        stores = [backup_pb2.StoreStatus(name="primary"), backup_pb2.StoreStatus(name="copy", problem="no such bucket")]
        return backups_pb.GetStoreStatusResponse(stores=stores)

    def RebuildCatalog(self, request: Any, context: Any) -> backups_pb.RebuildCatalogResponse:
        return backups_pb.RebuildCatalogResponse(backups=2, problems=["backups/x: no manifest"])

    def ListBackups(self, request: Any, context: Any) -> backups_pb.ListBackupsResponse:
        return backups_pb.ListBackupsResponse(problems=["manifests/x: signed by nobody"])

    def PruneBackups(self, request: Any, context: Any) -> backups_pb.PruneBackupsResponse:
        return backups_pb.PruneBackupsResponse(blocked="no backup was proven since Monday")

    def ListSchedules(self, request: Any, context: Any) -> backups_pb.ListSchedulesResponse:
        daily = backup_pb2.BackupSchedule(kind=backup_pb2.BACKUP_KIND_DAILY, cron="20 1 * * *")
        daily.next_time.FromJsonString("2026-11-24T01:20:00Z")
        return backups_pb.ListSchedulesResponse(schedules=[daily])

    def RotateKeys(self, request: Any, context: Any) -> backups_pb.RotateKeysResponse:
        return backups_pb.RotateKeysResponse(rewrapped=3, recipients=["vault", "offline"])


@pytest.fixture(scope="module")
def troubled() -> Iterator[str]:
    """Address of a service with something wrong everywhere."""
    with serving_backup(Troubled()) as target:  # type: ignore[abstract]
        yield target


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("archive", "the store is full"),
        ("stores", "no such bucket"),
        ("rebuild-catalog", "  backups/x: no manifest"),
    ],
)
def test_a_status_with_a_problem_is_refused(troubled: str, command: str, told: str) -> None:
    """Status 1, so that a script may watch it; the problem is told to people and to programs."""
    human = run_here("backup", command, LLMSR_BACKUP_TARGET=troubled)
    machine = run_here("backup", command, "--output", "json", LLMSR_BACKUP_TARGET=troubled)

    assert (human.status, machine.status) == (1, 1)
    assert told in human.stdout
    assert told.strip() in json.dumps(machine.document)


def test_manifests_that_cannot_be_trusted_are_named(troubled: str) -> None:
    """They are not among the rows, and a list is status 0 all the same."""
    human = run_here("backup", "list", LLMSR_BACKUP_TARGET=troubled)
    machine = run_here("backup", "list", "--output", "json", LLMSR_BACKUP_TARGET=troubled)

    assert (human.status, machine.status) == (0, 0)
    assert human.stderr == "Not listed: manifests/x: signed by nobody\n"
    assert machine.document["problems"] == ["manifests/x: signed by nobody"]


class Pruning(backup_service_pb2_grpc.BackupServiceServicer):
    """A service with something to prune."""

    def PruneBackups(self, request: Any, context: Any) -> backups_pb.PruneBackupsResponse:
        goes = backups_pb.PruneDecision(backup_id="B", delete=True, cause="too long ago")
        stays = backups_pb.PruneDecision(backup_id="A", cause="pinned")
        return backups_pb.PruneBackupsResponse(
            decisions=[goes, stays], buried=1, deleted=2, segments=3, stored_bytes=2048
        )


def test_a_prune_tells_what_goes_and_why() -> None:
    """Each decision with its cause, then what would be done, or with --apply what was."""
    with serving_backup(Pruning()) as target:  # type: ignore[abstract]
        planned = run_here("backup", "prune", LLMSR_BACKUP_TARGET=target)
        done = run_here("backup", "prune", "--apply", LLMSR_BACKUP_TARGET=target)
        machine = run_here("backup", "prune", "--apply", "--output", "json", LLMSR_BACKUP_TARGET=target)

    assert (planned.status, done.status, machine.document["applied"]) == (0, 0, True)
    assert planned.stdout.splitlines()[1:3] == ["B       goes      too long ago", "A       stays     pinned"]
    assert planned.stdout.splitlines()[4:] == [
        "Would bury 1 backup; the grace time begins then",
        "Would delete 2 backups buried before, once the grace time is over",
        "Would delete 3 segments of the archive",
        "Would give 2.0 KiB back in the end",
    ]
    assert done.stdout.splitlines()[4:] == [
        "Buried 1 backup; the grace time begins now",
        "Deleted 2 backups buried before",
        "Deleted 3 segments of the archive",
        "Gave 2.0 KiB back",
    ]


@pytest.mark.parametrize("more", [(), ("--apply",)])
def test_a_blocked_prune_is_refused(troubled: str, more: tuple[str, ...]) -> None:
    """Where nothing may be deleted it is status 1 with the cause, in a dry run too."""
    human = run_here("backup", "prune", *more, LLMSR_BACKUP_TARGET=troubled)
    machine = run_here("backup", "prune", *more, "--output", "json", LLMSR_BACKUP_TARGET=troubled)

    assert (human.status, machine.status) == (1, 1)
    assert human.stderr == "Nothing may be deleted: no backup was proven since Monday\n"
    assert (machine.document["applied"], machine.document["blocked"][:9]) == (False, "no backup")


def test_schedules_tell_the_next_moment(troubled: str) -> None:
    """A row a schedule, in UTC."""
    ran = run_here("backup", "schedules", LLMSR_BACKUP_TARGET=troubled)

    assert ran.stdout.splitlines()[1].split("  ") == ["DAILY", "20 1 * * *", "2026-11-24T01:20:00Z", "-"]


def test_rotation_names_the_recipients(troubled: str) -> None:
    """What would be wrapped, then what was, and for whom."""
    planned = run_here("backup", "rotate-keys", LLMSR_BACKUP_TARGET=troubled)
    done = run_here("backup", "rotate-keys", "--apply", LLMSR_BACKUP_TARGET=troubled)

    assert planned.stdout == "Would wrap 3 data keys for vault, offline\n"
    assert done.stdout == "Wrapped 3 data keys for vault, offline\n"
