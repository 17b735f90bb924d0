"""Scratch places: filled from a backup, used, and dropped, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.operations import ids
from services.backup.domain.model import Manifest
from services.backup.ports import Places
from services.backup.usecases.repository import Repository

DROPPING_SECONDS = 60.0


class Scratch:
    """Makes scratch places."""

    def __init__(self, places: Places, repository: Repository) -> None:
        self._places = places
        self._repository = repository

    async def require_fit(self, manifest: Manifest) -> None:
        """Raises errors.DatabaseUnfit with everything that would keep the backup from being restored here."""
        problems = await self._places.preflight(manifest.facts)
        if problems:
            raise errors.DatabaseUnfit(
                f"backup {manifest.id} cannot be restored here: {'; '.join(problems)}",
                metadata={"backup_id": manifest.id},
            )

    async def fill(self, name: str, manifest: Manifest, dump: AsyncIterator[bytes]) -> None:
        """Makes a place and loads the dump into it; it is dropped again when that fails."""
        await self._places.create(name, manifest.facts)
        try:
            await self._repository.failpoints.reached("restore.created")
            await self._places.restore(name, dump)
        except BaseException:
            await to_the_end(self.drop(name))
            raise

    async def drop(self, name: str) -> None:
        """Drops a place. What cannot be dropped now is recognised by its name, and swept later."""
        with suppress(errors.Error, TimeoutError):
            async with asyncio.timeout(DROPPING_SECONDS):
                await self._places.drop(name)

    @asynccontextmanager
    async def filled(self, manifest: Manifest, dump: AsyncGenerator[bytes, None]) -> AsyncIterator[str]:
        """The name of a place that holds the backup, for the block. Raises as `require_fit` and Places.restore do."""
        await self.require_fit(manifest)
        name = self._places.scratch(ids.token(self._repository.new_id()))
        async with aclosing(dump):
            await self.fill(name, manifest, dump)
        try:
            yield name
        finally:
            await to_the_end(self.drop(name))
