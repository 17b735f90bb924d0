# ruff: noqa: S608 - the statements are put together from constants of this module.
"""What the store reads: each statement beside the function that makes domain values of its rows.

Every function takes an open connection and is one statement, so it is one snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from llm_schema_registry.kernel.postgres import Connection
from services.registry.adapters.postgres_commit import ORPHANS
from services.registry.adapters.settings_json import from_json
from services.registry.codec import events as codec
from services.registry.domain.events import Change, RequestKey
from services.registry.domain.model import Format, Reference, Schema, State, Subject, Version, VersionHead
from services.registry.ports import Basis, Head, VersionFilter

Key = tuple[str, int]
Row = tuple[Any, ...]

_HEAD = """
SELECT epoch, position, floor, fenced, purge_position, cluster_id::text
FROM registry.head
"""

_RESERVE = "SELECT nextval('registry.schema_ids') FROM generate_series(1, %(count)s)"

# One parameter, because the driver's work grows with their number, and with arrays most of all. The planner takes any
# JSON for a hundred rows: LIMIT keeps it from reading whole tables for them.
_BASES = """
SELECT
    h.epoch, h.global_revision, h.global_settings, s.revision, s.next_number, s.settings,
    c.id, COALESCE(c.purged, false),
    live.numbers, live.schema_ids, live.states, live.activated
FROM registry.head AS h
CROSS JOIN json_to_recordset(%(asked)s::json) AS asked (place integer, subject text, identity bytea)
LEFT JOIN LATERAL (SELECT * FROM registry.subjects WHERE name = asked.subject LIMIT 1) AS s ON true
LEFT JOIN LATERAL (SELECT id, text IS NULL AS purged FROM registry.schemas WHERE identity = asked.identity LIMIT 1)
    AS c ON true
LEFT JOIN LATERAL (
    SELECT
        array_agg(v.number ORDER BY v.number) AS numbers,
        array_agg(v.schema_id ORDER BY v.number) AS schema_ids,
        array_agg(v.state ORDER BY v.number) AS states,
        array_agg(v.activate_time IS NOT NULL ORDER BY v.number) AS activated
    FROM registry.versions AS v
    WHERE v.subject = s.name AND v.delete_time IS NULL
) AS live ON true
ORDER BY asked.place
"""

_RECORDED = """
SELECT c.epoch, c.position, c.time, c.actor, c.method, c.request_id, c.digest, c.payload_version, c.payload
FROM registry.request_ids AS r
JOIN registry.changes AS c ON c.position = r.position
WHERE r.actor = %(actor)s AND r.method = %(method)s AND r.request_id = %(request_id)s
"""

_SCHEMA_COLUMNS = """
SELECT s.id, s.format, s.text, s.identity, s.semantic, s.create_time, s.dialect, r.names, r.subjects, r.versions
FROM registry.schemas AS s
LEFT JOIN LATERAL (
    SELECT
        array_agg(name ORDER BY ordinal) AS names,
        array_agg(subject ORDER BY ordinal) AS subjects,
        array_agg(version ORDER BY ordinal) AS versions
    FROM registry.schema_references
    WHERE schema_id = s.id
) AS r ON true
"""

_SCHEMAS = _SCHEMA_COLUMNS + "WHERE s.id = ANY(%(ids)s::integer[]) AND s.text IS NOT NULL"

_SCHEMA_BY_IDENTITY = _SCHEMA_COLUMNS + "WHERE s.identity = %(identity)s AND s.text IS NOT NULL"

_SCHEMAS_BY_SEMANTIC = (
    _SCHEMA_COLUMNS + "WHERE s.semantic = %(semantic)s AND s.text IS NOT NULL ORDER BY s.id LIMIT %(limit)s"
)

_TARGETS = "SELECT name, target_schema_id FROM registry.schema_references WHERE schema_id = %(schema_id)s"

_VERSION_COLUMNS = """
SELECT
    v.subject, v.number, v.schema_id, v.state, v.description, v.owner, v.tags, v.metadata,
    v.create_time, v.update_time, v.activate_time, v.delete_time
