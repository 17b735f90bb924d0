"""Rings when a commit of any process announces itself: LISTEN on a connection of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

import psycopg

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import PostgresOptions, connect
from services.registry.adapters.postgres_commit import CHANNEL

BACKOFF_SECONDS = 0.1
BACKOFF_SECONDS_MAX = 5.0
GATHER_SECONDS = 0.02

log = logging.getLogger(__name__)


class PostgresBell:
    """Bell over LISTEN: `async with PostgresBell(options) as bell`. A lost connection is opened again by itself.

    Every (re)connect is a ring too: what was announced in between was missed.
    """

    def __init__(self, options: PostgresOptions, *, jitter: random.Random | None = None) -> None:
        self._options = options
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads repeats, keeps no secret
        self._rung = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PostgresBell:
        self._listener = asyncio.create_task(self._listen(), name="postgres-bell")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listener is not None:
            self._listener.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._listener

    async def wait(self, timeout_seconds: float) -> None:
        """Returns when it rings, at once when it rang since the last wait ended, or at the timeout. One waiter."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                await self._rung.wait()
        self._rung.clear()

    async def _listen(self) -> None:
        pause = BACKOFF_SECONDS
        while True:
            try:
                connection = await connect(self._options)
                async with connection:
                    await connection.execute(f"LISTEN {CHANNEL}".encode())
                    pause = BACKOFF_SECONDS
                    self._rung.set()
                    while True:
                        async for _ in connection.notifies(stop_after=1):
                            self._rung.set()
                        # Those that follow at once are read together: under load that is cheaper than one by one.
                        await asyncio.sleep(GATHER_SECONDS)
            except (psycopg.Error, errors.Error) as error:
                log.warning("change notifications are lost, listening again in %.1f s: %s", pause, error)
            await asyncio.sleep(pause * (0.5 + self._jitter.random() / 2))
            pause = min(pause * 2, BACKOFF_SECONDS_MAX)
