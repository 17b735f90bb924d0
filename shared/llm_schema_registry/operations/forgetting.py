"""Removes what operations left in an object store once they are forgotten themselves."""

from __future__ import annotations

from datetime import timedelta

from llm_schema_registry.objects.store import ObjectStore

KEEP_DAYS = 30
"""How long an operation is remembered, and what is told of it."""


async def forget_old(store: ObjectStore, folder: str) -> int:
    """Removes what lies in a folder and was not written for KEEP_DAYS, and returns how many objects that were."""
    before = await store.now() - timedelta(days=KEEP_DAYS)
    old = [each.key async for each in store.list(folder) if each.modify_time < before]
    for key in old:
        await store.delete(key)
    return len(old)
