"""backup.v1.RestoreService."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import restore_pb2
from llm_schema_registry.backup.v1 import restore_service_pb2 as pb
from llm_schema_registry.backup.v1 import restore_service_pb2_grpc as rpc
from llm_schema_registry.kernel.calls import current_caller
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Operations
from services.backup.codec import nouns
from services.backup.domain.model import Level
from services.backup.domain.restore import LossWindow, Restore, RestoreState
from services.backup.handlers.answers import Answers, asked
from services.backup.handlers.fields import Fields
from services.backup.usecases.journal import Journal
from services.backup.usecases.prepare import Aim, Outlook, Prepare
from services.backup.usecases.repository import Repository
from services.backup.usecases.swap import Swap


class RestoreService(rpc.RestoreServiceServicer):
    """Brings a registry back."""

    def __init__(self, repository: Repository, operations: Operations, answers: Answers, swap: Swap) -> None:
        self._repository = repository
        self._operations = operations
        self._answers = answers
        self._swap = swap
        self._prepare: Prepare = swap.prepare
        self._journal: Journal = swap.journal

    async def PrepareRestore(self, request: pb.PrepareRestoreRequest, context: Any) -> pb.PrepareRestoreResponse:
        """See the contract."""
        fields = Fields()
        target = fields.target(request.target)
        level = fields.level(request.verified_level, "verified_level", Level.V3)
        base_id = fields.id(request.base_backup_id, "base_backup_id") if request.base_backup_id else ""
        request_id = fields.request_id(request.request_id)
        fields.require_valid()
        wanted = Aim(target, level, base_id)
        if request.validate_only:
            return pb.PrepareRestoreResponse(plan=_plan(await self._prepare.outlook(wanted)))
        if await self._operations.find(OperationKind.PREPARE_RESTORE, request_id) is None:
            survey = await self._prepare.survey()
            survey.require_own()
            await self._prepare.way(target, level, survey, base_id)
        restore_id = self._repository.new_id()
        operation = await self._operations.begin(
            OperationKind.PREPARE_RESTORE,
            partial(self._prepare.run, restore_id, wanted),
            actor=current_caller().name,
            request=asked(request_id, request),
        )
        return pb.PrepareRestoreResponse(operation=await self._answers.operation(operation))

    async def GetRestore(self, request: pb.GetRestoreRequest, context: Any) -> pb.GetRestoreResponse:
        """See the contract."""
        restore = await self._journal.get(_id(request.restore_id))
        return pb.GetRestoreResponse(restore=nouns.restore(restore, await self._window(restore)))

    async def ListRestores(self, request: pb.ListRestoresRequest, context: Any) -> pb.ListRestoresResponse:
        """See the contract."""
        return pb.ListRestoresResponse(restores=[nouns.restore(each) for each in await self._journal.list()])

    async def ActivateRestore(self, request: pb.ActivateRestoreRequest, context: Any) -> pb.ActivateRestoreResponse:
        """See the contract."""
        restore_id, confirmation, request_id = _swap_fields(request)
        if await self._operations.find(OperationKind.ACTIVATE_RESTORE, request_id) is None:
            await self._swap.require_activatable(restore_id, confirmation)
        operation = await self._operations.begin(
            OperationKind.ACTIVATE_RESTORE,
            partial(self._swap.activate, restore_id, confirmation),
            actor=current_caller().name,
            request=asked(request_id, request),
            subject=Subject("restore", restore_id),
        )
        return pb.ActivateRestoreResponse(operation=await self._answers.operation(operation))

    async def RevertRestore(self, request: pb.RevertRestoreRequest, context: Any) -> pb.RevertRestoreResponse:
        """See the contract."""
        restore_id, confirmation, request_id = _swap_fields(request)
        if await self._operations.find(OperationKind.REVERT_RESTORE, request_id) is None:
            await self._swap.require_revertible(restore_id, confirmation)
        operation = await self._operations.begin(
            OperationKind.REVERT_RESTORE,
            partial(self._swap.revert, restore_id, confirmation),
            actor=current_caller().name,
            request=asked(request_id, request),
            subject=Subject("restore", restore_id),
        )
        return pb.RevertRestoreResponse(operation=await self._answers.operation(operation))

    async def ReleaseRestore(self, request: pb.ReleaseRestoreRequest, context: Any) -> pb.ReleaseRestoreResponse:
        """See the contract."""
        restore = await self._swap.release(_id(request.restore_id))
        return pb.ReleaseRestoreResponse(restore=nouns.restore(restore))

    async def _window(self, restore: Restore) -> LossWindow | None:
        """What would be lost by the next step: the activation, or once it is active the revert.

        None where that cannot be told: a restore is shown also when the database does not answer.
        """
        if restore.state is RestoreState.PREPARED:
            return await self._prepare.window(restore)
        if restore.state is RestoreState.ACTIVE:
            with suppress(errors.DatabaseUnavailable, errors.DatabaseUnfit, errors.IllegalState):
                return await self._swap.revert_window(restore)
        return None


def _id(value: str) -> str:
    fields = Fields()
    found = fields.id(value, "restore_id")
    fields.require_valid()
    return found


def _plan(found: Outlook) -> restore_pb2.RestorePlan:
    survey = found.survey
    if survey.live is not None:
        live = restore_pb2.LIVE_DATABASE_READABLE
    elif survey.stranger is not None:
        live = restore_pb2.LIVE_DATABASE_EMPTY
    elif survey.unreadable:
        live = restore_pb2.LIVE_DATABASE_UNREADABLE
    else:
        live = restore_pb2.LIVE_DATABASE_ABSENT
    return restore_pb2.RestorePlan(
        backup_id=found.entry.id,
        verified_level=nouns.LEVELS[found.entry.level],
        base_place=nouns.place(found.entry.manifest.place),
        place=nouns.place(found.place),
        segments=len(found.way.pieces),
        loss_window=nouns.window(found.window),
        live=live,
        live_problem=survey.unreadable,
    )


def _swap_fields(request: pb.ActivateRestoreRequest | pb.RevertRestoreRequest) -> tuple[str, str, str]:
    fields = Fields()
    found = (
        fields.id(request.restore_id, "restore_id"),
        fields.confirmation(request.confirmation),
        fields.request_id(request.request_id),
    )
    fields.require_valid()
    return found
