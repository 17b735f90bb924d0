"""What must be true of the tables, as questions whose answers are the exceptions. Each is one statement.

`%(limit)s` bounds what is named; one more than that is never read. `kept_all`: no change was ever dropped, so what
follows from the whole history can be asked.
"""

from __future__ import annotations

from dataclasses import dataclass

from services.registry.tools.place import PlaceConnection, Row


@dataclass(frozen=True, slots=True)
class Question:
    """problem: words for one exception, with a place for each of its columns. whole: asks of the whole history."""

    problem: str
    statement: bytes
    whole: bool = False


QUESTIONS = (
    Question(
        "content {0} has no text, but version {1}/{2} holds it",
        b"""
        SELECT DISTINCT ON (s.id) s.id, v.subject, v.number FROM registry.schemas AS s
        JOIN registry.versions AS v ON v.schema_id = s.id
        WHERE s.text IS NULL ORDER BY s.id LIMIT %(limit)s
        """,
    ),
    Question(
        "content {0} has a text, but no version holds it",
        b"""
        SELECT s.id FROM registry.schemas AS s
        WHERE s.text IS NOT NULL AND NOT EXISTS (SELECT FROM registry.versions AS v WHERE v.schema_id = s.id)
        ORDER BY s.id LIMIT %(limit)s
        """,
    ),
    Question(
        "reference {1!r} of content {0} leads to content {2}, which is not there or purged, or it is out of order",
        b"""
        SELECT r.schema_id, r.name, r.target_schema_id
        FROM (
            SELECT schema_id, name, target_schema_id, ordinal, row_number() OVER (
                PARTITION BY schema_id ORDER BY ordinal
            ) AS place
            FROM registry.schema_references
        ) AS r
        LEFT JOIN registry.schemas AS own ON own.id = r.schema_id
        LEFT JOIN registry.schemas AS target ON target.id = r.target_schema_id
        WHERE target.text IS NULL OR own.text IS NULL OR r.ordinal <> r.place
        ORDER BY r.schema_id LIMIT %(limit)s
        """,
    ),
    Question(
        "reference {2!r} of version {0}/{1} leads to {3}/{4}: not the content that its own content is resolved with",
        b"""
        SELECT r.subject, r.number, r.name, r.target_subject, r.target_number
        FROM registry.version_references AS r
        LEFT JOIN registry.versions AS own ON own.subject = r.subject AND own.number = r.number
        LEFT JOIN registry.versions AS target
            ON target.subject = r.target_subject AND target.number = r.target_number
        LEFT JOIN registry.schema_references AS first ON first.schema_id = own.schema_id AND first.name = r.name
        WHERE target.schema_id IS DISTINCT FROM first.target_schema_id OR target.schema_id IS NULL
        ORDER BY r.subject, r.number LIMIT %(limit)s
        """,
    ),
    Question(
        "version {0}/{1} has {2} references, its content {3}",
        b"""
        SELECT v.subject, v.number, own.count, first.count
        FROM registry.versions AS v
        JOIN LATERAL (
            SELECT count(*) FROM registry.version_references AS r WHERE r.subject = v.subject AND r.number = v.number
        ) AS own ON true
        JOIN LATERAL (
            SELECT count(*) FROM registry.schema_references AS f WHERE f.schema_id = v.schema_id
        ) AS first ON true
        WHERE own.count <> first.count ORDER BY v.subject, v.number LIMIT %(limit)s
        """,
    ),
    Question(
        "live version {0}/{1} references {2}/{3}, which is deleted",
        b"""
        SELECT r.subject, r.number, r.target_subject, r.target_number
        FROM registry.version_references AS r
        JOIN registry.versions AS own ON own.subject = r.subject AND own.number = r.number
        JOIN registry.versions AS target ON target.subject = r.target_subject AND target.number = r.target_number
        WHERE own.delete_time IS NULL AND target.delete_time IS NOT NULL
        ORDER BY r.subject, r.number LIMIT %(limit)s
        """,
    ),
    Question(
        "subject {0!r} counts {1} versions, {2} of them live, and gives {3} next; it has {4}, {5} live, up to {6}",
        b"""
        SELECT s.name, s.stored_count, s.live_count, s.next_number, v.stored, v.live, v.last
        FROM registry.subjects AS s
        LEFT JOIN LATERAL (
            SELECT count(*) AS stored, count(*) FILTER (WHERE delete_time IS NULL) AS live,
                COALESCE(max(number), 0) AS last
            FROM registry.versions WHERE subject = s.name
        ) AS v ON true
        WHERE s.stored_count <> v.stored OR s.live_count <> v.live OR s.next_number <= v.last
        ORDER BY s.name LIMIT %(limit)s
        """,
    ),
    Question(
        "version {0}/{1} belongs to a subject or a content that is not there",
        b"""
        SELECT v.subject, v.number FROM registry.versions AS v
        LEFT JOIN registry.subjects AS s ON s.name = v.subject
        LEFT JOIN registry.schemas AS c ON c.id = v.schema_id
        WHERE s.name IS NULL OR c.id IS NULL ORDER BY v.subject, v.number LIMIT %(limit)s
        """,
    ),
    Question(
        "subject {0!r} has revision {1} and gives number {2} next; its history says {3} and {4}",
        b"""
        SELECT s.name, s.revision, s.next_number, COALESCE(c.changes, 0), COALESCE(c.versions, 0) + 1
        FROM registry.subjects AS s
        FULL JOIN (
            SELECT subject, count(*) AS changes, count(*) FILTER (WHERE kind = 'version_registered') AS versions
            FROM registry.changes WHERE subject <> '' GROUP BY subject
        ) AS c ON c.subject = s.name
        WHERE s.name IS NULL OR s.revision IS DISTINCT FROM c.changes
            OR s.next_number IS DISTINCT FROM COALESCE(c.versions, 0) + 1
        ORDER BY s.name LIMIT %(limit)s
        """,
        whole=True,
    ),
    Question(
        "request id {2!r} of {0!r} for {1} leads to position {3}, whose change was made under another",
        b"""
        SELECT r.actor, r.method, r.request_id, r.position FROM registry.request_ids AS r
        LEFT JOIN registry.changes AS c ON c.position = r.position
        WHERE (c.actor, c.method, c.request_id, c.time) IS DISTINCT FROM (r.actor, r.method, r.request_id, r.time)
        ORDER BY r.position LIMIT %(limit)s
        """,
    ),
    Question(
        "epoch {0} forks from {1} at position {2}: not an earlier epoch, or before that one began",
        b"""
        SELECT e.id, e.parent, e.fork_position FROM registry.epochs AS e
        LEFT JOIN registry.epochs AS p ON p.id = e.parent
        CROSS JOIN registry.head AS h
        WHERE (e.id <> 1 AND (p.id IS NULL OR p.id >= e.id OR p.fork_position > e.fork_position))
            OR (e.id = 1 AND (e.parent IS NOT NULL OR e.fork_position <> 0))
            OR e.fork_position > h.position OR e.id > h.epoch
        ORDER BY e.id LIMIT %(limit)s
        """,
    ),
    Question(
        "the head stands at epoch {0}, which is none of those that began",
        b"""
        SELECT h.epoch FROM registry.head AS h
        WHERE NOT EXISTS (SELECT FROM registry.epochs AS e WHERE e.id = h.epoch) LIMIT %(limit)s
        """,
    ),
    Question(
        "the sequence of schema ids may give {0} again: content {1} is there",
        b"""
        SELECT q.last_value + q.is_called::integer, s.highest
        FROM registry.schema_ids AS q CROSS JOIN (SELECT max(id) AS highest FROM registry.schemas) AS s
        WHERE q.last_value + q.is_called::integer <= s.highest LIMIT %(limit)s
        """,
    ),
    Question(
        "the head says that the newest purge is at position {0}; the history says {1}",
        b"""
        SELECT h.purge_position, p.newest FROM registry.head AS h
        CROSS JOIN (
            SELECT COALESCE(max(position), 0) AS newest FROM registry.changes WHERE kind = 'versions_purged'
        ) AS p
        WHERE h.purge_position <> p.newest AND (p.newest > 0 OR h.purge_position > h.floor) LIMIT %(limit)s
        """,
    ),
    Question(
        "the head's global settings have revision {0}; the history says {1}",
        b"""
        SELECT h.global_revision, c.count FROM registry.head AS h
        CROSS JOIN (
            SELECT count(*) FROM registry.changes WHERE kind = 'config_updated' AND subject = ''
        ) AS c
        WHERE h.global_revision <> c.count LIMIT %(limit)s
        """,
        whole=True,
    ),
)


async def exceptions(connection: PlaceConnection, question: Question, limit: int) -> list[str]:
    """What is wrong, in words; at most `limit`."""
    found: list[Row] = await (await connection.execute(question.statement, {"limit": limit})).fetchall()
    return [question.problem.format(*row) for row in found]
