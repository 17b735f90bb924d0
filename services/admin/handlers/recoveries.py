"""admin.v1.RecoveryService."""

from __future__ import annotations

from typing import Any

from llm_schema_registry.admin.v1 import recovery_pb2
from llm_schema_registry.admin.v1 import recovery_service_pb2 as pb
from llm_schema_registry.admin.v1 import recovery_service_pb2_grpc as rpc
from llm_schema_registry.kernel import fields
from llm_schema_registry.kernel.calls import current_caller
from llm_schema_registry.operations import ids
from services.admin.codec import recoveries as codec
from services.admin.domain.recovery import (
    CAUSE_CHARACTERS_MAX,
    Safety,
    Spec,
    Target,
    TargetKind,
    Traffic,
    confirmed_place,
)
from services.admin.handlers.answers import Answers, asked
from services.admin.usecases.recover import Recover


class RecoveryFields(fields.Fields):
    """The fields of a request about a recovery."""

    def recovery_id(self, value: str) -> str:
        """The id of a recovery."""
        if not ids.is_id(value):
            self.refuse("recovery_id", "must be a ULID: 26 digits and upper-case letters")
        return value

    def confirmation(self, value: str, field: str = "confirmation") -> str:
        """The confirmation of a loss window, or none."""
        try:
            confirmed_place(value)
        except ValueError as invalid:
            self.refuse(field, str(invalid))
        return value

    def spec(self, value: recovery_pb2.RecoverySpec) -> Spec:
        """What a recovery is to do."""
        target = codec.read_target(value.target)
        if isinstance(target, str):
            self.refuse("spec.target", target)
            target = Target(TargetKind.LATEST)
        if target.kind is TargetKind.BACKUP and not ids.is_id(target.backup_id):
            self.refuse("spec.target.backup_id", "must be a ULID: 26 digits and upper-case letters")
        traffic, safety = value.traffic or Traffic.FENCE_WRITES.value, value.safety or Safety.REQUIRED.value
        if len(value.cause) > CAUSE_CHARACTERS_MAX:
            self.refuse("spec.cause", f"must have at most {CAUSE_CHARACTERS_MAX} characters")
        return Spec(
            target=target,
            traffic=self.known(
                next((each for each in Traffic if each.value == traffic), None),
                Traffic.FENCE_WRITES,
                "spec.traffic",
                [f"TRAFFIC_POLICY_{each.name}" for each in Traffic],
            ),
            safety=self.known(
                next((each for each in Safety if each.value == safety), None),
                Safety.REQUIRED,
                "spec.safety",
                [f"SAFETY_POLICY_{each.name}" for each in Safety],
            ),
            confirmation=self.confirmation(value.confirmation, "spec.confirmation"),
            cause=value.cause,
        )


class RecoveryService(rpc.RecoveryServiceServicer):
    """Drives recoveries."""

    def __init__(self, recover: Recover, answers: Answers) -> None:
        self._recover = recover
        self._answers = answers

    async def StartRecovery(self, request: pb.StartRecoveryRequest, context: Any) -> pb.StartRecoveryResponse:
        """See the contract."""
        read = RecoveryFields()
        spec, request_id = read.spec(request.spec), read.request_id(request.request_id)
        read.require_valid()
        operation = await self._recover.start(
            spec, dry_run=request.dry_run, actor=current_caller().name, request=asked(request_id, request)
        )
        return pb.StartRecoveryResponse(operation=await self._answers.operation(operation))

    async def ResumeRecovery(self, request: pb.ResumeRecoveryRequest, context: Any) -> pb.ResumeRecoveryResponse:
        """See the contract."""
        recovery_id, confirmation, request_id = _standing(request)
        operation = await self._recover.resume(
            recovery_id, confirmation, actor=current_caller().name, request=asked(request_id, request)
        )
        return pb.ResumeRecoveryResponse(operation=await self._answers.operation(operation))

    async def AbortRecovery(self, request: pb.AbortRecoveryRequest, context: Any) -> pb.AbortRecoveryResponse:
        """See the contract."""
        recovery_id, confirmation, request_id = _standing(request)
        operation = await self._recover.abort(
            recovery_id, confirmation, actor=current_caller().name, request=asked(request_id, request)
        )
        return pb.AbortRecoveryResponse(operation=await self._answers.operation(operation))

    async def GetRecovery(self, request: pb.GetRecoveryRequest, context: Any) -> pb.GetRecoveryResponse:
        """See the contract."""
        read = RecoveryFields()
        recovery_id = read.recovery_id(request.recovery_id)
        read.require_valid()
        return pb.GetRecoveryResponse(recovery=codec.recovery(await self._recover.get(recovery_id)))

    async def ListRecoveries(self, request: pb.ListRecoveriesRequest, context: Any) -> pb.ListRecoveriesResponse:
        """See the contract."""
        return pb.ListRecoveriesResponse(recoveries=[codec.recovery(each) for each in await self._recover.list()])


def _standing(request: pb.ResumeRecoveryRequest | pb.AbortRecoveryRequest) -> tuple[str, str, str]:
    read = RecoveryFields()
    found = (
        read.recovery_id(request.recovery_id),
        read.confirmation(request.confirmation),
        read.request_id(request.request_id),
    )
    read.require_valid()
    return found
