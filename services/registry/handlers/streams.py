"""Requests of a stream, one of them read ahead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")


async def one_ahead(requests: AsyncIterator[T]) -> AsyncIterator[T]:
    """The requests in their order. While one is worked on the next one is on its way, and no more than that."""
    following = asyncio.ensure_future(_next(requests))
    try:
        while (request := await following) is not None:
            following = asyncio.ensure_future(_next(requests))
            yield request
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _next(requests: AsyncIterator[T]) -> T | None:
    return await anext(requests, None)
