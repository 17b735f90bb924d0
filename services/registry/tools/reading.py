"""Contents read and understood on one connection, in its transaction: what both tools need of the store."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from cachetools import LRUCache

from llm_schema_registry.kernel.postgres import Postgres, T, Work
from services.registry.adapters import postgres_reads
from services.registry.adapters.postgres_store import PostgresStore
from services.registry.adapters.protoc import compile_files
from services.registry.domain.formats import SchemaFormat
from services.registry.domain.formats.avro import Avro
from services.registry.domain.formats.jsonschema import JsonSchema
from services.registry.domain.formats.protobuf import Protobuf
from services.registry.domain.model import Format, Reference, Schema
from services.registry.ports import Workers
from services.registry.tools.place import PlaceConnection
from services.registry.usecases.library import Library

CONTENTS_BYTES_MAX = 32 << 20
WORK_SECONDS_MAX = 30.0
"""Of one content in a worker: nobody waits for an answer here, and the machine may be busy with the restore itself."""


class _OneConnection(Postgres):
    """A pool of one connection, which somebody else opened and closes."""

    def __init__(self, connection: PlaceConnection) -> None:
        self._held = connection

    async def read(self, work: Work[T]) -> T:
        """As Postgres.read, without repeats: a transaction is open."""
        return await work(self._held)

    async def transact(self, work: Work[T]) -> T:
        """As `read`."""
        return await work(self._held)


class PlaceStore(PostgresStore):
    """The store's reads on one connection.

    frozen: nothing changes while this is used, so contents that are referenced are kept, up to CONTENTS_BYTES_MAX.
    planned: what references of contents lead to that are not stored yet, by the content's id.
    """

    def __init__(self, connection: PlaceConnection, *, frozen: bool) -> None:
        super().__init__(_OneConnection(connection))
        self._connection = connection
        self._frozen = frozen
        self._kept: LRUCache[int, Schema] = LRUCache(CONTENTS_BYTES_MAX, lambda schema: 512 + 2 * len(schema.text))
        self.planned: dict[int, Mapping[str, int]] = {}

    async def schemas(self, ids: Collection[int]) -> Mapping[int, Schema]:
        """See Store."""
        if not self._frozen:
            return await super().schemas(ids)
        kept = {schema_id: self._kept[schema_id] for schema_id in ids if schema_id in self._kept}
        missing = [schema_id for schema_id in ids if schema_id not in kept]
        found = await super().schemas(missing) if missing else {}
        for schema in found.values():
            if self._kept.getsizeof(schema) <= self._kept.maxsize:
                self._kept[schema.id] = schema
        return {**kept, **found}

    async def targets(self, schema_id: int) -> Mapping[str, int]:
        """See Store."""
        planned = self.planned.get(schema_id)
        return await postgres_reads.targets(self._connection, schema_id) if planned is None else planned

    async def leads_to(self, references: Sequence[Reference]) -> dict[str, int]:
        """Ids of the contents that references lead to now, by name. Those without a version are absent."""
        found = await self.versions_by_key([(each.subject, each.version) for each in references])
        held = {(version.subject, version.number): version.schema_id for version in found}
        keys = {each.name: (each.subject, each.version) for each in references}
        return {name: held[key] for name, key in keys.items() if key in held}


def languages() -> dict[Format, SchemaFormat]:
    """Every format. They can be pickled."""
    return {
        Format.JSON: JsonSchema(),
        Format.AVRO: Avro(),
        Format.PROTOBUF: Protobuf(compile_files),
    }


def library(store: PlaceStore, workers: Workers) -> Library:
    """Reads every format."""
    return Library(store, store, languages(), workers)
