"""Reads where a registry's database stands and the rows of its history, and hears when there are more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import psycopg
from psycopg import sql

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection, PostgresOptions
from llm_schema_registry.operations.ports import Clock
from services.backup.adapters.postgres_session import open_session, translated
from services.backup.domain.model import Epoch, Head, StoredChange

CHANNEL = "registry_changes"
"""Where the registry announces its commits."""
DEAF_SECONDS = 1.0
"""Between two looks at the history while nothing is heard: what was committed meanwhile must not wait for longer."""

log = logging.getLogger(__name__)

# The sequence is read in the statement, so after its snapshot was taken, and it tells the present: whatever id a
# visible row has is not above what is read.
_HEAD = """
SELECT cluster_id::text, epoch, position, floor, fenced,
    (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {schema_ids}),
    (SELECT array_agg(id ORDER BY id) FROM {epochs}),
    (SELECT array_agg(parent ORDER BY id) FROM {epochs}),
    (SELECT array_agg(fork_position ORDER BY id) FROM {epochs})
FROM {head}
"""

_COLUMNS = tuple(field.name for field in fields(StoredChange))
# As many as asked for by count, of those only the ones before the bytes are spent. The head's position comes with each,
# from the same snapshot, so a history that ends before it is noticed. A row of the head alone stands for "none".
_CHANGES = """
SELECT head.position, {of_change}
FROM {head} head
LEFT JOIN (
    SELECT {columns}, sum(bytes) OVER (ORDER BY position) - bytes AS bytes_before
    FROM (
        SELECT {columns}, octet_length(payload) + octet_length(actor) + octet_length(subject) + 64 AS bytes
        FROM {changes}
        WHERE position > %(after)s
        ORDER BY position
        LIMIT %(limit)s
    ) counted
) change ON change.bytes_before < %(bytes_max)s
ORDER BY change.position
"""


async def read_head(connection: Connection, schema: str = "registry") -> Head:
    """Where the registry in this PostgreSQL schema stands, in the connection's snapshot.

    schema_id_high is the present one, so never lower than the snapshot's. Raises errors.DatabaseUnavailable,
    DatabaseUnfit.
    """
    names = {name: sql.Identifier(schema, name) for name in ("schema_ids", "epochs", "head")}
    with translated():
        cursor = await connection.execute(sql.SQL(_HEAD).format(**names))
        row = await cursor.fetchone()
    if row is None:
        raise errors.DatabaseUnfit(f"the table {schema}.head is empty, so it is unknown where the registry stands")
    cluster_id, epoch, position, floor, fenced, schema_id_high, ids, parents, forks = row
    epochs = tuple(Epoch(*each) for each in zip(ids or (), parents or (), forks or (), strict=True))
    if not epochs or epochs[-1].id != epoch:
        raise errors.DatabaseUnfit(
            f"{schema}.head is in epoch {epoch}, but the newest one in {schema}.epochs is "
            f"{epochs[-1].id if epochs else 'none'}: somebody changed these tables by hand"
        )
    return Head(cluster_id, epoch, position, floor, fenced, schema_id_high, epochs)


async def read_changes(
    connection: Connection, after: int, *, limit: int, bytes_max: int, schema: str = "registry"
) -> Sequence[StoredChange]:
    """As Source.changes, up to a gap. Raises errors.DatabaseUnavailable, and DatabaseUnfit when it begins with one."""
    assert limit > 0, "at least one change is asked for"
    names: dict[str, sql.Composable] = {name: sql.Identifier(schema, name) for name in ("changes", "head")}
    names["columns"] = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
    names["of_change"] = sql.SQL(", ").join(sql.Identifier("change", column) for column in _COLUMNS)
    with translated():
        cursor = await connection.execute(
            sql.SQL(_CHANGES).format(**names), {"after": after, "limit": limit, "bytes_max": max(1, bytes_max)}
        )
        rows = await cursor.fetchall()
    return [StoredChange(*row[1:]) for row in _gapless(schema, after, rows)]


def _gapless(schema: str, after: int, rows: Sequence[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
    """The rows that follow `after` and one another. Raises errors.DatabaseUnfit when there is one, but not the next."""
    expected = after + 1
    for count, (head_position, position, *_) in enumerate(rows):
        if position == expected + count:
            continue
        # What comes before a gap is still good to have; whoever asks for the rest learns of it.
        if count > 0 or (position is None and head_position <= after):
            return rows[:count]
        raise errors.DatabaseUnfit(
            f"{schema}.changes has no position {expected}, though it "
            f"{'was written' if position is None else 'goes on'} up to {head_position}: changes that were not archived "
            "yet are gone, so make a new backup, which later ones follow",
            metadata={"position": expected},
        )
    return rows


class ChangeBell:
    """Hears the registry's announcements, on a session of its own that is opened when it is first waited for.

    One waiter at a time. Close it at the end.
    """

    def __init__(self, options: PostgresOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._session: Connection | None = None
        self._deaf = False

    async def wait(self, timeout_seconds: float) -> None:
        """As Source.wait. The first wait of a session returns at once: what came before it was not heard; so does,
        nearly, one whose session ended, as a swap ends it."""
        end = self._clock.monotonic() + timeout_seconds
        try:
            rung = await self._rung(timeout_seconds)
            self._deaf = False
            if rung:
                return
        except (psycopg.Error, errors.Error, OSError, TimeoutError) as error:
            if not self._deaf:
                log.warning("changes are not announced for now, asking every %.1f s instead: %s", DEAF_SECONDS, error)
            self._deaf = True
            await self.close()
            end = min(end, self._clock.monotonic() + DEAF_SECONDS)
        except BaseException:
            await self.close()
            raise
        await asyncio.sleep(max(0.0, end - self._clock.monotonic()))

    async def close(self) -> None:
        """Ends the session."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _rung(self, timeout_seconds: float) -> bool:
        """Whether it rang before the timeout; true as well when it has just begun to listen."""
        if self._session is None:
            async with asyncio.timeout(timeout_seconds):
                session = await open_session(self._options)
            self._session = session
            await session.execute(f"LISTEN {CHANNEL}".encode())
            return True
        rung = False
        async for _ in self._session.notifies(timeout=timeout_seconds, stop_after=1):
            rung = True
        return rung
