"""Where what lies in the repository: keys of objects, made and read back. All of them are relative to the repository.

    repository.json                                         whose repository it is
    backups/<id>/manifest.json, backups/<id>/data-00001     a backup; it exists when its manifest does
    keys/<key id>/<number>.json                             wrapped forms of a data key; the highest number counts
    archive/<epoch>/<first>-<last>                          segments of the history
    archive/heartbeat.json, archive/audit.json              how far it is, and how far it was read again
    verifications/<id>/<level>-<time>-<passed|failed>.json  evidence
    pins/<id>, tombstones/<id>.json                         what is kept, what is being deleted, or was
    restores/<id>/<number>.json                             journals
    drills/<time>.json, catalog.json

Operations and leases lie beside them (llm_schema_registry.operations.keys). Numbers have a fixed width, so the order of
keys is theirs. What makes a key raises ValueError for what fits none; what reads one answers None for a key that is not
ours, or that another version may have written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from llm_schema_registry.operations.ids import is_id
from services.backup.domain.model import Level

REPOSITORY = "repository.json"
CATALOG = "catalog.json"
HEARTBEAT = "archive/heartbeat.json"
AUDIT = "archive/audit.json"
BACKUPS = "backups/"
KEYS = "keys/"
ARCHIVE = "archive/"
VERIFICATIONS = "verifications/"
PINS = "pins/"
TOMBSTONES = "tombstones/"
RESTORES = "restores/"
DRILLS = "drills/"

OBJECTS_MAX = 99_999
"""Data objects of one backup."""
KEY_VERSIONS_MAX = 9_999
JOURNAL_ENTRIES_MAX = 999_999
EPOCH_MAX = (1 << 31) - 1
POSITION_MAX = (1 << 63) - 1

_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
_KEY_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_DATA = re.compile(r"data-([0-9]{5})", re.ASCII)
_SEGMENT = re.compile(r"archive/([0-9]{10})/([0-9]{20})-([0-9]{20})", re.ASCII)
_KEY = re.compile(r"keys/([0-9a-f]{32})/([0-9]{4})\.json", re.ASCII)
_VERIFICATION = re.compile(r"verifications/([^/]+)/V([0-4])-([^/-]+)-(passed|failed)\.json", re.ASCII)
_RESTORE = re.compile(r"restores/([^/]+)/([0-9]{6})\.json", re.ASCII)
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}\.[0-9]{6}Z", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class SegmentKey:
    """What a segment's key tells. Ordered as the keys are: by epoch, first and last position."""

    epoch: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """What the key of a piece of evidence tells."""

    backup_id: str
    level: Level
    time: datetime
    passed: bool


def backup(backup_id: str) -> str:
    """What the keys of all of a backup's objects begin with."""
    return f"{BACKUPS}{_id(backup_id)}/"


def manifest(backup_id: str) -> str:
    """A backup's manifest."""
    return f"{backup(backup_id)}manifest.json"


def data(backup_id: str, number: int) -> str:
    """A backup's data object, numbered from 1."""
    return f"{backup(backup_id)}data-{_number(number, 1, OBJECTS_MAX, 5)}"


def key_versions(key_id: str) -> str:
    """What the keys of all documents of a data key begin with."""
    if not _KEY_ID.fullmatch(key_id):
        raise ValueError(f"not the id of a key: {key_id[:40]!r}")
    return f"{KEYS}{key_id}/"


def key(key_id: str, number: int) -> str:
    """A document with the wrapped forms of a data key, numbered from 1; the highest number counts."""
    return f"{key_versions(key_id)}{_number(number, 1, KEY_VERSIONS_MAX, 4)}.json"


def epoch(number: int) -> str:
    """What the keys of all segments of an epoch begin with."""
    return f"{ARCHIVE}{_number(number, 1, EPOCH_MAX, 10)}/"


def segment(number: int, first: int, last: int) -> str:
    """The segment with the positions first to last of an epoch."""
    if first > last:
        raise ValueError(f"a segment does not go from {first} to {last}")
    return f"{epoch(number)}{_number(first, 1, POSITION_MAX, 20)}-{_number(last, 1, POSITION_MAX, 20)}"


def segments_from(number: int, position: int) -> str:
    """A key before those of all segments of an epoch that begin at a position or later: for `list(after=)`."""
    return f"{epoch(number)}{_number(position, 0, POSITION_MAX, 20)}"


def behind_epoch(number: int) -> str:
    """A key behind those of all segments of an epoch, and before those of the next: for `list(after=)`."""
    return f"{ARCHIVE}{_number(number, 1, EPOCH_MAX, 10)}0"


