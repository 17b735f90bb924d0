"""Reads the archive's chain again, a little at a time, so that what rots, or was taken out, is known before it is
needed. How far it is, and what it found, is in the store: whichever process goes on continues there.

A pass reads every segment once, in PASS of time; the next one begins EVERY after it. What is missing before the first
segment of a line is not told: retention deletes from there.

A pass also finds out which data keys are out of use: those that were KEY_REST old when it began, so that they seal
nothing new, and that no segment was sealed under. One that could not read a segment, or missed one, finds none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectDamaged, ObjectNotFound, ObjectTooLarge
from services.backup.domain import layout
from services.backup.domain.documents import DocumentInvalid, Fields, decode_signed, encode_signed, time_text
from services.backup.domain.layout import SegmentKey
from services.backup.domain.model import Place
from services.backup.usecases.archive import Archive
from services.backup.usecases.repository import Repository

ROUND_SECONDS = 60.0
"""Time between two rounds."""
PASS = timedelta(days=3)
EVERY = timedelta(days=4)
"""Between the beginnings of two passes: with PASS, no segment is unread for longer than a week."""
SEGMENTS_MIN = 60
"""Of one round, so that a small archive is read in minutes."""
SEGMENTS_MAX = 1000
"""Of one round, also when a pass is late."""
KEY_REST = timedelta(days=7)
"""Longer than KEY_LATE of the archive, with room for a store's clock that is set."""
KEYS_MAX = 5000
"""Looked for in one pass, the oldest."""
BREAKS_MAX = 100
"""Remembered and told."""
_KIND = "audit"


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain is broken: the segment that is damaged, or that does not follow; and how, in words."""

    key: SegmentKey
    problem: str

    def __str__(self) -> str:
        key = self.key
        return f"{Place(key.epoch, key.first)} to {Place(key.epoch, key.last)}: {self.problem}"


@dataclass(frozen=True, slots=True)
class Audited:
    """How far the audit is. began: the pass; ended: the last whole one. at: the last segment that was read in this
    pass; sha256: its digest, None for a damaged one. segments: read in this pass. unused: data keys that were old when
    it began, and that no segment was found to need."""

    began: datetime
    ended: datetime | None = None
    at: SegmentKey | None = None
    sha256: bytes | None = None
    segments: int = 0
    breaks: tuple[Break, ...] = ()
    unused: tuple[str, ...] = ()

    @property
    def resting(self) -> bool:
        """Whether the pass has ended."""
        return self.ended is not None and self.ended >= self.began


class ArchiveAudit:
    """Audits the archive of one repository."""

    def __init__(self, repository: Repository, archive: Archive, original: Archive | None = None) -> None:
        """original: of a store that is a copy, what it is a copy of. Segments under its keys may still come, and what
        is damaged here is taken from there."""
        self._repository = repository
        self._archive = archive
        self._original = original
        self.mended: list[SegmentKey] = []
        self.state: Audited | None = None

    async def check(self) -> str | None:
        """Where the chain was found to be broken, in words; None when it was not, as far as this process knows."""
        breaks = self.state.breaks if self.state else ()
        if not breaks:
            return None
        more = f"; and {len(breaks) - 1} more" if len(breaks) > 1 else ""
        return f"the archive is broken at {breaks[0]}{more}"

    async def known(self) -> Audited | None:
        """How far the audit is, by the store's word; None when it says nothing that can be trusted."""
        try:
            content, _ = await self._repository.store.get(layout.AUDIT)
            self.state = _decode(Fields(decode_signed(_KIND, content, self._repository.verifiers), _KIND))
        except (ObjectNotFound, ObjectDamaged, ObjectTooLarge, DocumentInvalid):
            self.state = None
        return self.state

    async def round(self) -> Sequence[Break]:
        """Reads on, and returns breaks that were not known before.

        `mended` has the segments that were damaged and are whole again, because they were copied once more. Raises
        errors.ObjectStoreUnavailable, ObjectStoreDenied; what was read in the round is read again then.
        """
        self.mended = []
        store, known = self._repository.store, await self.known()
        now = await store.now()
        if known is not None and known.resting and now < known.began + EVERY:
            return ()
        state = known
        if state is None or state.resting:
            unused = (await self._keys_before(now - KEY_REST))[:KEYS_MAX]
            ended, breaks = (state.ended, state.breaks) if state else (None, ())
            state = Audited(now, ended, breaks=breaks, unused=tuple(unused))
        segments, _ = await self._archive.size()
        state = await self._read_on(state, share(segments - state.segments, now - state.began))
        self.state = state
        await store.put(layout.AUDIT, _encode(state, self._repository))
        before = set(known.breaks) if known else set()
        return [each for each in state.breaks if each not in before]

    async def unused_keys(self) -> frozenset[str]:
        """Data keys that no segment needs, by the last pass, while that is over and the next has not begun."""
        known = await self.known()
        if known is None or not known.resting:
            return frozenset()
        return frozenset(known.unused).intersection(await self._keys_before(known.began))

    async def _keys_before(self, before: datetime) -> Sequence[str]:
        """Data keys that were not written down since, and that no segment can come with; oldest first."""
        there = frozenset(await self._original.key_ids()) if self._original else frozenset[str]()
        return [each for each in await self._repository.keys.older(before) if each not in there]

    async def _read_on(self, state: Audited, count: int) -> Audited:
        """Reads so many segments, or up to the end, which ends the pass."""
        keys = await self._archive.next_keys(state.at, count)
        found, reached = list[Break](), state
        if state.at is not None and not await self._there(state.at):
            reached = replace(state, at=None, sha256=None)  # Deleted by retention, and perhaps more behind it.
        for key in keys:
            reached, problem = await self._look(reached, key)
            found += [Break(key, problem)] if problem else []
        over = len(keys) < count
        # What was passed over is known anew, and what lies behind the end is gone.
        passed = state.at or SegmentKey(0, 0, 0)
        kept = [each for each in state.breaks if each.key <= passed or (not over and each.key > keys[-1])]
        return replace(
            reached,
            at=keys[-1] if keys else state.at,
            segments=state.segments + len(keys),
            breaks=tuple([*kept, *found][:BREAKS_MAX]),
            ended=await self._repository.store.now() if over else state.ended,
        )

    async def _look(self, reached: Audited, key: SegmentKey) -> tuple[Audited, str]:
        """Reads a segment, and says what is wrong with it, or missing before it."""
        at = reached.at if reached.at is not None and reached.at.epoch == key.epoch else None
        before = (at, reached.sha256) if at is not None and reached.sha256 is not None else None
        gap = at is not None and key.first > at.last + 1
        try:
            digest, key_id = await self._archive.audit(key, before)
        except (errors.BackupDamaged, errors.KeyUnavailable) as damage:
            if not await self._there(key):
                return replace(reached, at=None, sha256=None), ""  # Deleted since it was listed.
            mended = await self._mend(key, before)
            if mended is None:
                return replace(reached, at=key, sha256=None, unused=()), damage.message
            digest, key_id = mended
        problem = ""
        if at is not None and gap:
            problem = f"positions {at.last + 1} to {key.first - 1} before it are missing"
        # What is missing may be brought back, and needs its key then.
        unused = () if problem else tuple(each for each in reached.unused if each != key_id)
        return replace(reached, at=key, sha256=digest, unused=unused), problem

    async def _mend(self, key: SegmentKey, before: tuple[SegmentKey, bytes] | None) -> tuple[bytes, str | None] | None:
        """What `Archive.audit` says of a damaged segment once the original lies in its place; None when there is none,
        or it is no better."""
        if self._original is None:
            return None
        try:
            content = await self._original.stored(key)
            await self._repository.store.put(layout.segment(key.epoch, key.first, key.last), content)
            found = await self._archive.audit(key, before)
        except (errors.BackupDamaged, errors.KeyUnavailable):
            return None
        self.mended.append(key)
        return found

    async def _there(self, key: SegmentKey) -> bool:
        return await self._repository.store.head(layout.segment(key.epoch, key.first, key.last)) is not None


