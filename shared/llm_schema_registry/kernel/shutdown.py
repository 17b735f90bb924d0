"""The ordered end of a process: named steps, unwound in the reverse of the order in which they were added."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, TypeVar

from llm_schema_registry.kernel.clock import Clock

T = TypeVar("T")

STEP_SECONDS = 10.0
"""Longest a step may take when it names no time of its own."""
LEAST_SECONDS = 0.1
"""What a step still gets when the whole shutdown has used up its time."""


class Steps:
    """A stack of closing steps: what was opened last is closed first, each step logged with its duration.

    A step that fails or takes too long is logged and does not keep the others from running. Together they take no
    longer than the budget that `begin` was given.
    """

    def __init__(self, clock: Clock, logger: Any) -> None:
        self._clock = clock
        self._logger = logger
        self._stack = AsyncExitStack()
        self._began: float | None = None
        self._ends: float | None = None
        self.failed: list[str] = []

    def add(self, name: str, close: Callable[[], Awaitable[object]], timeout_seconds: float = STEP_SECONDS) -> None:
        """Adds a step: `await close()`, logged under the name."""

        async def run() -> None:
            await self._run(name, close, timeout_seconds)

        self._stack.push_async_callback(run)

    async def enter(
        self,
        name: str,
        resource: AbstractAsyncContextManager[T],
        timeout_seconds: float = STEP_SECONDS,
    ) -> T:
        """Enters an async context manager now and adds its exit as a step."""
        value = await resource.__aenter__()
        self.add(name, lambda: resource.__aexit__(None, None, None), timeout_seconds)
        return value

    def begin(self, budget_seconds: float) -> None:
        """Starts the time of the whole shutdown. A repeat changes nothing."""
        if self._ends is None:
            self._began = self._clock.monotonic()
            self._ends = self._began + budget_seconds

    def remaining_seconds(self) -> float:
        """What is left of the budget, never below LEAST_SECONDS. Before `begin`: STEP_SECONDS."""
        if self._ends is None:
            return STEP_SECONDS
        return max(LEAST_SECONDS, self._ends - self._clock.monotonic())

    async def close(self) -> None:
        """Runs every step, newest first. Never raises for a step's failure; `failed` names those that failed."""
        await self._stack.aclose()

    async def _run(self, name: str, close: Callable[[], Awaitable[object]], timeout_seconds: float) -> None:
        limit = min(timeout_seconds, self.remaining_seconds())
        started = self._clock.monotonic()
        outcome: dict[str, object] = {"outcome": "done"}
        try:
            async with asyncio.timeout(limit):
                await close()
        except TimeoutError:
            outcome = {"outcome": "timeout", "timeout_seconds": round(limit, 3)}
        except Exception as error:  # noqa: BLE001 - the edge: one step must not keep the others from running
            outcome = {"outcome": "failed", "exc_info": error}
        duration = round(self._clock.monotonic() - started, 4)
        if outcome["outcome"] == "done":
            self._logger.info("shutdown step", step=name, duration_seconds=duration, **outcome)
            return
        self.failed.append(name)
        self._logger.error("shutdown step", step=name, duration_seconds=duration, **outcome)
