"""Prepares a restore: a backup and the changes behind it, in a place beside the live one, verified there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Running
from services.backup.domain import layout
from services.backup.domain.forks import LineUnknown, known_lines, shared_position
from services.backup.domain.layout import SegmentKey
from services.backup.domain.model import Epoch, Head, Level, Place, StoredChange, Verification
from services.backup.domain.restore import LossWindow, Restore, RestoreState
from services.backup.domain.targets import (
    AtTime,
    Base,
    Cut,
    Known,
    Latest,
    RestorePlan,
    Target,
    Unreachable,
    plan,
    stretches_for,
)
from services.backup.ports import Places
from services.backup.usecases.archive import Archive, Heartbeat
from services.backup.usecases.catalog import Entry, Listing
from services.backup.usecases.journal import Journal
from services.backup.usecases.precedence import needed
from services.backup.usecases.reading import DumpReader
from services.backup.usecases.repository import Repository
from services.backup.usecases.scratch import Scratch
from services.backup.usecases.verify import PROBLEMS_MAX, differences

PAGE = 1000
PAGE_BYTES = 8 * 1024 * 1024
KEEP = timedelta(hours=72)


@dataclass(frozen=True, slots=True)
class Survey:
    """All that is known of the history: backups, archive, and the live database when it can be read.

    stranger: where a database stands that has the live name and holds another registry. unreadable: why the one that
    has the live name cannot be read; empty when it can, or when there is none. unknown: the newest segments of lines
    that nothing which can be read tells of.
    """

    listing: Listing
    heartbeat: Heartbeat | None
    live: Head | None
    epochs: tuple[Epoch, ...]
    stranger: Head | None = None
    unreadable: str = ""
    unknown: tuple[SegmentKey, ...] = ()

    @property
    def lines(self) -> dict[int, Epoch]:
        return {line.id: line for line in self.epochs}

    def require_own(self) -> None:
        """Raises errors.WrongCluster when another registry lives under the live name. A new, empty one may be replaced:
        the registry makes it by itself when its database is gone."""
        if self.stranger is not None and self.stranger.position > 0:
            raise errors.WrongCluster(
                f"Another registry lives here, {self.stranger.cluster_id}, with {self.stranger.position} changes:"
                " restore onto this registry's own server, or under another database name.",
                metadata={"database_cluster_id": self.stranger.cluster_id},
            )

    def require_newest(self) -> None:
        """Raises errors.BackupDamaged when there is a line newer than all that are known: nobody can tell what the
        newest state is."""
        newest = max((line.id for line in self.epochs), default=0)
        for key in self.unknown:
            if key.epoch > newest:
                name = layout.segment(key.epoch, key.first, key.last)
                raise errors.BackupDamaged(
                    f"{name} cannot be read, nor can those before it, and nothing else tells of epoch {key.epoch}, the"
                    " newest one: bring them back, from the second store or as older versions of them, or name a place,"
                    " a backup, or a time of an earlier epoch as the target.",
                    metadata={"key": name},
                )

    def without_live(self) -> Survey:
        """What would be known if the database were gone."""
        return replace(self, live=None)


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a rehearsal led to: where its history ended, the time of the newest change, and what is wrong."""

    place: Place
    time: datetime
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Aim:
    """What a preparation aims at. base_id: the backup to begin from; empty for the newest one before the target."""

    target: Target
    level: Level = Level.V3
    base_id: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a preparation would do: its base, its way and where that ends, and what its activation would lose now."""

    entry: Entry
    way: RestorePlan
    place: Place
    window: LossWindow
    survey: Survey


def _base(entry: Entry, *, trusted: bool = True) -> Base:
    """A backup to begin from; one that is not trusted only tells where the history has been."""
    manifest = entry.manifest
    return Base(entry.id, manifest.place, manifest.facts.time, entry.level if trusted else None)


def measure(survey: Survey, place: Place) -> LossWindow:
    """What a history that ends at a place has not of what is known to have happened. Raises errors.BackupDamaged."""
    beat = survey.heartbeat
    live = survey.live.place if survey.live else beat.place if beat else place
    try:
        shared = shared_position(survey.lines, place, live)
    except LineUnknown as unknown:
        raise errors.BackupDamaged(f"What would be lost cannot be told: {unknown}.") from None
    return LossWindow(survey.live is not None, live, max(0, live.position - shared))


class Prepare:
    """Prepares restores of one registry."""

    kind = OperationKind.PREPARE_RESTORE

    def __init__(
        self, repository: Repository, archive: Archive, places: Places, journal: Journal, keep: timedelta = KEEP
    ) -> None:
        """keep: how long what was prepared waits to be activated."""
        self._repository = repository
        self._keep = keep
        self.archive = archive
        self._places = places
        self._journal = journal
        self._scratch = Scratch(places, repository)
        self._reader = DumpReader(repository.store, repository.keys)

    # What can be reached

    async def survey(self, *, to_swap: bool = False) -> Survey:
        """What is known now. Raises errors.ObjectStoreUnavailable, errors.BackupDamaged when histories contradict.

        to_swap: a live database that does not answer just now counts as one that is gone otherwise, but who puts it
        aside must know what it holds: raises errors.DatabaseUnavailable.
        """
        listing = await self._repository.catalog.listing()
        beat = await self.archive.heartbeat()
        live, unreadable = await self._look(to_swap=to_swap)
        cluster = await self._repository.cluster_id()
        stranger = live if live is not None and cluster is not None and live.cluster_id != cluster else None
        live = None if stranger is not None else live
        lines, unknown = await self._lines(listing, beat, live)
        return Survey(listing, beat, live, lines, stranger, unreadable, unknown)

    async def _lines(
        self, listing: Listing, beat: Heartbeat | None, live: Head | None
    ) -> tuple[tuple[Epoch, ...], tuple[SegmentKey, ...]]:
        """All lines of history, by number, and the newest segments of those of which nothing is known. Raises
        errors.BackupDamaged when two tell differently of one."""
        journaled = [restore.line for restore in (await self._journal.history()).told]
        sources = [
            *(entry.manifest.facts.head.epochs for entry in listing.entries),
            beat.epochs if beat else (),
            live.epochs if live else (),
            [line for line in journaled if line is not None],
        ]
        unknown: list[SegmentKey] = []
        try:
            lines = known_lines(*sources)
            # An abandoned line may have left its traces in the archive alone.
            for epoch in await self.archive.epochs():
                if epoch not in lines:
                    segment, damaged = await self.archive.ending(epoch, beat)
                    unknown += [] if segment else damaged[:1]
                    lines = known_lines(lines.values(), segment.epochs if segment else ())
        except ValueError as error:
            raise errors.BackupDamaged(f"The store and the database contradict each other: {error}.") from None
        return tuple(lines[number] for number in sorted(lines)), tuple(unknown)

    async def _look(self, *, to_swap: bool) -> tuple[Head | None, str]:
        """Where the live database stands, and why that cannot be read. Both are empty when there is none."""
        try:
            if self._places.live not in await self._places.existing():
                return None, ""
            return await self._places.head(self._places.live), ""
        except errors.Error as error:
            if to_swap and not isinstance(error, errors.DatabaseUnfit):
                raise
            return None, error.message

    async def live_head(self) -> Head | None:
        """Where the live database stands; None when it cannot be read."""
        return (await self._look(to_swap=False))[0]

    async def way(self, target: Target, level: Level, survey: Survey, base_id: str = "") -> RestorePlan:
        """The way to the target. Raises errors.TargetUnreachable, which says what can be reached.

        base_id: the backup to begin from; empty for the newest one before the target, of which a doubtful one is the
        last choice. Raises errors.BackupDamaged for a target of a newest epoch that nobody knows.
        """
        if isinstance(target, Latest) or (isinstance(target, AtTime) and target.epoch is None):
            survey.require_newest()
        entries = [entry for entry in survey.listing.entries if not base_id or entry.id == base_id]
        beat = survey.heartbeat
        known = Known(beat.place, beat.time) if beat else None

        async def found(bases: Sequence[Base]) -> RestorePlan:
            spans = await self.archive.spans(stretches_for(target, bases, survey.epochs, level=level))
            return plan(target, bases, spans, survey.epochs, level=level, heartbeat=known)

        every = [_base(entry) for entry in entries]
        sure = [_base(entry, trusted=not entry.doubtful) for entry in entries]
        if sure != every:
            with suppress(Unreachable):
                return await found(sure)
        try:
            return await found(every)
        except Unreachable as unreachable:
            raise _unreachable(unreachable) from None

    async def window(self, restore: Restore) -> LossWindow:
        """What would be lost by activating the restore now."""
        survey = await self.survey()
        found = measure(survey, restore.place or Place(1, 0))
        if not found.changes or not found.readable:
            return found
        first = await self.time_of(found.live.position - found.changes + 1)
        return replace(found, first_time=first, last_time=await self.time_of(found.live.position))

    async def time_of(self, position: int) -> datetime | None:
        try:
            found = await self._places.changes(self._places.live, position - 1, limit=1, bytes_max=1)
        except errors.Error:
            return None
        return found[0].time if found else None

    async def outlook(self, wanted: Aim) -> Outlook:
        """What a preparation would do; nothing is made. Raises as RestoreService.PrepareRestore says."""
        survey = await self.survey()
        survey.require_own()
        way = await self.way(wanted.target, wanted.level, survey, wanted.base_id)
        entry = survey.listing.entry(way.base.id)
        assert entry is not None, "a plan begins with a backup of the listing"
        await self._scratch.require_fit(entry.manifest)
        if entry.manifest.encryption is not None:
            await self._repository.keys.open(entry.manifest.encryption.key_id)
        place = way.end or await self._end(way)
        live = survey.live
        if isinstance(wanted.target, Latest) and live is not None and follows(live, place):
            place = live.place
        return Outlook(entry, way, place, measure(survey, place), survey)

    async def _end(self, way: RestorePlan) -> Place:
        """Where a way to a time ends: its changes are read for that."""
        cut = Cut(way)
        try:
            async with aclosing(self.archive.changes(way, cut)) as changes:
                async for _ in changes:
                    pass
        except Unreachable as unreachable:
            raise _unreachable(unreachable) from None
        return cut.place

    # The work

    async def run(self, restore_id: str, wanted: Aim, running: Running) -> Subject:
        """Prepares the restore, or drops all of it. Raises as RestoreService.PrepareRestore says."""
        target = wanted.target
        repository = self._repository
        async with needed(repository.leases):
            await self.sweep()
            began = repository.clock.monotonic()
            async with running.step("plan") as say:
                survey = await self.survey()
                survey.require_own()
                way = await self.way(target, wanted.level, survey, wanted.base_id)
                entry = survey.listing.entry(way.base.id)
                assert entry is not None, "a plan begins with a backup of the listing"
                await self._scratch.require_fit(entry.manifest)
                say(f"backup {entry.id} at {entry.manifest.place}, then {len(way.pieces)} segments of the archive")
            restore = Restore(
                id=restore_id,
                state=RestoreState.PREPARING,
                target=target,
                backup_id=entry.id,
                scratch=self._places.scratch(ids.token(restore_id)),
                actor=running.operation.actor,
                start_time=repository.clock.now(),
            )
            try:
                restore = await self._journal.write(restore)
                restore = await self._fill(restore, entry, way, running)
                now = await repository.store.now()
                await self._journal.write(
                    restore,
                    state=RestoreState.PREPARED,
                    prepare_time=now,
                    keep_until=now + self._keep,
                    prepare_seconds=repository.clock.monotonic() - began,
                )
            except BaseException as failure:
                await to_the_end(self._give_up(restore_id, failure))
                raise
        return Subject("restore", restore_id)

    async def _fill(self, restore: Restore, entry: Entry, way: RestorePlan, running: Running) -> Restore:
        name = restore.scratch
        time = await self._load(name, entry, way, running)
        if isinstance(restore.target, Latest):
            async with running.step("follow") as say:
                place = await self.follow_live(name, (await self._places.head(name)).place)
                say(f"the history ends at {place}")
        async with running.step("verify") as say:
            check = await self._places.check(name)
            if check.problems:
                await self._doubt(restore, check.problems)
                raise errors.RestoreFailed(
                    f"The registry's own check found: {'; '.join(check.problems[:5])}. Backup {restore.backup_id} may"
                    " hold the damage: from now on one before it is preferred."
                )
            head, rows = await self._places.head(name), await self._places.rows(name)
            # Nobody writes here by accident; the activation allows it.
            await self._places.set_fenced(name, fenced=True)
            say(f"{check.schemas} schemas and {check.changes} changes are in order")
        return replace(
            restore,
            place=head.place,
            place_time=time,
            subjects=rows.get("subjects", 0),
            versions=rows.get("versions", 0),
            schemas=rows.get("schemas", 0),
        )

    async def _doubt(self, restore: Restore, problems: Sequence[str]) -> None:
        """Says of a backup what V4 would have found: restored, it does not make a registry."""
        now = self._repository.clock.now()
        seconds = (now - restore.start_time).total_seconds()
        found = Verification(restore.backup_id, Level.V4, now, tuple(problems[:PROBLEMS_MAX]), seconds)
        await self._repository.catalog.record(found)

    async def _load(self, name: str, entry: Entry, way: RestorePlan, running: Running) -> datetime:
        """Fills a place from a backup, compares it, replays the archive, and returns the newest change's time."""
        manifest = entry.manifest

        def tell(dump_bytes: int, objects: int) -> None:
            running.tell(bytes_done=dump_bytes, bytes_total=manifest.dump_bytes, parts_done=objects)

        async with running.step("restore") as say, aclosing(self._reader.read(manifest, tell)) as dump:
            await self._scratch.fill(name, manifest, dump)
            say(f"{manifest.dump_bytes} bytes into {name}")
        async with running.step("compare") as say:
            found = differences(manifest.facts, await self._places.facts(name))
            if found:
                raise errors.RestoreFailed(f"What was restored is not what was backed up: {'; '.join(found[:5])}.")
            say("tables, rows and digests are those of the backup's snapshot")
        async with running.step("replay") as say:
            place, time = await self._replay(name, way, manifest.facts.time, running)
            say(f"the archive leads to {place}")
        return time

    async def rehearse(self, way: RestorePlan, survey: Survey, running: Running) -> Rehearsed:
        """Walks the whole way in a scratch place, which is dropped. The caller holds the office of restores.

        Raises as `run` does.
        """
        entry = survey.listing.entry(way.base.id)
        assert entry is not None, "a plan begins with a backup of the listing"
        await self._scratch.require_fit(entry.manifest)
        name = self._places.scratch(ids.token(self._repository.new_id()))
        try:
            time = await self._load(name, entry, way, running)
            async with running.step("verify"):
                check = await self._places.check(name)
                head = await self._places.head(name)
        finally:
            await to_the_end(self._scratch.drop(name))
        return Rehearsed(head.place, time, tuple(check.problems))

    async def _replay(
        self, name: str, way: RestorePlan, base_time: datetime, running: Running
    ) -> tuple[Place, datetime]:
        """Applies the archive's changes up to the target; where that is, and the time of the last one."""
        cut, last, count = Cut(way), base_time, 0

        async def counted() -> AsyncGenerator[StoredChange, None]:
            nonlocal last, count
            async with aclosing(self.archive.changes(way, cut)) as changes:
                async for change in changes:
                    last, count = change.time, count + 1
                    yield change
                    if count % PAGE == 0:
                        running.tell(rows_done=count)

        try:
            async with aclosing(counted()) as changes:
                place = await self._places.replay(name, changes)
        except Unreachable as unreachable:
            raise _unreachable(unreachable) from None
        return place, last

    async def follow_live(self, name: str, place: Place) -> Place:
        """Applies what the live history has behind a place, when it can be read and goes on from there."""
        live = await self.live_head()
        cluster = await self._repository.cluster_id()
        if live is None or live.cluster_id != cluster or not follows(live, place):
            return place
        async with aclosing(self.live_changes(place.position, live.position)) as changes:
            return await self._places.replay(name, changes)

    async def live_changes(self, after: int, end: int) -> AsyncGenerator[StoredChange, None]:
        """The live history's changes behind a position, up to another."""
        while after < end:
            page = await self._places.changes(self._places.live, after, limit=PAGE, bytes_max=PAGE_BYTES)
            if not page:
                return
            for change in page:
                if change.position > end:
                    return
                yield change
            after = page[-1].position

    async def _give_up(self, restore_id: str, failure: BaseException) -> None:
        """Drops what was begun and says so in the journal. One that was prepared after all stays.

        One whose place cannot be dropped now, because the server is away, stays a preparation that nobody works on:
        every replica looks for those, and the place would take the room that may be what is missing.
        """
        # Where the store does not answer, the sweep finds it as well.
        with suppress(errors.Error):
            restore = await self._journal.get(restore_id)
            if restore.state is not RestoreState.PREPARING:
                return
            told = str(failure) if isinstance(failure, errors.Error) else "the preparation did not end"
            problem = restore.problem or told
            await self._scratch.drop(restore.scratch)
            if await self._gone(restore.scratch):
                await self._journal.write(restore, state=RestoreState.FAILED, problem=problem)
            elif not restore.problem:
                await self._journal.write(restore, problem=problem)

    async def _gone(self, name: str) -> bool:
        """Whether there is no such place; False when that cannot be known."""
        try:
            return name not in await self._places.existing()
        except errors.Error:
            return False

    async def abandoned(self) -> list[Restore]:
        """Preparations that have not ended, whether somebody works on them or not."""
        return [restore for restore in await self._journal.list() if restore.state is RestoreState.PREPARING]

    async def sweep(self) -> list[str]:
        """Ends preparations and drops scratch places that nobody works on, and returns the places' names.

        The caller holds the office of restores. A replaced place is never dropped here: only a release does that.
        """
        for restore in await self.abandoned():
            await self._give_up(restore.id, errors.RestoreFailed("the process that prepared it is gone"))
        try:
            existing = await self._places.existing()
        except errors.Error:
            return []
        owners = {self._places.scratch(ids.token(restore_id)): restore_id for restore_id in await self._journal.ids()}
        dropped = []
        for name in existing:
            if name == self._places.live or name != self._places.scratch(name[-ids.TOKEN_LENGTH :]):
                continue
            try:
                owner = await self._journal.get(owners[name]) if name in owners else None
            except errors.BackupDamaged:
                continue  # Nobody knows whether it is needed.
            if owner is None or owner.state in _OVER:
                await self._scratch.drop(name)
                dropped.append(name)
        return dropped


_OVER = frozenset({RestoreState.RELEASED, RestoreState.FAILED})


def follows(live: Head, place: Place) -> bool:
    """Whether the live history goes on from a place: it may have left that line before."""
    try:
        return shared_position(known_lines(live.epochs), place, live.place) == place.position
    except LineUnknown:
        return False


def _unreachable(unreachable: Unreachable) -> errors.TargetUnreachable:
    near = {
        "nearest_before": str(unreachable.nearest_before) if unreachable.nearest_before else "",
        "nearest_after": str(unreachable.nearest_after) if unreachable.nearest_after else "",
    }
    told = "".join(f" {name.replace('_', ' ')}: {place}." for name, place in near.items() if place)
    return errors.TargetUnreachable(f"The target cannot be reached: {unreachable.reason}.{told}", metadata=near)