FROM registry.versions AS v
"""

_VERSION = _VERSION_COLUMNS + "WHERE v.subject = %(subject)s AND v.number = %(number)s"

# 2 is ACTIVE: the condition of the index versions_latest.
_LATEST = (
    _VERSION_COLUMNS
    + "WHERE v.subject = %(subject)s AND v.state = 2 AND v.delete_time IS NULL ORDER BY v.number DESC LIMIT 1"
)

_VERSIONS_BY_KEY = (
    _VERSION_COLUMNS
    + """
WHERE (v.subject, v.number) IN (SELECT * FROM unnest(%(subjects)s::text[], %(numbers)s::integer[]))
ORDER BY v.subject, v.number
"""
)

_IN_ORDER = "ORDER BY v.subject, v.number LIMIT %(limit)s"

_SUBJECT_COLUMNS = """
SELECT
    s.name,
    COALESCE((
        SELECT v.number FROM registry.versions AS v
        WHERE v.subject = s.name AND v.state = 2 AND v.delete_time IS NULL
        ORDER BY v.number DESC LIMIT 1
    ), 0),
    s.live_count, s.create_time, s.update_time, s.delete_time, s.settings, h.global_settings
FROM registry.subjects AS s
CROSS JOIN registry.head AS h
"""

_SUBJECT = _SUBJECT_COLUMNS + "WHERE s.name = %(name)s AND (s.stored_count > 0 OR s.settings IS NOT NULL)"

_DEPENDENCIES = """
SELECT DISTINCT r.target_subject, r.target_number
FROM registry.version_references AS r
WHERE (r.subject, r.number) IN (SELECT * FROM unnest(%(subjects)s::text[], %(numbers)s::integer[]))
"""

_DEPENDENTS = """
SELECT DISTINCT r.subject, r.number
FROM registry.version_references AS r
JOIN registry.versions AS v ON v.subject = r.subject AND v.number = r.number
WHERE (r.target_subject, r.target_number) IN (SELECT * FROM unnest(%(subjects)s::text[], %(numbers)s::integer[]))
  AND (%(include_deleted)s OR v.delete_time IS NULL)
