"""What is said about backups, beside them: verifications, pins, tombstones, drills. Signed documents, each under a key
that says the same; one that lies elsewhere, or that nobody signed who is trusted, says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.backup.domain import layout
from services.backup.domain.documents import (
    TEXT_CHARACTERS_MAX,
    DocumentInvalid,
    Fields,
    Signer,
    Verifier,
    decode_signed,
    encode_signed,
    time_text,
)
from services.backup.domain.layout import VerificationKey
from services.backup.domain.model import Level, Place, Verification

PROBLEMS_MAX = 100
_VERIFICATION, _PIN, _TOMBSTONE, _DRILL = "verification", "pin", "tombstone", "drill"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Says that a backup is being deleted, or was. manifest_sha256: of its manifest as stored. why: for a person."""

    backup_id: str
    manifest_sha256: bytes
    why: str


@dataclass(frozen=True, slots=True)
class DrillRecord:
    """What a drill found. recovery_point_seconds: what a loss of the database at that moment would have cost."""

    backup_id: str
    time: datetime
    problems: tuple[str, ...]
    recovery_seconds: float
    recovery_point_seconds: float
    place: Place

    @property
    def passed(self) -> bool:
        """Whether everything was right."""
        return not self.problems


def encode_verification(verification: Verification, signer: Signer) -> bytes:
    """A piece of evidence."""
    restore = verification.restore_seconds
    body = {
        "backup_id": verification.backup_id,
        "level": int(verification.level),
        "time": time_text(verification.time),
        "problems": [_text(problem) for problem in verification.problems[:PROBLEMS_MAX]],
        "duration_ms": round(verification.duration_seconds * 1000),
        "restore_ms": None if restore is None else round(restore * 1000),
    }
    return encode_signed(_VERIFICATION, body, signer)


def decode_verification(key: str, content: bytes, verifiers: Sequence[Verifier]) -> Verification:
    """The evidence under a key. Raises DocumentInvalid."""
    fields = Fields(decode_signed(_VERIFICATION, content, verifiers), _VERIFICATION)
    found = Verification(
        backup_id=fields.text("backup_id"),
        level=Level(fields.integer("level", min(Level), max(Level))),
        time=fields.time("time"),
        problems=fields.texts("problems", PROBLEMS_MAX),
        duration_seconds=fields.integer("duration_ms") / 1000,
        restore_seconds=fields.integer("restore_ms") / 1000 if fields.present("restore_ms") else None,
    )
    fields.done()
    told = VerificationKey(found.backup_id, found.level, found.time, found.passed)
    if layout.verification_of(key) != told:
        raise DocumentInvalid("it is another piece of evidence than its name says")
    return found


def encode_pin(backup_id: str, signer: Signer) -> bytes:
    """A pin. The same backup's are the same bytes."""
    return encode_signed(_PIN, {"backup_id": backup_id}, signer)


def require_pin(key: str, content: bytes, verifiers: Sequence[Verifier]) -> str:
    """The id of the backup that is pinned under a key. Raises DocumentInvalid."""
    fields = Fields(decode_signed(_PIN, content, verifiers), _PIN)
    backup_id = fields.text("backup_id")
    fields.done()
    if layout.pin_of(key) != backup_id:
        raise DocumentInvalid("it is another backup's pin than its name says")
    return backup_id


def encode_tombstone(tombstone: Tombstone, signer: Signer) -> bytes:
    """A tombstone."""
    body = {
        "backup_id": tombstone.backup_id,
        "manifest_sha256": tombstone.manifest_sha256.hex(),
        "why": _text(tombstone.why),
    }
    return encode_signed(_TOMBSTONE, body, signer)


def decode_tombstone(key: str, content: bytes, verifiers: Sequence[Verifier]) -> Tombstone:
    """The tombstone under a key. Raises DocumentInvalid."""
    fields = Fields(decode_signed(_TOMBSTONE, content, verifiers), _TOMBSTONE)
    found = Tombstone(fields.text("backup_id"), fields.digest("manifest_sha256"), fields.text("why"))
    fields.done()
    if layout.tombstone_of(key) != found.backup_id:
        raise DocumentInvalid("it is another backup's tombstone than its name says")
    return found


def encode_drill(record: DrillRecord, signer: Signer) -> bytes:
    """A drill's record."""
    body = {
        "backup_id": record.backup_id,
        "time": time_text(record.time),
        "problems": [_text(problem) for problem in record.problems[:PROBLEMS_MAX]],
        "recovery_ms": round(record.recovery_seconds * 1000),
        "recovery_point_ms": round(record.recovery_point_seconds * 1000),
        "epoch": record.place.epoch,
        "position": record.place.position,
    }
    return encode_signed(_DRILL, body, signer)


def decode_drill(key: str, content: bytes, verifiers: Sequence[Verifier]) -> DrillRecord:
    """The drill's record under a key. Raises DocumentInvalid."""
    fields = Fields(decode_signed(_DRILL, content, verifiers), _DRILL)
    found = DrillRecord(
        backup_id=fields.text("backup_id"),
        time=fields.time("time"),
        problems=fields.texts("problems", PROBLEMS_MAX),
        recovery_seconds=fields.integer("recovery_ms") / 1000,
        recovery_point_seconds=fields.integer("recovery_point_ms") / 1000,
        place=Place(fields.integer("epoch"), fields.integer("position")),
    )
    fields.done()
    if layout.drill_of(key) != found.time:
        raise DocumentInvalid("it is another drill's record than its name says")
    return found


def _text(text: str) -> str:
    """A text as documents can tell it."""
    return text.encode(errors="replace").decode()[:TEXT_CHARACTERS_MAX]
