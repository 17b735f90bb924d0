# ruff: noqa: S608 - the statements are put together from constants of this module.
"""What a commit writes, and in which order it takes its locks.

Nearly every commit is one statement, so one round trip, and the head's row is locked for nothing but the commit itself.
Its parts are data-modifying CTEs, of which each reads the one before, because PostgreSQL promises no other order. A
part that finds its condition broken returns no row; then the head does not move and `registry.refuse` undoes the rest.

Deletions and purges check after a lock what others may have written while they waited for it. That needs a later
statement: under READ COMMITTED each sees what was committed before it began. They are a pipeline, which PostgreSQL runs
as one transaction, and whose statements refuse by themselves.

Locks are taken in one order by every commit, so that none waits for another in a circle: the subject's row, version
rows by subject and number, content rows by id, and last the head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from services.registry.adapters.settings_json import to_json
from services.registry.codec import events as codec
from services.registry.domain.events import (
    EpochStarted,
    SettingsChanged,
    SubjectRolledBack,
    VersionRegistered,
    VersionsDeleted,
    VersionsPurged,
    VersionTransitioned,
    VersionUpdated,
)
from services.registry.domain.model import Reference, State, Version
from services.registry.domain.settings import is_empty
from services.registry.ports import Proposal

CHANNEL = "registry_changes"
"""Where each commit announces its position."""

REFUSED = "RG001"
"""SQLSTATE of registry.refuse; the message is one of the reasons below."""
MOVED = "moved"
STILL_REFERENCED = "still referenced"
TARGET_CONSTRAINT = "version_references_target"
"""The foreign key that a purge of a referenced version breaks."""

Parameters = Mapping[str, Any]
Step = tuple[str, Parameters]


@dataclass(frozen=True, slots=True)
class Payload:
    """What is stored of an event, and the version of the rules it was written by."""

    version: int
    stored: bytes


# A name that was never used. Whoever was faster with the same name makes it fail.
_NEW_SUBJECT = """
subject AS (
    INSERT INTO registry.subjects
        (name, revision, next_number, settings, stored_count, live_count, create_time, update_time, delete_time)
    VALUES (%(subject)s, 1, 1 + %(added)s, %(settings)s, %(added)s, %(added)s, %(time)s, %(time)s, NULL)
    RETURNING 1
)
"""

# A subject that did not exist for callers (no version, no settings) begins anew, but for its numbers.
_MOVED_SUBJECT = """
subject AS (
    UPDATE registry.subjects SET
        revision = revision + 1,
        next_number = next_number + %(added)s,
        settings = CASE WHEN %(sets_settings)s THEN %(settings)s::jsonb ELSE settings END,
        stored_count = stored_count + %(added)s - %(purged)s,
        live_count = live_count + %(added)s - %(deleted)s,
        create_time = CASE WHEN stored_count = 0 AND settings IS NULL THEN %(time)s ELSE create_time END,
        update_time = %(time)s,
        delete_time = CASE
            WHEN stored_count = 0 AND settings IS NULL THEN NULL
            WHEN live_count + %(added)s - %(deleted)s > 0 THEN NULL
            WHEN live_count > 0 THEN %(time)s
            ELSE delete_time
        END
    WHERE name = %(subject)s AND revision = %(revision)s AND (%(added)s = 0 OR next_number = %(number)s)
      AND live_count >= %(deleted)s AND stored_count - live_count >= %(purged)s
    RETURNING 1
)
"""

# New content is inserted, purged content gets its text back; content that is there is only locked: its WHERE fails
# after the lock, so no dead row is left behind. A content that someone else inserts meanwhile is found by nobody here.
_CONTENT = """
content AS (
    INSERT INTO registry.schemas AS known (id, format, text, identity, semantic, create_time, dialect)
    SELECT %(schema_id)s, %(format)s, %(text)s, %(identity)s, %(semantic)s, %(schema_time)s, %(dialect)s FROM ready
    ON CONFLICT (identity) DO UPDATE SET
        format = excluded.format,
        text = excluded.text,
        semantic = excluded.semantic,
        create_time = excluded.create_time,
        dialect = excluded.dialect
    WHERE known.text IS NULL AND known.id = excluded.id
    RETURNING id
), held AS (
    SELECT id FROM content
    UNION
    SELECT id FROM registry.schemas WHERE identity = %(identity)s AND id = %(schema_id)s
)
"""

_VERSION = """
done AS (
    INSERT INTO registry.versions (
        subject, number, schema_id, state, description, owner, tags, metadata, words,
        create_time, update_time, activate_time, delete_time
    )
    SELECT
        %(subject)s, %(number)s, held.id, %(state)s, %(description)s, %(owner)s, %(tags)s::text[], %(metadata)s,
        array_to_tsvector(%(words)s::text[]),
        %(create_time)s, %(update_time)s, %(activate_time)s::timestamptz, %(delete_time)s::timestamptz
    FROM held CROSS JOIN ready
    RETURNING 1
)
"""

_READY = "ready AS (SELECT FROM subject)"

_READY_WITH_REFERENCES = """
target AS (
    SELECT v.subject, v.number, v.schema_id FROM registry.versions AS v
    WHERE (v.subject, v.number) IN (SELECT * FROM unnest(%(subjects)s::text[], %(numbers)s::integer[]))
      AND v.delete_time IS NULL AND EXISTS (SELECT FROM subject)
    ORDER BY v.subject, v.number
    FOR SHARE
), ready AS (
    SELECT FROM target HAVING count(*) = %(count)s
)
"""

# Content that is there keeps the references it was first registered with.
_REFERENCES = """
version_reference AS (
    INSERT INTO registry.version_references (subject, number, ordinal, name, target_subject, target_number)
    SELECT %(subject)s, %(number)s, given.ordinal, given.name, given.subject, given.number
    FROM done CROSS JOIN unnest(%(names)s::text[], %(subjects)s::text[], %(numbers)s::integer[])
        WITH ORDINALITY AS given (name, subject, number, ordinal)
), schema_reference AS (
    INSERT INTO registry.schema_references (schema_id, ordinal, name, subject, version, target_schema_id)
    SELECT %(schema_id)s, first.ordinal, first.name, first.subject, first.number, target.schema_id
    FROM done CROSS JOIN unnest(%(first_names)s::text[], %(first_subjects)s::text[], %(first_numbers)s::integer[])
        WITH ORDINALITY AS first (name, subject, number, ordinal)
    JOIN unnest(%(names)s::text[], %(subjects)s::text[], %(numbers)s::integer[]) AS given (name, subject, number)
        ON given.name = first.name
    JOIN target ON target.subject = given.subject AND target.number = given.number
    ON CONFLICT (schema_id, ordinal) DO NOTHING
)
"""

# An update never deletes a version nor brings one back.
_UPDATED_VERSION = """
done AS (
    UPDATE registry.versions SET
        state = %(state)s, description = %(description)s, owner = %(owner)s, tags = %(tags)s::text[],
        metadata = %(metadata)s,
        words = CASE WHEN %(sets_words)s THEN array_to_tsvector(%(words)s::text[]) ELSE words END,
        update_time = %(update_time)s, activate_time = %(activate_time)s::timestamptz
    FROM subject
    WHERE versions.subject = %(subject)s AND number = %(number)s AND schema_id = %(schema_id)s
      AND versions.delete_time IS NOT DISTINCT FROM %(delete_time)s::timestamptz
    RETURNING 1
)
"""

_ROLLED_BACK = f"""
rolled AS (
    UPDATE registry.versions SET
        state = CASE WHEN number = %(number)s THEN {int(State.ACTIVE)} ELSE {int(State.DEPRECATED)} END,
        activate_time = CASE WHEN number = %(number)s THEN COALESCE(activate_time, %(time)s) ELSE activate_time END,
        update_time = %(time)s
    FROM subject
    WHERE versions.subject = %(subject)s AND number = ANY(%(numbers)s::integer[])
    RETURNING 1
), done AS (
    SELECT FROM rolled HAVING count(*) = %(count)s
)
"""

_SETTINGS = "done AS (SELECT FROM subject)"

_NOTHING = "done AS (SELECT)"

_EPOCH = """
started AS (
    INSERT INTO registry.epochs (id, parent, fork_position, start_time)
    SELECT %(next_epoch)s, %(epoch)s, %(fork_position)s::bigint, %(time)s FROM moved
)
"""

_MOVED_HEAD = """
moved AS (
    UPDATE registry.head SET
        position = position + 1,
        epoch = %(next_epoch)s,
        purge_position = CASE WHEN %(purges)s THEN position + 1 ELSE purge_position END,
        global_settings = COALESCE(%(global_settings)s::jsonb, global_settings),
        global_revision = global_revision + %(global_step)s
    FROM done
    WHERE epoch = %(epoch)s AND NOT fenced
      AND (%(global_revision)s::bigint IS NULL OR global_revision = %(global_revision)s)
      AND (%(fork_position)s::bigint IS NULL OR position = %(fork_position)s)
    RETURNING position
)
"""

_CHANGE = f"""
INSERT INTO registry.changes
    (position, epoch, time, actor, subject, kind, method, request_id, digest, payload_version, payload)