LIMIT %(limit)s
"""

# octet_length needs no payload that was moved out of its row; only what is returned is read.
_CHANGES = """
SELECT epoch, position, time, actor, method, request_id, digest, payload_version, payload
FROM (
    SELECT
        epoch, position, time, actor, method, request_id, digest, payload_version, payload,
        sum(octet_length(payload)) OVER (ORDER BY position) - octet_length(payload) AS bytes_before
    FROM registry.changes
    WHERE position > %(after)s AND position <= %(after)s::bigint + %(limit)s
) AS numbered
WHERE bytes_before <= %(bytes_max)s
ORDER BY position
"""


async def _rows(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> list[Row]:
    cursor = await connection.execute(statement.encode(), parameters, binary=True)
    return await cursor.fetchall()


async def _row(connection: Connection, statement: str, parameters: Mapping[str, Any]) -> Row | None:
    cursor = await connection.execute(statement.encode(), parameters, binary=True)
    return await cursor.fetchone()


async def head(connection: Connection) -> Head:
    """Where the history stands."""
    row = await _row(connection, _HEAD, {})
    assert row is not None, "the head has one row for ever"
    return Head(*row)


async def reserve(connection: Connection, count: int) -> list[int]:
    """Ids of the sequence, ascending."""
    return [schema_id for (schema_id,) in await _rows(connection, _RESERVE, {"count": count})]


async def bases(connection: Connection, asked: Sequence[tuple[str, bytes | None]]) -> Sequence[Basis]:
    """A basis for each subject and identity, in their order, all of one snapshot. See Store.basis."""
    document = [
        {"place": place, "subject": name, "identity": None if identity is None else _hex(identity)}
        for place, (name, identity) in enumerate(asked)
    ]
    found = await _rows(connection, _BASES, {"asked": json.dumps(document)})
    return [_basis(row) for row in found]


async def recorded(connection: Connection, actor: str, method: str, request_id: str) -> Change | None:
    """See Store.recorded."""
    row = await _row(connection, _RECORDED, {"actor": actor, "method": method, "request_id": request_id})
    return _change(row) if row else None


async def schemas(connection: Connection, ids: Collection[int]) -> Mapping[int, Schema]:
    """See Store.schemas."""
    found = await _rows(connection, _SCHEMAS, {"ids": list(ids)})
    return {row[0]: _schema(row) for row in found}


async def schema_by_identity(connection: Connection, identity: bytes) -> Schema | None:
    """See Store.schema_by_identity."""
    row = await _row(connection, _SCHEMA_BY_IDENTITY, {"identity": identity})
    return _schema(row) if row else None


async def schemas_by_semantic(connection: Connection, semantic: bytes, limit: int) -> Sequence[Schema]:
    """See Store.schemas_by_semantic."""
    found = await _rows(connection, _SCHEMAS_BY_SEMANTIC, {"semantic": semantic, "limit": limit})
    return [_schema(row) for row in found]


async def targets(connection: Connection, schema_id: int) -> Mapping[str, int]:
    """See Store.targets."""
    return dict(await _rows(connection, _TARGETS, {"schema_id": schema_id}))


async def version(connection: Connection, subject: str, number: int) -> Version | None:
    """See Store.version."""
    row = await _row(connection, _VERSION, {"subject": subject, "number": number})
    return _version(row) if row else None


async def latest(connection: Connection, subject: str) -> Version | None:
    """See Store.latest."""
    row = await _row(connection, _LATEST, {"subject": subject})
    return _version(row) if row else None


async def orphans(connection: Connection, subject: str, numbers: Collection[int]) -> Sequence[int]:
    """See Store.orphans."""
    found = await _rows(connection, ORPHANS, {"subject": subject, "numbers": list(numbers)})
    return [schema_id for (schema_id,) in found]


async def versions(connection: Connection, which: VersionFilter, *, after: Key | None, limit: int) -> Sequence[Version]:
    """See Store.versions."""
    conditions = list(_conditions(which))
    if after is not None:
        conditions.append("(v.subject, v.number) > (%(after_subject)s, %(after_number)s::integer)")
    after_subject, after_number = after or ("", 0)
    parameters = {
        "subject": which.subject,
        "state": which.state and int(which.state),
        "words": " & ".join(map(_beginning, which.words)),
        "tags": list(which.tags),
        "owner": which.owner,
        "format": which.format and int(which.format),
        "schema_ids": None if which.schema_ids is None else list(which.schema_ids),
        "after_subject": after_subject,
        "after_number": after_number,
        "limit": limit,
    }
    return await _listed_versions(connection, conditions, parameters)


def _conditions(which: VersionFilter) -> Iterable[str]:
    if which.subject is not None:
        yield "v.subject = %(subject)s"
    if which.state is not None:
        yield "v.state = %(state)s"
    if not which.include_deleted:
        yield "v.delete_time IS NULL"
    if which.words:
        yield "v.words @@ %(words)s::tsquery"
    if which.tags:
        yield "v.tags @> %(tags)s::text[]"
    if which.owner is not None:
        # The second condition lets the index of owners be used; no owner has no index.
        yield "v.owner = %(owner)s" + (" AND v.owner <> ''" if which.owner else "")
    if which.schema_ids is not None:
        yield "v.schema_id = ANY(%(schema_ids)s::integer[])"
    if which.format is not None:
        yield (
            "EXISTS (SELECT FROM registry.schemas AS s"
            " WHERE s.id = v.schema_id AND s.format = %(format)s AND s.text IS NOT NULL)"
        )


def _beginning(word: str) -> str:
    """A text search query for words that begin so, quoted as its syntax wants it."""
    escaped = word.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}':*"


async def _listed_versions(
    connection: Connection, conditions: Sequence[str], parameters: Mapping[str, Any]
) -> Sequence[Version]:
    where = f"WHERE {' AND '.join(conditions)} " if conditions else ""
    return [_version(row) for row in await _rows(connection, _VERSION_COLUMNS + where + _IN_ORDER, parameters)]


async def versions_by_key(connection: Connection, keys: Collection[Key]) -> Sequence[Version]:
    """See Store.versions_by_key."""
    return [_version(row) for row in await _rows(connection, _VERSIONS_BY_KEY, _columns_of(keys))]


async def subject(connection: Connection, name: str) -> Subject | None:
    """See Store.subject."""
    row = await _row(connection, _SUBJECT, {"name": name})
    return _subject(row) if row else None


async def subjects(
    connection: Connection, *, prefix: str, include_deleted: bool, after: str | None, limit: int
) -> Sequence[Subject]:
    """See Store.subjects."""
    conditions = ["s.stored_count > 0" if include_deleted else "s.live_count > 0"]
    beyond = _beyond(prefix)
    if prefix:
        conditions.append("s.name >= %(prefix)s")
    if beyond is not None:
        conditions.append("s.name < %(beyond)s")
    if after is not None:
        conditions.append("s.name > %(after)s")
    statement = f"{_SUBJECT_COLUMNS} WHERE {' AND '.join(conditions)} ORDER BY s.name LIMIT %(limit)s"
    parameters = {"prefix": prefix, "beyond": beyond, "after": after, "limit": limit}
    return [_subject(row) for row in await _rows(connection, statement, parameters)]


def _beyond(prefix: str) -> str | None:
    """The first text, by code points, after all that begin with the prefix; None when there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    # No text that can be stored has a surrogate.
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)


