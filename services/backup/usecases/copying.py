"""Copies backups and the archive into a second store: object by object, compared on arrival, the manifest last."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.objects.store import (
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    Placement,
)
from services.backup.domain import layout
from services.backup.domain.model import Manifest, ObjectRecord
from services.backup.usecases.catalog import Catalog
from services.backup.usecases.reading import damaged
from services.backup.usecases.repository import Repository

NAME = "second"


@dataclass(slots=True)
class CopyState:
    """What this process knows of the second store. problem: why it is behind; empty when it is not."""

    complete: frozenset[str] = frozenset()
    time: datetime | None = None
    problem: str = ""
    copied_bytes: int = 0


class Copying:
    """Keeps a second store like the first. Nothing is ever deleted there but what retention deleted here as well."""

    def __init__(self, repository: Repository, second: ObjectStore, report: Callable[..., None]) -> None:
        self._repository = repository
        self._second = second
        self._report = report
        self.catalog = Catalog(second, repository.verifiers)
        self.state = CopyState()

    async def round(self) -> None:
        """Copies all that is missing. What keeps it from that is a problem in the state, and is tried again later."""
        try:
            await self._copy_small(layout.REPOSITORY)
            await self._copy_keys()
            await self._copy_backups()
            await self._copy_segments()
        except errors.Error as failed:
            if failed.message != self.state.problem:
                self._report("second store is behind", message=failed.message)
            self.state.problem = failed.message
            return
        self.state.problem = ""
        self.state.time = self._repository.clock.now()

    async def _copy_keys(self) -> None:
        """Wrapped keys: without them the copies are of no use to anybody."""
        there = {each.key async for each in self._second.list(layout.KEYS)}
        here = [each.key async for each in self._repository.store.list(layout.KEYS)]
        for key in here:
            if key not in there:
                await self._copy_small(key)
        newest: dict[str, int] = {}
        for key in here:
            if found := layout.key_of(key):
                newest[found[0]] = max(found[1], newest.get(found[0], 0))
        for key in there:
            found = layout.key_of(key)
            if found and found[1] < newest.get(found[0], 0):
                # A rotation took recipients away: so here as well.
                await self._second.delete(key)

    async def _copy_backups(self) -> None:
        listing = await self._repository.catalog.listing()
        there = {entry.id for entry in (await self.catalog.listing()).entries}
        for entry in reversed(listing.entries):
            if entry.id not in there and not entry.buried:
                await self._copy_backup(entry.manifest)
        for name in (layout.VERIFICATIONS, layout.PINS, layout.RESTORES, layout.DRILLS):
            await self._copy_all_small(name)
        kept = {entry.id for entry in listing.entries}
        self.state.complete = frozenset(
            entry.id for entry in (await self.catalog.listing()).entries if entry.id in kept
        )

    async def _copy_backup(self, manifest: Manifest) -> None:
        for record in manifest.objects:
            await self._copy_object(record)
        await self._repository.failpoints.reached("copy.before_manifest")
        await self._copy_small(layout.manifest(manifest.id))

    async def _copy_object(self, record: ObjectRecord) -> None:
        """Copies a data object, and compares its digest on arrival with its record's."""
        digest, size = hashlib.sha256(), 0
        stored = await self._second.head(record.key)
        if stored is not None and stored.size_bytes == record.size_bytes and stored.sha256 == record.sha256:
            return
        try:
            async with self._second.upload(record.key, placement=Placement("STANDARD_IA"), if_absent=False) as upload:
                async for piece in self._repository.store.read(record.key):
                    await asyncio.to_thread(digest.update, piece)
                    size += len(piece)
                    await upload.write(piece)
                if (size, digest.digest()) != (record.size_bytes, record.sha256):
                    raise damaged(record.key, 0, "it is not what the manifest says, and was not copied")
                await upload.complete()
        except ObjectNotFound:
            raise damaged(record.key, 0, "the object is not there, and was not copied") from None
        except ObjectDamaged as failed:
            raise damaged(record.key, 0, f"it did not arrive in the second store: {failed}") from None
        self.state.copied_bytes += size

    async def _copy_segments(self) -> None:
        """Segments of the archive, each once: they never change."""
        there = {each.key async for each in self._second.list(layout.ARCHIVE)}
        async for each in self._repository.store.list(layout.ARCHIVE):
            if layout.segment_of(each.key) and each.key not in there:
                await self._copy_small(each.key)
        await self._copy_small(layout.HEARTBEAT, changing=True)

    async def _copy_all_small(self, prefix: str) -> None:
        there = {each.key async for each in self._second.list(prefix)}
        async for each in self._repository.store.list(prefix):
            if each.key not in there:
                await self._copy_small(each.key)

    async def _copy_small(self, key: str, *, changing: bool = False) -> None:
        try:
            content, _ = await self._repository.store.get(key)
        except ObjectNotFound:
            return
        except ObjectDamaged as failed:
            raise damaged(key, 0, f"it was not copied: {failed}") from None
        try:
            await self._second.put(key, content, if_absent=not changing)
        except ObjectExists:
            raise errors.WrongCluster(
                f"The second store holds another {key}: it belongs to something else, or was changed. Use an empty"
                " bucket or prefix.",
                metadata={"key": key},
            ) from None