VALUES (
    COALESCE((SELECT position FROM moved), registry.refuse('{MOVED}')),
    %(next_epoch)s, %(time)s, %(actor)s, %(subject)s, %(kind)s, %(method)s, %(request_id)s, %(digest)s,
    %(payload_version)s, %(payload)s
)
RETURNING position
"""

_RING = f", pg_notify('{CHANNEL}', position::text)"

_REQUEST = f"""
INSERT INTO registry.request_ids (actor, method, request_id, position, time)
SELECT %(actor)s, %(method)s, %(request_id)s, position, %(time)s FROM change
RETURNING position{_RING}
"""

_HOLD_VERSIONS = f"""
WITH held AS (
    SELECT 1 FROM registry.versions
    WHERE subject = %(subject)s AND number = ANY(%(numbers)s::integer[]) AND (delete_time IS NULL) = %(live)s
    ORDER BY number
    FOR UPDATE
)
SELECT CASE WHEN count(*) = %(count)s THEN 1 ELSE registry.refuse('{MOVED}') END FROM held
"""

_DELETE = """
UPDATE registry.versions SET delete_time = %(time)s, update_time = %(time)s
WHERE subject = %(subject)s AND number = ANY(%(numbers)s::integer[])
"""

_REQUIRE_NO_LIVE_DEPENDENTS = f"""
SELECT CASE WHEN NOT EXISTS (
    SELECT FROM registry.version_references AS r
    JOIN registry.versions AS v ON v.subject = r.subject AND v.number = r.number
    WHERE r.target_subject = %(subject)s AND r.target_number = ANY(%(numbers)s::integer[]) AND v.delete_time IS NULL
) THEN 1 ELSE registry.refuse('{STILL_REFERENCED}') END
"""

# Conflicts with every registration of the same content, which locks or inserts the row, but with no check of a foreign
# key: those happen at the end of a statement, when its head is locked already.
_HOLD_CONTENTS = """
SELECT FROM registry.schemas
WHERE id IN (
    SELECT schema_id FROM registry.versions WHERE subject = %(subject)s AND number = ANY(%(numbers)s::integer[])
)
ORDER BY id
FOR NO KEY UPDATE
"""

ORPHANS = """
SELECT DISTINCT gone.schema_id FROM registry.versions AS gone
WHERE gone.subject = %(subject)s AND gone.number = ANY(%(numbers)s::integer[]) AND NOT EXISTS (
    SELECT FROM registry.versions AS other
    WHERE other.schema_id = gone.schema_id
      AND NOT (other.subject = %(subject)s AND other.number = ANY(%(numbers)s::integer[]))
)
ORDER BY gone.schema_id
"""

_REQUIRE_EXACT_CONTENTS = f"""
SELECT CASE WHEN %(schema_ids)s::integer[] = ARRAY({ORPHANS})
    THEN 1 ELSE registry.refuse('{MOVED}') END