async def dependencies(connection: Connection, keys: Collection[Key]) -> Collection[Key]:
    """See Store.dependencies."""
    return {(name, number) for name, number in await _rows(connection, _DEPENDENCIES, _columns_of(keys))}


async def dependents(
    connection: Connection, keys: Collection[Key], *, include_deleted: bool, limit: int
) -> Collection[Key]:
    """See Store.dependents."""
    parameters = _columns_of(keys) | {"include_deleted": include_deleted, "limit": limit}
    return {(name, number) for name, number in await _rows(connection, _DEPENDENTS, parameters)}


async def changes(connection: Connection, *, after: int, limit: int, bytes_max: int) -> Sequence[Change]:
    """See Store.changes."""
    found = await _rows(connection, _CHANGES, {"after": after, "limit": limit, "bytes_max": bytes_max})
    return [_change(row) for row in found]


def _columns_of(keys: Collection[Key]) -> dict[str, Any]:
    return {"subjects": [name for name, _ in keys], "numbers": [number for _, number in keys]}


def _basis(row: Row) -> Basis:
    epoch, global_revision, general, revision, next_number, own, schema_id, purged, *live = row
    heads = zip(*live, strict=True) if live[0] is not None else ()
    return Basis(
        epoch=epoch,
        global_revision=global_revision,
        general=from_json(general),
        revision=revision or 0,
        next_number=next_number or 1,
        own=from_json(own),
        live=tuple(VersionHead(number, held, State(state), activated) for number, held, state, activated in heads),
        schema_id=schema_id,
        schema_purged=purged,
    )


def _hex(value: bytes) -> str:
    """Bytes as PostgreSQL reads them from JSON. Source: PostgreSQL documentation, 8.4.1, bytea hex format."""
    return "\\x" + value.hex()


def _schema(row: Row) -> Schema:
    schema_id, form, text, identity, semantic, create_time, dialect, *references = row
    named = zip(*references, strict=True) if references[0] is not None else ()
    return Schema(
        id=schema_id,
        format=Format(form),
        text=text,
        references=tuple(Reference(*each) for each in named),
        identity=identity,
        semantic=semantic,
        create_time=create_time,
        dialect=dialect,
    )


def _version(row: Row) -> Version:
    name, number, schema_id, state, description, owner, tags, *rest = row
    return Version(name, number, schema_id, State(state), description, owner, tuple(tags), *rest)


def _subject(row: Row) -> Subject:
    name, latest_version, version_count, create_time, update_time, delete_time, own, general = row
    times = create_time, update_time, delete_time
    return Subject(name, latest_version, version_count, *times, own=from_json(own), general=from_json(general))


def _change(row: Row) -> Change:
    epoch, position, time, actor, method, request_id, digest, payload_version, payload = row
    request = RequestKey(method, request_id, digest) if method is not None else None
    return Change(epoch, position, time, actor, codec.read_payload(payload_version, payload), request)
