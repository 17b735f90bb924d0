"""The service beside object stores that do not answer, or cannot do what it takes for several replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
import pytest_asyncio

from llm_schema_registry.backup.v1 import backup_service_pb2 as backups
from llm_schema_registry.backup.v1 import restore_service_pb2 as restores
from llm_schema_registry.client import from_rpc_error
from llm_schema_registry.operation.v1 import operation_service_pb2 as operations
from services.backup.adapters.bounded_store import KEPT_SECONDS_MAX, KEPT_SHARE
from tests.fix_backup import BackupCalls, MakeBackupService
from tests.fix_fault_table import FaultTable
from tests.object_proxy import FOR_EVERY, BlackHole, FaultProxy
from tests.object_servers import S3Server

NOBODY = "01J00000000000000000000000"
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
DEADLINE_SECONDS = KEPT_SECONDS_MAX / KEPT_SHARE
"""With the most that is ever kept of it for the answer."""

CALLS: dict[str, Callable[[BackupCalls], tuple[Any, Any]]] = {
    "CreateBackup": lambda calls: (calls.backups.CreateBackup, backups.CreateBackupRequest(request_id="one")),
    "ListBackups": lambda calls: (calls.backups.ListBackups, backups.ListBackupsRequest()),
    "GetBackup": lambda calls: (calls.backups.GetBackup, backups.GetBackupRequest(backup_id=NOBODY)),
    "PruneBackups": lambda calls: (calls.backups.PruneBackups, backups.PruneBackupsRequest()),
    "GetArchiveStatus": lambda calls: (calls.backups.GetArchiveStatus, backups.GetArchiveStatusRequest()),
    "ListRestores": lambda calls: (calls.restores.ListRestores, restores.ListRestoresRequest()),
    "ReleaseRestore": lambda calls: (calls.restores.ReleaseRestore, restores.ReleaseRestoreRequest(restore_id=NOBODY)),
    "ListOperations": lambda calls: (calls.operations.ListOperations, operations.ListOperationsRequest()),
}


def on_s3(server: S3Server, endpoint: str) -> dict[str, object]:
    """Options of a service on a new bucket of a server."""
    return {
        "s3__bucket": server.bucket(),
        "s3__endpoint": endpoint,
        "s3__region": server.region,
        "s3__path_style": "true",
        "s3__access_key_id": server.access_key_id,
        "s3__secret_access_key": server.secret_access_key,
    }


@pytest_asyncio.fixture
async def proxy(s3_server: S3Server) -> AsyncIterator[FaultProxy]:
    """Between the service and a real server."""
    async with FaultProxy(s3_server.endpoint) as proxy:
        yield proxy


async def test_who_calls_is_told_that_the_store_is_away(
    make_backup_service: MakeBackupService, s3_server: S3Server, proxy: FaultProxy, fault_table: FaultTable
) -> None:
    """OBJECT_STORE_UNAVAILABLE, with a time to repeat, before the caller's deadline has come; then all goes on."""
    service = make_backup_service(NO_DATABASE, **on_s3(s3_server, proxy.endpoint))
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        await calls.backups.ListBackups(backups.ListBackupsRequest(), timeout=30)
        proxy.always(FOR_EVERY, BlackHole)

        async def told(name: str) -> None:
            method, request = CALLS[name](calls)
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                await method(request, timeout=DEADLINE_SECONDS)
            error = from_rpc_error(failed.value)
            assert (name, error.reason) == (name, "OBJECT_STORE_UNAVAILABLE")
            assert error.retry_seconds
            fault_table(
                "T5",
                f"black hole during {name}",
                f"told after {time.monotonic() - began:.1f} s of {DEADLINE_SECONDS:g} s",
            )

        await asyncio.gather(*map(told, CALLS))

        proxy.always(FOR_EVERY, None)
        again = await calls.backups.CreateBackup(backups.CreateBackupRequest(request_id="one"), timeout=30)
    assert again.operation.name


@pytest.mark.parametrize(("server", "warned"), [("rclone_server", True), ("s3_server", False)])
async def test_a_store_for_one_replica_is_warned_of(
    make_backup_service: MakeBackupService, request: pytest.FixtureRequest, server: str, warned: bool
) -> None:
    """A process on a store without conditional writes warns at its start, and its status says that one may run."""
    store: S3Server = request.getfixturevalue(server)
    service = make_backup_service(NO_DATABASE, **on_s3(store, store.endpoint))
    await service.start_async()

    async with BackupCalls(service.target) as calls:
        (status,) = (await calls.backups.GetStoreStatus(backups.GetStoreStatusRequest(), timeout=30)).stores
        lines: list[dict[str, Any]] = []
        async with asyncio.timeout(30):
            while warned and not lines:
                await asyncio.sleep(0.05)
                lines = [line for line in service.log_lines() if line.get("event") == "store warning"]

    assert (status.conditional_writes, "one replica" in status.problem) == (not warned, warned)
    assert [line["level"] for line in lines] == ["warning"] * warned
    assert all("one replica" in line["message"] for line in lines)