"""

_PURGE_REFERENCES = """
DELETE FROM registry.version_references WHERE subject = %(subject)s AND number = ANY(%(numbers)s::integer[])
"""

# The foreign key of version_references refuses this while a version that still exists references one of them.
_PURGE_VERSIONS = """
DELETE FROM registry.versions WHERE subject = %(subject)s AND number = ANY(%(numbers)s::integer[])
"""

_PURGE_SCHEMA_REFERENCES = """
DELETE FROM registry.schema_references WHERE schema_id = ANY(%(schema_ids)s::integer[])
"""

_PURGE_TEXTS = """
UPDATE registry.schemas SET text = NULL WHERE id = ANY(%(schema_ids)s::integer[])
"""

_HOLD_SUBJECT = f"""
WITH {_MOVED_SUBJECT} SELECT COALESCE((SELECT 1 FROM subject), registry.refuse('{MOVED}'))
"""


def statements(proposal: Proposal, payload: Payload | None = None) -> list[Step]:
    """Every statement of the commit, in order: one, or several that must be one transaction.

    The last one moves the head, appends the change, announces it and returns the position.
    payload: what was stored of the event when it happened, for a replay; else it is written anew.
    """
    event = proposal.event
    written = payload or Payload(codec.PAYLOAD_VERSION, codec.payload(event))
    parameters = _head(proposal, written) | _subject(proposal)
    match event:
        case VersionRegistered():
            parts, own = _registered(event, proposal.words)
        case VersionUpdated(version):
            parts, own = [_UPDATED_VERSION], _columns(version, proposal.words) | {"sets_words": True}
        case VersionTransitioned(version):
            parts, own = [_UPDATED_VERSION], _columns(version, ()) | {"sets_words": False}
        case SubjectRolledBack():
            parts, own = [_ROLLED_BACK], _numbers([event.version, *event.deprecated]) | {"number": event.version}
        case VersionsDeleted():
            return [*_deleted(event, parameters), _append([_NOTHING], parameters)]
        case VersionsPurged():
            return [*_purged(event, parameters), _append([_NOTHING], parameters)]
        case SettingsChanged():
            parts, own = [_SETTINGS if event.subject else _NOTHING], {}
        case EpochStarted():
            return [_append([_NOTHING, _MOVED_HEAD, _EPOCH], parameters)]
    if event.subject:
        parts = [_MOVED_SUBJECT if proposal.revision else _NEW_SUBJECT, *parts]
    return [_append(parts, parameters | own)]


def _append(parts: Sequence[str], parameters: Parameters) -> Step:
    """The statement that does the parts, then moves the head and appends the change."""
    before = [*parts] if _MOVED_HEAD in parts else [*parts, _MOVED_HEAD]
    if parameters["request_id"] is not None:
        return f"WITH {', '.join([*before, f'change AS ({_CHANGE})'])} {_REQUEST}", parameters
    return f"WITH {', '.join(before)} {_CHANGE}{_RING}", parameters


def _head(proposal: Proposal, payload: Payload) -> dict[str, Any]:
    """Parameters of the head, the change and the request id."""
    event, request = proposal.event, proposal.request
    epoch = event if isinstance(event, EpochStarted) else None
    general = to_json(event.settings) if isinstance(event, SettingsChanged) and not event.subject else None
    return {
        "epoch": proposal.epoch,
        "next_epoch": epoch.epoch if epoch else proposal.epoch,
        "fork_position": epoch.fork_position if epoch else None,
        "purges": isinstance(event, VersionsPurged),
        "global_revision": proposal.global_revision,
        "global_settings": general,
        "global_step": int(general is not None),
        "time": proposal.time,
        "actor": proposal.actor,
        "subject": event.subject,
        "kind": codec.kind(event),
        "payload_version": payload.version,
        "payload": payload.stored,
        "method": request.method if request else None,
        "request_id": request.id if request else None,
        "digest": request.digest if request else None,
    }


def _subject(proposal: Proposal) -> dict[str, Any]:
    """Parameters of the subject's row."""
    event = proposal.event
    removed = isinstance(event, VersionsPurged) and event.settings_removed
    return {
        "revision": proposal.revision,
        "added": int(isinstance(event, VersionRegistered)),
        "number": event.version.number if isinstance(event, VersionRegistered) else 0,
        "deleted": len(event.versions) if isinstance(event, VersionsDeleted) else 0,
        "purged": len(event.versions) if isinstance(event, VersionsPurged) else 0,
        "sets_settings": removed or isinstance(event, SettingsChanged),
        "settings": to_json(event.settings)
        if isinstance(event, SettingsChanged) and not is_empty(event.settings)
        else None,
    }


