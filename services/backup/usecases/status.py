"""How the archive and the stores are, for whoever asks and for the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.objects.store import Capabilities, ObjectStore
from services.backup.domain.model import Head, Level
from services.backup.ports import Source
from services.backup.usecases.archive import Archive, Heartbeat
from services.backup.usecases.audit import ArchiveAudit
from services.backup.usecases.catalog import Catalog, Listing
from services.backup.usecases.journal import Journal
from services.backup.usecases.ship import Ship

ASK_SECONDS = 5.0
PROBLEMS_MAX = 3
"""Of a store, told in its status; the listing tells all."""
ONE_REPLICA = (
    "The store does not honour conditional writes, so two processes could both believe that they hold an office: run"
    " one replica of the backup service only, or use a store that honours If-Match and If-None-Match."
)


@dataclass(frozen=True, slots=True)
class ArchiveStatus:
    """What the archive holds. live: None without the database. lag_seconds: what its loss would cost now.

    audited: when all of it was read again last, None for never. breaks: what is broken in it, in words.
    """

    heartbeat: Heartbeat | None
    live: Head | None
    lag_seconds: float | None
    restorable_from: datetime | None
    restorable_to: datetime | None
    segments: int
    stored_bytes: int
    problem: str
    audited: datetime | None
    breaks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """A store: what it can do, None when that could not be found out, and what is newest in it.

    newest, verified: ids of the newest backup, and of the newest one that was read in full in this very store and found
    right (V3); empty for none. verified_time: when it was. audited, breaks: of the archive in it, as in ArchiveStatus.
    """

    name: str
    location: str
    capabilities: Capabilities | None = None
    newest: str = ""
    verified: str = ""
    verified_time: datetime | None = None
    problem: str = ""
    audited: datetime | None = None
    breaks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NamedStore:
    """A store with what an operator calls it. journal: None where it holds a copy of one."""

    name: str
    location: str
    store: ObjectStore
    catalog: Catalog
    audit: ArchiveAudit
    journal: Journal | None = None


class Status:
    """Tells how things are."""

    def __init__(
        self, source: Source, archive: Archive, catalog: Catalog, ship: Ship | None, audit: ArchiveAudit
    ) -> None:
        self._source = source
        self._archive = archive
        self._audit = audit
        self._catalog = catalog
        self._ship = ship

    async def archive(self) -> ArchiveStatus:
        """How the archive is. Raises errors.ObjectStoreUnavailable."""
        listing, beat = await asyncio.gather(self._catalog.listing(), self._archive.heartbeat())
        segments, stored_bytes = await self._archive.size()
        audited = await self._audit.known()
        live = await self._live()
        return ArchiveStatus(
            heartbeat=beat,
            live=live,
            lag_seconds=await self._lag(beat, live),
            restorable_from=_first(listing),
            restorable_to=_last(listing, beat),
            segments=segments,
            stored_bytes=stored_bytes,
            problem=self._ship.state.problem if self._ship else "",
            audited=audited.ended if audited else None,
            breaks=tuple(str(each) for each in audited.breaks) if audited else (),
        )

    async def store(self, named: NamedStore) -> StoreStatus:
        """How a store is. What is wrong with it is part of the answer."""
        status = StoreStatus(named.name, named.location)
        try:
            async with asyncio.timeout(ASK_SECONDS):
                status = replace(status, capabilities=await named.store.probe())
                if audited := await named.audit.known():
                    breaks = tuple(str(each) for each in audited.breaks)
                    status = replace(status, audited=audited.ended, breaks=breaks)
                lost = (await named.journal.history()).lost if named.journal else ()
                broken = [*filter(None, [await named.audit.check()]), *(each.problem for each in lost)]
                return _with_backups(status, await named.catalog.listing(), broken)
        except errors.Error as failed:
            problem = failed.message
        except TimeoutError:
            problem = f"the store did not answer within {ASK_SECONDS:g} s"
        return replace(status, problem=problem)

    async def _live(self) -> Head | None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._source.head()
        except (errors.Error, TimeoutError):
            return None

    async def _lag(self, beat: Heartbeat | None, live: Head | None) -> float | None:
        """Seconds since the oldest change that is not archived; 0 when all are, None when that cannot be told."""
        if live is None or beat is None:
            return None
        if beat.place == live.place:
            return 0.0
        after = beat.place.position
        if beat.place.epoch != live.epoch:
            # What the archive holds of the line before is the live one's as well, up to the fork.
            after = min(after, live.epochs[-1].fork_position)
        try:
            pending = await self._source.changes(after, limit=1, bytes_max=1)
        except errors.Error:
            return None
        # By the store's clock, as the heartbeat is.
        now = await self._archive.now()
        return max(0.0, (now - pending[0].time).total_seconds()) if pending else 0.0


def _with_backups(status: StoreStatus, listing: Listing, broken: Sequence[str]) -> StoreStatus:
    """The status with what is in the store, and what is wrong with that. broken: of the archive and the journal."""
    problems = [] if status.capabilities is None or status.capabilities.conditional_writes else [ONE_REPLICA]
    problems += broken
    damaged = [entry.id for entry in listing.entries if entry.evidence and not entry.evidence[0].passed]
    problems += [f"backup {backup_id} was found damaged when it was verified last" for backup_id in damaged]
    problems += listing.problems
    more = f"; and {len(problems) - PROBLEMS_MAX} more" if len(problems) > PROBLEMS_MAX else ""
    verified = next((entry for entry in listing.entries if entry.level >= Level.V3), None)
    return replace(
        status,
        newest=listing.entries[0].id if listing.entries else "",
        verified=verified.id if verified else "",
        verified_time=verified.verified_time if verified else None,
        problem="; ".join(problems[:PROBLEMS_MAX]) + more,
    )


def _first(listing: Listing) -> datetime | None:
    """The earliest moment that a restore can go to."""
    usable = [entry.manifest.facts.time for entry in listing.entries if entry.level >= Level.V2 and not entry.buried]
    return min(usable, default=None)


def _last(listing: Listing, beat: Heartbeat | None) -> datetime | None:
    """The latest moment that a restore can go to."""
    usable = [entry.manifest.facts.time for entry in listing.entries if entry.level >= Level.V2 and not entry.buried]
    if not usable:
        return None
    return max([*usable, beat.time] if beat else usable)
