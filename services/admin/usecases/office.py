"""The office of whoever changes the system: a recovery, a shutdown, maintenance. One at a time, over all replicas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from llm_schema_registry import errors
from llm_schema_registry.operations.leases import Lease, Leases, LeaseTimes
from llm_schema_registry.operations.operation import OperationKind
from llm_schema_registry.operations.operations import Operations

SYSTEM = "system"
SYSTEM_TIMES = LeaseTimes(lease=10.0, renew=2.0, fence=7.0)
"""Short, because an operator waits for it when a process has died."""
CHANGING = frozenset(
    {
        OperationKind.RECOVERY,
        OperationKind.SHUTDOWN,
        OperationKind.VACUUM,
        OperationKind.ANALYZE,
        OperationKind.REINDEX,
    }
)
PLAN = "recovery-plan"
"""What a dry run works on, which changes nothing."""


class Office:
    """Whose turn it is."""

    def __init__(self, leases: Leases, operations: Operations) -> None:
        self._leases = leases
        self._operations = operations

    async def require_free(self) -> None:
        """Raises errors.OperationRunning, naming the operation, while one changes the system."""
        holder = await self._leases.holder(SYSTEM, times=SYSTEM_TIMES)
        if holder is None or not holder.owner:
            return
        raise await self._taken(holder.owner, SYSTEM_TIMES.lease)

    @asynccontextmanager
    async def held(self, own: str) -> AsyncIterator[Lease]:
        """The office, for the block. own: the operation that takes it. Raises errors.OperationRunning, naming the other
        one; losing it ends the block with errors.LeaseLost."""
        async with AsyncExitStack() as stack:
            try:
                lease = await stack.enter_async_context(self._leases.held(SYSTEM, times=SYSTEM_TIMES))
            except errors.OperationRunning as taken:
                seconds = taken.retry_seconds or SYSTEM_TIMES.lease
                raise await self._taken(taken.metadata.get("owner", ""), seconds, own) from None
            yield lease

    async def busy(self) -> bool:
        """Whether somebody holds the office."""
        return await self._leases.holder(SYSTEM, times=SYSTEM_TIMES) is not None

    async def _taken(self, owner: str, retry_seconds: float, own: str = "") -> errors.OperationRunning:
        """The error that names the operation in whose way nobody may get."""
        found = [
            each
            for each in await self._operations.list()
            if not each.done and each.kind in CHANGING and each.subject.kind != PLAN and each.name != own
        ]
        first = next((each for each in found if each.instance_id == owner), found[0] if found else None)
        told = f"{first.name} runs in process {owner}" if first else f"process {owner} changes the system"
        return errors.OperationRunning(
            f"{told}: wait for its end, or {retry_seconds:.0f} s if that process is gone.",
            metadata={"operation": first.name if first else "", "instance_id": owner},
            retry_seconds=retry_seconds,
        )