def _registered(event: VersionRegistered, words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    schema = event.schema
    parameters = _columns(event.version, words) | {
        "format": int(schema.format),
        "text": schema.text,
        "identity": schema.identity,
        "semantic": schema.semantic,
        "schema_time": schema.create_time,
        "dialect": schema.dialect,
    }
    if not event.references:
        return [_READY, _CONTENT, _VERSION], parameters
    first = {f"first_{name}": values for name, values in _references(schema.references).items()}
    count = len({(reference.subject, reference.version) for reference in event.references})
    own = _references(event.references) | first | {"count": count}
    return [_READY_WITH_REFERENCES, _CONTENT, _VERSION, _REFERENCES], parameters | own


def _deleted(event: VersionsDeleted, shared: Parameters) -> Iterator[Step]:
    parameters = {**shared, **_numbers(event.versions), "live": True}
    yield _HOLD_SUBJECT, parameters
    yield _HOLD_VERSIONS, parameters
    yield _DELETE, parameters
    yield _REQUIRE_NO_LIVE_DEPENDENTS, parameters


def _purged(event: VersionsPurged, shared: Parameters) -> Iterator[Step]:
    parameters = {**shared, **_numbers(event.versions), "live": False, "schema_ids": list(event.schema_ids)}
    yield _HOLD_SUBJECT, parameters
    yield _HOLD_VERSIONS, parameters
    yield _HOLD_CONTENTS, parameters
    yield _REQUIRE_EXACT_CONTENTS, parameters
    yield _PURGE_REFERENCES, parameters
    yield _PURGE_VERSIONS, parameters
    if event.schema_ids:
        yield _PURGE_SCHEMA_REFERENCES, parameters
        yield _PURGE_TEXTS, parameters


def _columns(version: Version, words: Sequence[str]) -> dict[str, Any]:
    return {
        "subject": version.subject,
        "number": version.number,
        "schema_id": version.schema_id,
        "state": int(version.state),
        "description": version.description,
        "owner": version.owner,
        "tags": list(version.tags),
        "metadata": Jsonb(dict(version.metadata)),
        "words": list(words),
        "create_time": version.create_time,
        "update_time": version.update_time,
        "activate_time": version.activate_time,
        "delete_time": version.delete_time,
    }


def _references(references: Sequence[Reference]) -> dict[str, Any]:
    return {
        "names": [reference.name for reference in references],
        "subjects": [reference.subject for reference in references],
        "numbers": [reference.version for reference in references],
    }


def _numbers(numbers: Sequence[int]) -> dict[str, Any]:
    return {"numbers": list(numbers), "count": len(set(numbers))}