def share(segments: int, since: timedelta) -> int:
    """How many of the segments that are left to read in this round, so that the pass ends in time.

    since: the pass began.
    """
    rounds = max(1.0, (PASS - since).total_seconds() / ROUND_SECONDS)
    return min(SEGMENTS_MAX, max(SEGMENTS_MIN, math.ceil(segments / rounds)))


def _encode(state: Audited, repository: Repository) -> bytes:
    body = {
        "began": time_text(state.began),
        "ended": None if state.ended is None else time_text(state.ended),
        "at": None if state.at is None else _key_document(state.at),
        "sha256": None if state.sha256 is None else state.sha256.hex(),
        "segments": state.segments,
        "breaks": [_key_document(each.key) | {"problem": each.problem[:1000]} for each in state.breaks],
        "unused": list(state.unused),
    }
    return encode_signed(_KIND, body, repository.signer)


def _decode(fields: Fields) -> Audited:
    return Audited(
        began=fields.time("began"),
        ended=fields.time("ended") if fields.present("ended") else None,
        at=_key(fields.fields("at")) if fields.present("at") else None,
        sha256=fields.digest("sha256") if fields.present("sha256") else None,
        segments=fields.integer("segments"),
        breaks=tuple(Break(_key(each), each.text("problem")) for each in fields.many("breaks", BREAKS_MAX)),
        unused=fields.texts("unused", KEYS_MAX),
    )


def _key_document(key: SegmentKey) -> dict[str, object]:
    return {"epoch": key.epoch, "first": key.first, "last": key.last}


def _key(fields: Fields) -> SegmentKey:
    return SegmentKey(fields.integer("epoch"), fields.integer("first"), fields.integer("last"))
