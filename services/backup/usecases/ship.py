"""Keeps the archive close behind the database: the loop of the process that holds the office."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.operations.leases import Lease, LeaseTimes
from services.backup.domain.model import Head, StoredChange
from services.backup.ports import Election, Source
from services.backup.usecases.archive import CHANGES_MAX, HEARTBEAT_SECONDS, Archive, ArchiveRules, Heartbeat, Tip
from services.backup.usecases.repository import ARCHIVING, Repository

RETRY_SECONDS = 2.0
LAST_SECONDS = 5.0
"""For what is shipped when the process ends."""
FOLLOW_SECONDS = 2.0
"""How often a process that does not ship asks for the office."""
SHIP_TIMES = LeaseTimes(lease=8.0, renew=2.0, fence=6.0)
"""Short, because what is written after a process is gone is archived by another one only: within ten seconds.
Not shorter: behind a slow store, which a backup keeps busy, a renewal may take seconds, and who cannot renew ships
nothing."""

ROUNDS_MAX = 100
"""Segments of a backlog that one step ships, one after the other."""

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
                        async with self._repository.leases.held(ARCHIVING, times=SHIP_TIMES) as lease:
                            await self._lead(lease)
            except errors.OperationRunning:
                self.state.problem = ""
            except errors.Error as error:
                self._complain(error.message)
            except Exception as defect:  # noqa: BLE001 - the edge of a task that must not end: nobody would notice
                self._complain("The archiver failed by a defect, which the log has.", exc_info=defect)
            self.state.leading = False
            await asyncio.sleep(FOLLOW_SECONDS if not self.state.problem else RETRY_SECONDS)

    async def _lead(self, lease: Lease) -> None:
        """Ships until something fails."""
        state, clock = self.state, self._repository.clock
        await self._begin()
        self._report("archive begins", epoch=self._tip.epoch, position=self._tip.position, generation=lease.generation)
        state.leading = True
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
            await to_the_end(self._last_step(lease))
            raise
        finally:
            state.leading = False

    async def _begin(self) -> None:
        """Finds out where the archive ends. Raises WrongCluster when the database has another history."""
        state = self.state
        head = await self._source.head()
        await self._repository.bind(head.cluster_id)
        state.tip, state.head, state.beat = await self._archive.tip(head), head, None
        await self._require_same_history(self._tip)

    @property
    def _tip(self) -> Tip:
        assert self.state.tip is not None, "the tip is known before the first step"
        return self.state.tip

    async def step(self, lease: Lease) -> None:
        """Ships what is there now, then says how far it is if that is all that was there when it began.

        Of a longer backlog it ships ROUNDS_MAX segments and says nothing: a heartbeat would claim what is missing yet.
        """
        state, rules = self.state, self._rules
        for _ in range(ROUNDS_MAX):
            asked = await self._repository.store.now()
            changes = await self._source.changes(self._tip.position, limit=CHANGES_MAX, bytes_max=rules.seal_bytes)
            # After the changes, so that the lines and the id mark cover all of them.
            head = await self._source.head()
            if state.head is None or (head.cluster_id, head.epochs) != (state.head.cluster_id, state.head.epochs):
                # A restore took the place of the database: the changes may be those of the one before.
                await self._begin()
                continue
            state.head = head
            self._require_follows(self._tip, head, changes)
            if changes:
                state.pending_since = changes[0].time
                await self._ship(head, changes, lease)
            # Under a steady load there is always another change: a segment that is not full waits for more of them.
            if len(changes) < CHANGES_MAX and sum(change.size_bytes for change in changes) < rules.seal_bytes:
                state.pending_since = None
                await self._beat(head, asked)
                break
        state.problem = ""

    async def _ship(self, head: Head, changes: Sequence[StoredChange], lease: Lease) -> None:
        """Ships changes, those of each line in a segment of its own."""
        state = self.state
        rest = list(changes)
        while rest:
            epoch = rest[0].epoch
            same = [change for change in rest if change.epoch == epoch]
            rest = rest[len(same) :]
            tip = self._tip if self._tip.epoch == epoch else Tip(epoch, self._tip.position, None)
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

    async def _require_same_history(self, tip: Tip) -> None:
        """Raises WrongCluster when the database has another change where the archive ends.

        It was put back by other means then, and went on: its positions are in use twice.
        """
        if tip.change is None:
            return
        found = await self._source.changes(tip.position - 1, limit=1, bytes_max=1)
        if found and found[0].position == tip.position and _mark(found[0]) != _mark(tip.change):
            raise errors.WrongCluster(
                f"The archive and the database have different changes at {tip.epoch}/{tip.position}: the database was"
                " put back by other means than RestoreService, and written to since. Nothing is archived. Restore with"
                " RestoreService, which begins a new epoch, or archive under another prefix.",
                metadata={"archive_position": tip.position, "database_position": found[0].position},
            )

    async def _beat(self, head: Head, asked: datetime) -> None:
        state, tip = self.state, self._tip
        beat, now = state.beat, self._repository.clock.monotonic()
        same = beat is not None and (beat.place.epoch, beat.place.position, beat.schema_id_high, beat.epochs) == (
            tip.epoch,
            tip.position,
            head.schema_id_high,
            head.epochs,
        )
        if same and now - self._beaten < HEARTBEAT_SECONDS:
            return
        state.beat = await self._archive.beat(tip, head, asked)
        self._beaten = now

    async def _last_step(self, lease: Lease) -> None:
        try:
            async with asyncio.timeout(LAST_SECONDS):
                # A segment may have been cut off on its way: whether it arrived, the store knows.
                head = await self._source.head()
                self.state.tip, self.state.head = await self._archive.tip(head), head
                await self.step(lease)
        except (errors.Error, TimeoutError) as failed:
            message = str(failed) or f"the database or the store did not answer within {LAST_SECONDS:g} s"
            self._report("archive ends behind the database", message=message)

    def _complain(self, message: str, **facts: object) -> None:
        if message != self.state.problem:
            self._report("archive stands still", message=message, **facts)
        self.state.problem = message


def _mark(change: StoredChange) -> tuple[object, ...]:
    """What tells a change from another one with the same position. A purge may empty its payload later."""
    return change.epoch, change.time, change.actor, change.subject, change.kind
