"""Answers that are asked for again and again, kept as the bytes that go out."""

from __future__ import annotations

from cachetools import LRUCache

from llm_schema_registry.registry.v1 import schema_service_pb2 as pb
from services.registry.codec import nouns
from services.registry.domain.model import Schema

ENCODED_BYTES_MAX = 32 << 20
ENTRY_BYTES = 256
"""What an entry weighs beside its bytes."""


class EncodedSchemas:
    """GetSchemaResponse messages by content.

    An entry counts only for the very object it was made of, so what the contents' cache forgets is forgotten here.
    """

    def __init__(self, bytes_max: int = ENCODED_BYTES_MAX) -> None:
        self._kept: LRUCache[int, tuple[Schema, bytes]] = LRUCache(bytes_max, lambda kept: ENTRY_BYTES + len(kept[1]))

    def answer(self, schema: Schema) -> bytes:
        """The encoded answer that holds a content."""
        kept = self._kept.get(schema.id)
        if kept is not None and kept[0] is schema:
            return kept[1]
        encoded = pb.GetSchemaResponse(schema=nouns.schema(schema)).SerializeToString()
        if ENTRY_BYTES + len(encoded) <= self._kept.maxsize:
            self._kept[schema.id] = schema, encoded
        return encoded
