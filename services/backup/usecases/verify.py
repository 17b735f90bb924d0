"""Verifies backups, level by level. A backup that is found damaged is a result, and its record says so."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from llm_schema_registry import errors
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from services.backup.domain.model import DatabaseFacts, Level, Manifest, Verification
from services.backup.ports import DumpCheck, Places
from services.backup.usecases.precedence import trial
from services.backup.usecases.reading import DumpReader
from services.backup.usecases.repository import Repository
from services.backup.usecases.scratch import Scratch

PROBLEMS_MAX = 100


@dataclass(slots=True)
class _Reached:
    """How far a verification is. level: at first, how far it is to go."""

    level: Level
    restore_seconds: float | None = None


class Verify:
    """Verifies the backups of one repository."""

    kind = OperationKind.VERIFY

    def __init__(self, repository: Repository, dump_check: DumpCheck, places: Places, store_name: str = "") -> None:
        """store_name: of a store that is not the first, for the steps of operations."""
        self._where = f" in the {store_name} store" if store_name else ""
        self._repository = repository
        self._dump_check = dump_check
        self._places = places
        self._reader = DumpReader(repository.store, repository.keys)

    def at(self, repository: Repository, store_name: str) -> Verify:
        """Verifies the backups of another repository, by the same means."""
        return Verify(repository, self._dump_check, self._places, store_name)

    async def run(self, backup_id: str, level: Level, running: Running) -> Subject:
        """Verifies, and returns the key of the record. Raises as `verify` does."""
        async with running.step(f"verify V{int(level)}{self._where}") as say:
            verification = await self.verify(backup_id, level, running)
            say("all is right" if verification.passed else verification.problems[0])
        return Subject("verification", await self._repository.catalog.record(verification))

    async def verify(self, backup_id: str, level: Level, running: Running) -> Verification:
        """What a verification to this level found.

        Only what is wrong with the backup is a problem; what keeps it from being verified is raised:
        errors.BackupNotFound, KeyUnavailable, ObjectStoreUnavailable, ObjectStoreDenied, DatabaseUnavailable,
        DatabaseUnfit, OperationRunning, ToolMismatch.
        """
        repository = self._repository
        entry = await repository.catalog.get(backup_id)
        began = repository.clock.monotonic()
        reached = _Reached(level)
        problems: Sequence[str] = ()
        try:
            problems = await self._look(entry.manifest, reached, running)
        except (errors.BackupDamaged, errors.RestoreFailed) as failed:
            problems = [failed.message]
        return Verification(
            backup_id=backup_id,
            # What is damaged is so at the level that found it, however far the verification was to go.
            level=reached.level if problems else level,
            time=await repository.store.now(),
            problems=tuple(problems[:PROBLEMS_MAX]),
            duration_seconds=repository.clock.monotonic() - began,
            restore_seconds=reached.restore_seconds,
        )

    async def _look(self, manifest: Manifest, reached: _Reached, running: Running) -> Sequence[str]:
        """Goes from level to level, and returns what the last one found. Raises at damage."""
        wanted, reached.level = reached.level, Level.V1
        await self.require_stored(manifest)
        if wanted >= Level.V2:
            reached.level = Level.V2
            await self._reader.check_ends(manifest)
        if wanted >= Level.V3:
            reached.level = Level.V3
        if wanted == Level.V3:
            await self._read_all(manifest, running)
        return await self._restore(manifest, reached, running) if wanted == Level.V4 else ()

    async def require_whole(self, manifest: Manifest) -> None:
        """V1 and V2 of a backup whose manifest is not stored yet. Raises as `verify` does, and BackupDamaged."""
        await self.require_stored(manifest)
        await self._reader.check_ends(manifest)

    async def require_stored(self, manifest: Manifest) -> None:
        """V1: the store holds every object with the size and checksum of the manifest. Raises errors.BackupDamaged."""
        for record in manifest.objects:
            stored = await self._repository.store.head(record.key)
            if stored is None:
                raise errors.BackupDamaged(f"{record.key} is not in the store", metadata={"key": record.key})
            if stored.size_bytes != record.size_bytes:
                raise errors.BackupDamaged(
                    f"{record.key} has {stored.size_bytes} bytes in the store, {record.size_bytes} were written",
                    metadata={"key": record.key},
                )
            if stored.sha256 is not None and stored.sha256 != record.sha256:
                raise errors.BackupDamaged(
                    f"{record.key} has another SHA-256 in the store than was written", metadata={"key": record.key}
                )

    async def _read_all(self, manifest: Manifest, running: Running) -> None:
        """V3: every byte, through PostgreSQL's own reader."""
        async with aclosing(self._dump(manifest, running)) as dump:
            await self._repository.failpoints.reached("verify.reading")
            await self._dump_check.accept(dump, manifest.facts.server_version_num)

    async def _restore(self, manifest: Manifest, reached: _Reached, running: Running) -> list[str]:
        """V4: into a scratch place, which is dropped; what differs from the snapshot's facts."""
        clock, scratch = self._repository.clock, Scratch(self._places, self._repository)
        async with trial(self._repository.leases):
            began = clock.monotonic()
            try:
                async with scratch.filled(manifest, self._dump(manifest, running)) as name:
                    reached.level = Level.V4
                    reached.restore_seconds = clock.monotonic() - began
                    found = differences(manifest.facts, await self._places.facts(name))
                    check = await self._places.check(name)
            except errors.RestoreFailed:
                # Of a backup that is not sealed, damaged bytes reach the database's reader first: look at them again.
                await self._read_all(manifest, running)
                reached.level = Level.V4
                raise
        return [*found, *check.problems]

    def _dump(self, manifest: Manifest, running: Running) -> AsyncGenerator[bytes, None]:
        def tell(dump_bytes: int, objects: int) -> None:
            running.tell(bytes_done=dump_bytes, bytes_total=manifest.dump_bytes, parts_done=objects)

        return self._reader.read(manifest, tell)


def differences(wanted: DatabaseFacts, found: DatabaseFacts) -> list[str]:
    """What a restored database holds otherwise than its snapshot did, in words."""
    problems = []
    tables = {table.name: table for table in found.tables}
    for table in wanted.tables:
        other = tables.pop(table.name, None)
        if other is None:
            problems.append(f"table {table.name} is missing")
        elif other.rows != table.rows:
            problems.append(f"table {table.name} has {other.rows} rows, the snapshot had {table.rows}")
        elif other.sha256 != table.sha256:
            problems.append(f"table {table.name} has the right number of rows, {table.rows}, but other contents")
    problems += [f"table {name} was not in the snapshot" for name in tables]
    if found.structure_sha256 != wanted.structure_sha256:
        problems.append("columns, constraints, indexes or functions differ from the snapshot's")
    if found.access_sha256 != wanted.access_sha256:
        problems.append("owners or grants differ from the snapshot's")
    if found.head.schema_id_high < wanted.head.schema_id_high:
        problems.append(f"the id sequence stands at {found.head.schema_id_high}, below {wanted.head.schema_id_high}")
    if found.head.place != wanted.head.place:
        problems.append(f"the history ends at {found.head.place}, the snapshot's at {wanted.head.place}")
    return problems
