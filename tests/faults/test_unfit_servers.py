"""T23: servers that a backup does not fit: PrepareRestore names what is missing, and makes nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from deploy.local.postgres import Postgres as Server
from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from services.backup.adapters.recipients import load_signing_key
from services.backup.domain import layout, manifest
from services.backup.domain.model import DatabaseFacts
from tests.fix_backup import BackupCalls, MakeBackupService, database_of
from tests.fix_fault_table import FaultTable
from tests.fix_service import Service
from tests.restore_site import LATEST, calls, existing, make_backup, prepare

ROLE = "role_of_a_backup"


@pytest.mark.regression("B10")
async def test_missing_role(
    postgres: Server, filled_registry: Service, backup: BackupCalls, fault_table: FaultTable
) -> None:
    """A role that the backup gives rights to, and the server has not, is named before anything is made, also by a plan;
    made again, the restore works."""
    url = database_of(filled_registry)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE}".encode())
        try:
            connection.execute(f"GRANT SELECT ON registry.subjects TO {ROLE}".encode())
            await make_backup(backup)
            connection.execute(f"DROP OWNED BY {ROLE}".encode())
            connection.execute(f"DROP ROLE {ROLE}".encode())

            with pytest.raises(grpc.aio.AioRpcError) as planned:
                await backup.restores.PrepareRestore(pb.PrepareRestoreRequest(target=LATEST, validate_only=True))
            answer = await backup.restores.PrepareRestore(pb.PrepareRestoreRequest(target=LATEST))
            ended = await backup.ended(answer)
            left = await existing(url)
            connection.execute(f"CREATE ROLE {ROLE}".encode())
            prepared = await prepare(backup)
            await backup.restores.ReleaseRestore(pb.ReleaseRestoreRequest(restore_id=prepared.id))
        finally:
            connection.execute(f"DROP ROLE IF EXISTS {ROLE}".encode())

    assert ended.error.reason == "DATABASE_UNFIT"
    for told in (ended.error.message, planned.value.details() or ""):
        assert f"the backup needs the role {ROLE}" in told
    assert left == []
    fault_table("T23", "role of a grant is missing", "DATABASE_UNFIT names it; with the role it works")


def _another_major(facts: DatabaseFacts) -> DatabaseFacts:
    return replace(facts, server_version="99.1", server_version_num=990_001)


def _another_extension(facts: DatabaseFacts) -> DatabaseFacts:
    return replace(facts, extensions=(*facts.extensions, ("an_extension_of_the_test", "1.0")))


def _another_encoding(facts: DatabaseFacts) -> DatabaseFacts:
    return replace(facts, encoding="LATIN1")


@pytest.mark.parametrize(
    "unfit",
    [
        (_another_major, "of PostgreSQL 99.1, the server is"),
        (_another_extension, "needs the extension an_extension_of_the_test, which this server does not have"),
        (_another_encoding, "the backup is in encoding LATIN1"),
    ],
    ids=["major", "extension", "encoding"],
)
async def test_unfit_by_the_manifest(
    filled_registry: Service,
    make_backup_service: MakeBackupService,
    backup_keys: dict[str, Any],
    tmp_path: Path,
    fault_table: FaultTable,
    unfit: tuple[Callable[[DatabaseFacts], DatabaseFacts], str],
) -> None:
    """What a manifest says of its server is compared with the one that is there before anything is made."""
    url, (change, told) = database_of(filled_registry), unfit
    async with calls(make_backup_service(url)) as backup:
        made = await make_backup(backup)
    signer = load_signing_key(backup_keys["backup__signing_key_path"]).signer
    path = tmp_path / "store" / layout.manifest(made.id)
    known = manifest.decode(path.read_bytes(), [signer.verifier])
    path.write_bytes(manifest.encode(replace(known, facts=change(known.facts)), signer))

    async with calls(make_backup_service(url)) as backup:
        level = backup_pb2.VERIFICATION_LEVEL_V1
        request = pb.PrepareRestoreRequest(target=LATEST, verified_level=level)
        verify = backup_service_pb2.VerifyBackupRequest(backup_id=made.id, level=level)
        await backup.ended(await backup.backups.VerifyBackup(verify))
        ended = await backup.ended(await backup.restores.PrepareRestore(request))
        left = await existing(url)

    assert ended.error.reason == "DATABASE_UNFIT"
    assert told in ended.error.message
    assert left == []
    fault_table("T23", f"manifest of another server: {change.__name__.strip('_')}", f"DATABASE_UNFIT: {told}")
