"""A registry's database with many versions, made at once: right to the last fingerprint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg

from llm_schema_registry.kernel.about import version as code_version
from llm_schema_registry.kernel.migrate import migrate
from llm_schema_registry.kernel.postgres import PostgresOptions
from services.registry.app import MIGRATIONS
from services.registry.codec import events as codec
from services.registry.domain.events import VersionRegistered
from services.registry.domain.fingerprint import fingerprint
from services.registry.domain.formats.jsonschema import JsonSchema
from services.registry.domain.model import Format, Schema, State, Version
from services.registry.domain.search import version_words

VERSIONS_PER_SUBJECT = 10
START = datetime(2026, 1, 1, tzinfo=UTC)

SCHEMAS = "schemas (id, format, text, identity, semantic, create_time, dialect)"
SUBJECTS = "subjects (name, revision, next_number, stored_count, live_count, create_time, update_time)"
VERSIONS = (
    "versions (subject, number, schema_id, state, description, owner, tags, metadata, words, create_time, update_time,"
    " activate_time)"
)
CHANGES = "changes (position, epoch, time, actor, subject, kind, payload_version, payload)"


def fill(url: str, count: int) -> None:
    """Makes the tables and puts so many versions into them, ten a subject, of about 700 bytes each."""
    options = PostgresOptions(url, ssl_enabled=False)
    asyncio.run(migrate(options, MIGRATIONS, schema="registry", code_version=code_version()))
    made = list(_versions(count))
    with psycopg.connect(url) as connection:
        _copy(connection, SCHEMAS, (_schema(schema) for schema, _ in made))
        _copy(connection, SUBJECTS, _subjects(count))
        _copy(connection, VERSIONS, (_version(version) for _, version in made))
        _copy(connection, CHANGES, (_change(number, *each) for number, each in enumerate(made, 1)))
        connection.execute("UPDATE registry.head SET position = %s", [count])
        connection.execute("SELECT setval('registry.schema_ids', %s)", [count])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")


def _versions(count: int) -> Iterator[tuple[Schema, Version]]:
    language = JsonSchema()
    for number in range(1, count + 1):
        subject, ordinal = divmod(number - 1, VERSIONS_PER_SUBJECT)
        name = f"team-{subject % 100}/events-{subject}"
        time = START + timedelta(seconds=number)
        parsed = language.parse(_text(name, ordinal), {})
        schema = Schema(
            id=number,
            format=Format.JSON,
            text=parsed.text,
            references=(),
            identity=fingerprint(Format.JSON, parsed.identity_body, {}),
            semantic=fingerprint(Format.JSON, parsed.semantic_body, {}),
            create_time=time,
            dialect=parsed.dialect,
        )
        yield (
            schema,
            Version(name, ordinal + 1, number, State.ACTIVE, f"events of {name}", "bench", (), {}, time, time, time),
        )


def _text(name: str, ordinal: int) -> str:
    fields = {f"field_{index}": {"type": "string", "maxLength": 10 + index} for index in range(10 + ordinal)}
    return json.dumps({"title": name, "type": "object", "properties": fields, "required": ["field_0", "field_1"]})


def _copy(connection: psycopg.Connection, table: str, rows: Iterator[tuple[object, ...]]) -> None:
    with connection.cursor().copy(f"COPY registry.{table} FROM STDIN".encode()) as copy:
        for row in rows:
            copy.write_row(row)


def _schema(schema: Schema) -> tuple[object, ...]:
    return (
        *(schema.id, int(schema.format), schema.text, schema.identity, schema.semantic),
        *(schema.create_time, schema.dialect),
    )


def _subjects(count: int) -> Iterator[tuple[object, ...]]:
    for subject in range(-(-count // VERSIONS_PER_SUBJECT)):
        stored = min(VERSIONS_PER_SUBJECT, count - subject * VERSIONS_PER_SUBJECT)
        first = START + timedelta(seconds=subject * VERSIONS_PER_SUBJECT + 1)
        last = first + timedelta(seconds=stored - 1)
        yield (f"team-{subject % 100}/events-{subject}", stored, stored + 1, stored, stored, first, last)


def _version(version: Version) -> tuple[object, ...]:
    words = " ".join(f"'{word}'" for word in version_words(version, [version.subject]))
    return (
        *(version.subject, version.number, version.schema_id, int(version.state), version.description),
        *(version.owner, list(version.tags), "{}", words),
        *(version.create_time, version.update_time, version.activate_time),
    )


def _change(position: int, schema: Schema, version: Version) -> tuple[object, ...]:
    event = VersionRegistered(version, schema, ())
    return (
        *(position, 1, version.create_time, "bench", version.subject, codec.kind(event)),
        *(codec.PAYLOAD_VERSION, codec.payload(event)),
    )
