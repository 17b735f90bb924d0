"""Keeps the archive close behind the database: the loop of the process that holds the office."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from llm_schema_registry import errors
from services.backup.domain.model import Head, StoredChange
from services.backup.ports import Election, Source
from services.backup.usecases.archive import CHANGES_MAX, HEARTBEAT_SECONDS, Archive, ArchiveRules, Heartbeat, Tip
from services.backup.usecases.leases import Lease
from services.backup.usecases.repository import ARCHIVING, Repository

RETRY_SECONDS = 2.0
FOLLOW_SECONDS = 5.0
"""How often a process that does not ship asks for the office."""

Report = Callable[..., None]


@dataclass(slots=True)
class Shipping:
    """What this process knows of the archive. leading: it is the one that ships. problem: why nothing is shipped.

    pending_since: time of the oldest change that was seen and is not archived yet.
    """

    leading: bool = False
    tip: Tip | None = None
    head: Head | None = None
    beat: Heartbeat | None = None
    pending_since: datetime | None = None
    problem: str = ""
    shipped: int = 0
    segments: int = 0


class Ship:
    """Ships the history of one registry into the archive of its repository."""

    def __init__(
        self, source: Source, repository: Repository, archive: Archive, rules: ArchiveRules, report: Report
    ) -> None:
        self._source = source
        self._repository = repository
        self._archive = archive
        self._rules = rules
        self._report = report
        self.state = Shipping()
        self._beaten = 0.0

    async def check(self) -> str | None:
        """What keeps the archive from following the database, in words; None when nothing does."""
        return self.state.problem or None

    async def run(self, election: Election) -> None:
        """Ships for ever, whenever this process can have the office. Cancelled, it ships what there is and ends."""
        while True:
            try:
                async with election.held(ARCHIVING) as elected:
                    if elected:
                        async with self._repository.leases.held(ARCHIVING) as lease:
                            await self._lead(lease)
            except errors.OperationRunning:
                self.state.problem = ""
            except errors.Error as error:
                self._complain(error.message)
            self.state.leading = False
            await asyncio.sleep(FOLLOW_SECONDS if not self.state.problem else RETRY_SECONDS)

    async def _lead(self, lease: Lease) -> None:
        """Ships until something fails."""
        state = self.state
        head = await self._source.head()
        await self._repository.bind(head.cluster_id)
        tip = await self._archive.tip(head)
        self._report("archive begins", epoch=tip.epoch, position=tip.position, generation=lease.generation)
        state.leading, state.tip, state.head, state.beat = True, tip, head, None
        clock = self._repository.clock
        try:
            while True:
                began, before = clock.monotonic(), state.segments
                await self.step(lease)
                if state.segments == before:
                    await self._source.wait(HEARTBEAT_SECONDS)
                    continue
                # A first change after a while is shipped at once; then one segment every few seconds.
                await asyncio.sleep(max(0.0, self._rules.seal_seconds - (clock.monotonic() - began)))
        except asyncio.CancelledError:
            # The last seconds of a process that ends in order: what was written by then is archived by then.
            await asyncio.shield(self._last_step(lease))
            raise
        finally:
            state.leading = False

    async def step(self, lease: Lease) -> None:
        """Ships everything that is there now, then says so."""
        state = self.state
        while True:
            assert state.tip is not None, "the tip is known before the first step"
            changes = await self._source.changes(
                state.tip.position, limit=CHANGES_MAX, bytes_max=self._rules.seal_bytes
            )
            # After the changes, so that the lines and the id mark cover all of them.
            head = await self._source.head()
            if state.head is None or head.epochs != state.head.epochs:
                # A restore took the place of the database: the changes may be those of the one before.
                await self._repository.bind(head.cluster_id)
                state.tip, state.head = await self._archive.tip(head), head
                continue
            state.head = head
            self._require_follows(state.tip, head, changes)
            if not changes:
                break
            state.pending_since = changes[0].time
            await self._ship(head, changes, lease)
        state.pending_since = None
        state.problem = ""
        await self._beat(head)

    async def _ship(self, head: Head, changes: Sequence[StoredChange], lease: Lease) -> None:
        """Ships changes, those of each line in a segment of its own."""
        state = self.state
        rest = list(changes)
        while rest:
            epoch = rest[0].epoch
            same = [change for change in rest if change.epoch == epoch]
            rest = rest[len(same) :]
            assert state.tip is not None, "the tip is known before the first step"
            tip = state.tip if state.tip.epoch == epoch else Tip(epoch, state.tip.position, None)
            await lease.require()
            state.tip = await self._archive.ship(tip, head, same)
            state.shipped += len(same)
            state.segments += 1

    def _require_follows(self, tip: Tip, head: Head, changes: Sequence[StoredChange]) -> None:
        """Raises WrongCluster when the database's history is not the one that is archived, BackupDamaged at a gap."""
        if changes and changes[0].position != tip.position + 1:
            raise errors.BackupDamaged(
                f"The archive ends at {tip.position}, and the database no longer has the change behind it: make a"
                " backup, and archive under another prefix.",
                metadata={"archive_position": tip.position, "database_position": changes[0].position},
            )
        if head.epoch == tip.epoch and head.position < tip.position:
            raise errors.WrongCluster(
                f"The archive holds changes of epoch {tip.epoch} up to {tip.position}, the database ends at"
                f" {head.position}: the database was put back by other means than RestoreService. Nothing is archived."
                " Restore with RestoreService, which begins a new epoch.",
                metadata={"archive_position": tip.position, "database_position": head.position},
            )

    async def _beat(self, head: Head) -> None:
        state = self.state
        assert state.tip is not None, "the tip is known before the first step"
        beat, now = state.beat, self._repository.clock.monotonic()
        same = beat is not None and (beat.place.epoch, beat.place.position, beat.schema_id_high, beat.epochs) == (
            state.tip.epoch,
            state.tip.position,
            head.schema_id_high,
            head.epochs,
        )
        if same and now - self._beaten < HEARTBEAT_SECONDS:
            return
        state.beat = await self._archive.beat(state.tip, head)
        self._beaten = now

    async def _last_step(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(RETRY_SECONDS):
                await self.step(lease)
        except (errors.Error, TimeoutError) as failed:
            self._report("archive ends behind the database", message=str(failed))

    def _complain(self, message: str) -> None:
        if message != self.state.problem:
            self._report("archive stands still", message=message)
        self.state.problem = message
