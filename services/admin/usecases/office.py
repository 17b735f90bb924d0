"""One operation at a time changes the system: whoever does holds this office."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llm_schema_registry import errors
from llm_schema_registry.operations.leases import Lease, Leases
from llm_schema_registry.operations.operation import OperationKind
from llm_schema_registry.operations.operations import Operations

OFFICE = "system"
KINDS = frozenset({OperationKind.RECOVERY, OperationKind.SHUTDOWN})
"""Operations that hold the office."""
SHORT_SECONDS = 3.0
"""How long what is short waits for others that are short."""


class SystemOffice:
    """The office, and who has it."""

    def __init__(self, leases: Leases, operations: Operations) -> None:
        self._leases = leases
        self._operations = operations

    @asynccontextmanager
    async def held(self, *, patience_seconds: float = 0) -> AsyncIterator[Lease]:
        """The office, for the block. Raises errors.OperationRunning, naming the operation that has it."""
        entered = False
        try:
            async with self._leases.held(OFFICE, patience_seconds=patience_seconds) as lease:
                entered = True
                yield lease
        except errors.OperationRunning as running:
            if entered:
                raise
            raise await self._named(running) from None

    async def require_free(self) -> None:
        """Raises errors.OperationRunning, naming the operation, while another one has the office."""
        held = await self._leases.holder(OFFICE)
        if held is not None:
            raise await self._named(
                errors.OperationRunning(
                    f"Process {held.owner} changes the system.", metadata={"office": OFFICE, "owner": held.owner}
                )
            )

    async def _named(self, running: errors.OperationRunning) -> errors.OperationRunning:
        """The error with the operation's name, as far as it can be found."""
        owner = running.metadata.get("owner", "")
        found = [each for each in await self._operations.list() if not each.done and each.kind in KINDS]
        found = [each for each in found if each.instance_id == owner] or found
        if not found:
            return running
        name = found[0].name
        return errors.OperationRunning(
            f"{name} changes the system, in process {found[0].instance_id}: wait for it, or cancel it.",
            metadata={**running.metadata, "operation": name},
            retry_seconds=5,
        )
