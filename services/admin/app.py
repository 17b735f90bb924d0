"""The admin process: its services, who may call them, and what it tells of itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from llm_schema_registry.admin.v1 import admin_service_pb2_grpc, recovery_pb2, recovery_service_pb2_grpc
from llm_schema_registry.kernel.dependencies import DependencyCheck
from llm_schema_registry.kernel.identity import Credential, Role
from llm_schema_registry.kernel.process import Definition, Parts, ReloadHook, Runtime, Servicer
from llm_schema_registry.operation.v1 import operation_service_pb2_grpc
from llm_schema_registry.operations.service import OperationService
from services.admin.assembly import Assembly, Setting, assemble
from services.admin.codec import recoveries
from services.admin.handlers.answers import Answers
from services.admin.handlers.recoveries import RecoveryService
from services.admin.handlers.system import AdminService, SystemVerbs
from services.admin.settings import AdminServiceSettings
from services.admin.usecases.office import PLAN
from services.admin.usecases.recover import RECOVERY

PACKAGE = "llm_schema_registry.admin.v1"
OPERATION = "llm_schema_registry.operation.v1"
CLOSING_SECONDS = 5.0
"""For undoing what was cancelled, beside the time that operations have to finish."""


@asynccontextmanager
async def build(runtime: Runtime[AdminServiceSettings]) -> AsyncIterator[Parts[AdminServiceSettings]]:
    """Opens the store of journals, and serves. Neither the store nor the database nor any other process must answer."""
    settings, steps = runtime.settings, runtime.steps

    def report(event: str, **facts: Any) -> None:
        level = runtime.logger.error if "exc_info" in facts else runtime.logger.info
        level(event, **facts)

    stack = await steps.enter("close store and peers", AsyncExitStack())
    assembly = await assemble(Setting(settings, runtime.clock, runtime.instance_id, report), stack)
    credential = Credential("admin", Role.ADMIN, *_admin(settings))

    async def end_operations() -> None:
        left = steps.remaining_seconds() - CLOSING_SECONDS
        await assembly.operations.close(max(0.0, min(settings.server.grace_seconds, left)))

    async def replace_credential(newer: AdminServiceSettings) -> None:
        credential.replace(*_admin(newer))

    steps.add("end operations", end_operations, settings.server.grace_seconds + CLOSING_SECONDS)
    yield Parts(
        servicers=servicers(assembly, runtime),
        dependencies=[DependencyCheck("object store", critical=False, check=assembly.store.check)],
        reload=[ReloadHook(frozenset({"admin.token", "admin.client_names"}), replace_credential)],
        authenticator=credential,
    )


DEFINITION = Definition(name="admin", settings=AdminServiceSettings, build=build)


def servicers(assembly: Assembly, runtime: Runtime[AdminServiceSettings]) -> Sequence[Servicer]:
    """The services of the contract."""
    recover = assembly.recover

    async def recovery(recovery_id: str) -> recovery_pb2.Recovery:
        return recoveries.recovery(await recover.get(recovery_id))

    async def plan(recovery_id: str) -> recovery_pb2.Recovery:
        return recoveries.recovery(await recover.planned(recovery_id))

    answers = Answers({RECOVERY: recovery, PLAN: plan})
    recovering = RecoveryService(recover, answers)
    system = AdminService(assembly.peers, SystemVerbs(assembly.status, assembly.steer))
    shown = OperationService(assembly.operations, answers, runtime.clock)
    return [
        Servicer(
            f"{PACKAGE}.AdminService",
            lambda server: admin_service_pb2_grpc.add_AdminServiceServicer_to_server(system, server),
        ),
        Servicer(
            f"{PACKAGE}.RecoveryService",
            lambda server: recovery_service_pb2_grpc.add_RecoveryServiceServicer_to_server(recovering, server),
        ),
        Servicer(
            f"{OPERATION}.OperationService",
            lambda server: operation_service_pb2_grpc.add_OperationServiceServicer_to_server(shown, server),
        ),
    ]


def _admin(settings: AdminServiceSettings) -> tuple[str | None, tuple[str, ...]]:
    token = settings.admin.token
    return (token.get_secret_value() if token else None, settings.admin.client_names)
