"""A recovery between processes that speak nothing but mTLS."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.client import AdminClient, RegistryClient, Tls
from tests import registry_tools
from tests.fix_admin import MakeAdminService
from tests.fix_backup import BackupCalls, MakeBackupService
from tests.fix_calls import Registry
from tests.fix_service import MakeService
from tests.fix_tls import Authority, secure_channel
from tests.recovery_site import DONE, SKIPPED, Site, states
from tests.restore_site import Ledger, make_backup

ADMIN, OPERATOR = "spiffe://example.org/admin", "spiffe://example.org/operator"


def secured(authority: Authority, name: str) -> dict[str, object]:
    """Options of a process that has a certificate of its own and serves nobody who has none; the certificate of the
    admin service is what controls it, and no token is."""
    leaf = authority.issue(name, uris=(f"spiffe://example.org/{name}",))
    return {
        "server__local_mode": "false",
        "server__listen_address": "127.0.0.1",
        "server__health_port": 0,
        "server__tls_enabled": "true",
        "server__tls_cert_path": leaf.cert,
        "server__tls_key_path": leaf.key,
        "security__mtls_enabled": "true",
        "security__ca_cert_path": authority.cert,
        "control__token": "",
        "control__client_names": ADMIN,
    }


def peers(authority: Authority, options: dict[str, object]) -> dict[str, object]:
    """Further options of the admin service: it shows its own certificate, and the operator's is let in."""
    return {
        "admin__token": "",
        "admin__client_names": OPERATOR,
        "peers__control_token": "",
        "peers__tls_enabled": "true",
        "peers__ca_cert_path": authority.cert,
        "peers__client_cert_path": options["server__tls_cert_path"],
        "peers__client_key_path": options["server__tls_key_path"],
    }


@pytest.mark.slow
async def test_recovery_over_mtls(
    database_url: str,
    authority: Authority,
    make_service: MakeService,
    make_backup_service: MakeBackupService,
    make_admin_service: MakeAdminService,
    tmp_path: Path,
) -> None:
    """With certificates alone and no token anywhere a recovery passes all its steps, and the registry serves the new
    epoch to those who have a certificate."""
    registry = make_service(database_url, **secured(authority, "registry"))
    backup_service = make_backup_service(database_url, **secured(authority, "backup"))
    for service in (registry, backup_service):
        await service.start_async()
    own = secured(authority, "admin")
    addresses = {"registry": [registry.target], "backup": [backup_service.target]}
    admin_service = make_admin_service(database_url, **addresses, **own, **peers(authority, own))
    await admin_service.start_async()
    operator, ledger = authority.issue("operator", uris=(OPERATOR,)), Ledger()
    tls = Tls(authority.cert, operator.cert, operator.key)
    async with (
        RegistryClient(registry.target, tls=tls) as client,
        AdminClient(admin_service.target, tls=tls) as admin,
        BackupCalls("", secure_channel(backup_service.ports["grpc_port"], authority, operator)) as backup,
    ):
        place = Site([registry], backup_service, admin_service, backup, admin, tmp_path / "admin")
        await ledger.write(Registry(client), "before")
        await make_backup(backup)

        recovery = await place.done(await place.start(cause="over mTLS"))

        await ledger.write(Registry(client), "after")

    assert recovery.state == recovery_pb2.RECOVERY_STATE_DONE
    assert all(each.state in {DONE, SKIPPED} for each in recovery.steps), states(recovery)
    assert not [each.message for each in recovery.steps if "not reached" in each.message]
    assert await registry_tools.value(database_url, "SELECT epoch FROM registry.head") == 2
    assert await ledger.lost(database_url) == {}