def verifications(backup_id: str) -> str:
    """What the keys of all evidence about a backup begin with."""
    return f"{VERIFICATIONS}{_id(backup_id)}/"


def verification(backup_id: str, level: Level, time: datetime, *, passed: bool) -> str:
    """A piece of evidence about a backup."""
    outcome = "passed" if passed else "failed"
    return f"{verifications(backup_id)}{level.name}-{_time_text(time)}-{outcome}.json"


def pin(backup_id: str) -> str:
    """What keeps a backup from being deleted."""
    return f"{PINS}{_id(backup_id)}"


def tombstone(backup_id: str) -> str:
    """What says that a backup is being deleted, or was."""
    return f"{TOMBSTONES}{_id(backup_id)}.json"


def restore(restore_id: str) -> str:
    """What the keys of all entries of a restore's journal begin with."""
    return f"{RESTORES}{_id(restore_id)}/"


def restore_entry(restore_id: str, number: int) -> str:
    """An entry of a restore's journal, numbered from 1."""
    return f"{restore(restore_id)}{_number(number, 1, JOURNAL_ENTRIES_MAX, 6)}.json"


def drill(time: datetime) -> str:
    """A drill's report."""
    return f"{DRILLS}{_time_text(time)}.json"


def backup_of(key: str) -> str | None:
    """The id of the backup that an object below `backups/` belongs to, whatever the object is."""
    if not key.startswith(BACKUPS):
        return None
    backup_id, slash, rest = key[len(BACKUPS) :].partition("/")
    return backup_id if slash and rest and is_id(backup_id) else None


def manifest_of(key: str) -> str | None:
    """The id of the backup whose manifest this is."""
    backup_id = backup_of(key)
    return backup_id if backup_id is not None and key == manifest(backup_id) else None


def data_of(key: str) -> tuple[str, int] | None:
    """The backup's id and the number of a data object."""
    backup_id = backup_of(key)
    found = _DATA.fullmatch(key.rpartition("/")[2])
    if backup_id is None or found is None or not int(found[1]) or key != data(backup_id, int(found[1])):
        return None
    return backup_id, int(found[1])


def key_of(key: str) -> tuple[str, int] | None:
    """The id of the data key and the number of one of its documents."""
    found = _KEY.fullmatch(key)
    return (found[1], int(found[2])) if found and int(found[2]) else None


def segment_of(key: str) -> SegmentKey | None:
    """Which piece of the history a segment holds."""
    found = _SEGMENT.fullmatch(key)
    if found is None:
        return None
    number, first, last = int(found[1]), int(found[2]), int(found[3])
    fits = 1 <= number <= EPOCH_MAX and 1 <= first <= last <= POSITION_MAX
    return SegmentKey(number, first, last) if fits else None


def verification_of(key: str) -> VerificationKey | None:
    """What a piece of evidence says."""
    found = _VERIFICATION.fullmatch(key)
    if found is None or not is_id(found[1]):
        return None
    time = _time(found[3])
    return None if time is None else VerificationKey(found[1], Level(int(found[2])), time, found[4] == "passed")


def pin_of(key: str) -> str | None:
    """The id of the backup that is pinned."""
    return _one(key, PINS, "")


def tombstone_of(key: str) -> str | None:
    """The id of the backup that is being deleted, or was."""
    return _one(key, TOMBSTONES, ".json")


def restore_entry_of(key: str) -> tuple[str, int] | None:
    """The id of the restore and the number of the journal's entry."""
    found = _RESTORE.fullmatch(key)
    return (found[1], int(found[2])) if found and is_id(found[1]) and int(found[2]) else None


def drill_of(key: str) -> datetime | None:
    """When the drill was."""
    text = _between(key, DRILLS, ".json")
    return None if text is None else _time(text)


def _one(key: str, prefix: str, suffix: str) -> str | None:
    backup_id = _between(key, prefix, suffix)
    return backup_id if backup_id is not None and is_id(backup_id) else None


def _between(key: str, prefix: str, suffix: str) -> str | None:
    if not key.startswith(prefix) or not key.endswith(suffix) or len(key) < len(prefix) + len(suffix):
        return None
    return key[len(prefix) : len(key) - len(suffix)]


def _id(text: str) -> str:
    if not is_id(text):
        raise ValueError(f"not an id: {text[:40]!r}")
    return text


def _number(number: int, low: int, high: int, width: int) -> str:
    if not low <= number <= high:
        raise ValueError(f"{number} is not within {low} and {high}")
    return f"{number:0{width}d}"


def _time_text(time: datetime) -> str:
    return time.astimezone(UTC).strftime(_TIME_FORMAT)


def _time(text: str) -> datetime | None:
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None
