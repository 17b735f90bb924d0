"""What has to be thrown away from time to time, so that nothing grows for ever."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

from llm_schema_registry.errors import Error
from services.registry.ports import Clock, Store

REQUEST_IDS_KEPT = timedelta(days=7)
"""How long a repeat under the same request id gets the first answer."""
PAUSE_SECONDS = 3600.0
BATCH = 1000


async def forget_old_requests(store: Store, clock: Clock) -> int:
    """Forgets request ids older than REQUEST_IDS_KEPT, in batches, and returns how many."""
    before = clock.now() - REQUEST_IDS_KEPT
    total = 0
    while True:
        forgotten = await store.forget_requests(before, BATCH)
        total += forgotten
        if forgotten < BATCH:
            return total


async def keep_house(store: Store, clock: Clock, jitter: random.Random, tell: Callable[[Exception], None]) -> None:
    """Runs until cancelled: about every PAUSE_SECONDS. Several processes may; what fails is done the next time.

    tell: told of an unexpected error, with its traceback.
    """
    while True:
        await asyncio.sleep(PAUSE_SECONDS * (0.5 + jitter.random()))
        try:
            await forget_old_requests(store, clock)
        except Error:
            continue
        except Exception as error:  # noqa: BLE001 - the next time is as good as this one
            tell(error)
