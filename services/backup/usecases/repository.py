"""A repository: one registry's backups and archive in one object store, with what use cases need to work on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_schema_registry import errors
from llm_schema_registry.objects.store import (
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
)
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.leases import Leases
from llm_schema_registry.operations.ports import Clock, Dice
from services.backup.domain import layout
from services.backup.domain.documents import (
    DocumentInvalid,
    Fields,
    Signer,
    Verifier,
    decode_signed,
    encode_signed,
)
from services.backup.ports import Failpoints
from services.backup.usecases.catalog import Catalog
from services.backup.usecases.data_keys import DataKeys

FORMAT = "llm-schema-registry repository/1"
_KIND = "repository"
WRITING = "repository"
"""The office under which objects of backups are made and deleted: one backup at a time, and no deletion meanwhile."""
ARCHIVING = "archive"
RESTORING = "restore"
SWAPPING = "swap"
"""The office under which the live database is put aside: for seconds, so its lease is a short one."""
SCHEDULING = "schedule"


@dataclass(frozen=True, slots=True)
class Repository:
    """One object store with the keys to it."""

    store: ObjectStore
    catalog: Catalog
    keys: DataKeys
    leases: Leases
    signer: Signer
    verifiers: Sequence[Verifier]
    clock: Clock
    dice: Dice
    failpoints: Failpoints

    def new_id(self) -> str:
        """An id that nobody has."""
        return ids.new_id(self.clock.now(), self.dice(ids.RANDOM_BYTES))

    async def cluster_id(self) -> str | None:
        """The registry that this store belongs to; None when it is empty. Raises errors.BackupDamaged."""
        try:
            content, _ = await self.store.get(layout.REPOSITORY)
            fields = Fields(decode_signed(_KIND, content, self.verifiers), _KIND)
            if fields.text("format") != FORMAT:
                fields.refuse("format", f"only {FORMAT} is known")
            return fields.text("cluster_id")
        except ObjectNotFound:
            return None
        except (DocumentInvalid, ObjectDamaged, ObjectTooLarge) as invalid:
            raise errors.BackupDamaged(
                f"{layout.REPOSITORY}, which says whose repository this is, cannot be trusted: {invalid}. If the store"
                " is this registry's, name the key that signed it in backup.trusted_key_paths, or delete that one"
                " object: the next backup writes it anew.",
                metadata={"key": layout.REPOSITORY},
            ) from None

    async def bind(self, cluster_id: str) -> None:
        """Makes the store this registry's, for ever. Raises errors.WrongCluster when it is another's."""
        known = await self.cluster_id()
        if known is None:
            content = encode_signed(_KIND, {"format": FORMAT, "cluster_id": cluster_id}, self.signer)
            try:
                await self.store.put(layout.REPOSITORY, content, if_absent=True)
            except ObjectExists:
                known = await self.cluster_id()
        if known not in {None, cluster_id}:
            raise errors.WrongCluster(
                f"The object store belongs to registry {known}, the database to {cluster_id}: use another bucket or"
                " prefix for this database, or restore the registry that the store belongs to.",
                metadata={"store_cluster_id": str(known), "database_cluster_id": cluster_id},
            )
