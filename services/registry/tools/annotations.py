"""Titles and descriptions of contents, read in worker processes while rows before them are written."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TypeAlias

from cachetools import LRUCache

from llm_schema_registry import errors
from services.registry.domain.model import Schema
from services.registry.tools.apart import Apart, Content, annotations_of

KEPT_BYTES_MAX = 16 << 20
"""Of contents whose annotations are kept, for versions of them that are registered or updated later."""
_KEPT_BYTES = 512
"""What a content counts for beside its text and its annotations."""

Found: TypeAlias = tuple[str, ...] | None
"""Titles and descriptions; None for a text that this code does not accept."""
_Key: TypeAlias = tuple[bytes, str]
"""Identity and text: comments of a Protobuf file are none of its identity, and after a purge they may be others."""


class Annotations:
    """Of contents without references. Holds KEPT_BYTES_MAX, and what was begun since the last `settle`."""

    def __init__(self, apart: Apart) -> None:
        self._apart = apart
        self._kept: LRUCache[_Key, tuple[Found, int]] = LRUCache(KEPT_BYTES_MAX, lambda kept: kept[1])
        self._begun: dict[_Key, asyncio.Task[Mapping[_Key, Found]]] = {}

    def begin(self, schemas: Iterable[Schema]) -> None:
        """Has contents read, those that are neither kept nor begun."""
        new = {_key(schema): _content(schema) for schema in schemas}
        new = {key: content for key, content in new.items() if key not in self._kept and key not in self._begun}
        if new:
            task = asyncio.create_task(self._read(new))
            self._begun.update(dict.fromkeys(new, task))

    async def of(self, schema: Schema) -> Found:
        """The content's titles and descriptions, begun before or not."""
        key = _key(schema)
        if key in self._kept:
            return self._kept[key][0]
        self.begin((schema,))
        return (await self._begun[key])[key]

    async def settle(self) -> None:
        """Keeps, as far as there is room, what was begun."""
        for key, task in self._begun.items():
            found = (await task)[key]
            size = _KEPT_BYTES + len(key[1]) + sum(map(len, found or ()))
            if size <= KEPT_BYTES_MAX:
                self._kept[key] = found, size
        self._begun.clear()

    async def close(self) -> None:
        """Ends what was begun."""
        tasks = set(self._begun.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._begun.clear()

    async def _read(self, contents: Mapping[_Key, Content]) -> Mapping[_Key, Found]:
        found = await self._apart.run(annotations_of, list(contents.values()))
        return {
            key: None if isinstance(each, errors.LimitExceeded) else each
            for key, each in zip(contents, found, strict=True)
        }


def _key(schema: Schema) -> _Key:
    return schema.identity, schema.text


def _content(schema: Schema) -> Content:
    return Content(schema.id, schema.format, schema.text, schema.dialect, schema.identity, schema.semantic)
