"""The database that a tool works on: the registry's tables, in its schema or in one of another name.

A restore without the right to create databases prepares its tables in a schema beside the live one. The statements of
the adapters name the live one; on a connection of this module they mean the place's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import Params

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import PostgresOptions, translation

SCHEMA = "registry"
NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
"""Names of schemas that a tool takes: they need no quotes."""

Row = tuple[Any, ...]


class PlaceConnection(AsyncConnection[Row]):
    """A connection in autocommit whose statements, given as bytes, mean the place's tables."""

    schema = SCHEMA

    def placed(self, statement: bytes) -> bytes:
        """The statement with the place's schema in place of the live one's."""
        return statement if self.schema == SCHEMA else statement.replace(b"registry.", self.schema.encode() + b".")

    async def execute(
        self, query: Any, params: Params | None = None, *, prepare: bool | None = None, binary: bool = False
    ) -> AsyncCursor[Row]:
        """As the driver's."""
        here: Any = self.placed(query) if isinstance(query, bytes) else query
        return await super().execute(here, params, prepare=prepare, binary=binary)


async def connect(options: PostgresOptions, schema: str) -> PlaceConnection:
    """A connection without a statement timeout to a place that holds a registry.

    Raises errors.DatabaseUnavailable, DatabaseUnfit; ValueError for a name that needs quotes.
    """
    if NAME.fullmatch(schema) is None:
        raise ValueError(f"the schema's name {schema!r} must be lower-case letters, digits and underscores")
    with answered():
        connection = await PlaceConnection.connect(options.conninfo(), autocommit=True)
        try:
            connection.schema = schema
            await connection.execute(b"SELECT set_config('statement_timeout', '0', false)")
            if await (await connection.execute(b"SELECT to_regclass('registry.head')")).fetchone() == (None,):
                raise errors.DatabaseUnfit(f"this database holds no registry in schema {schema}")
        except BaseException:
            await connection.close()
            raise
    return connection


@contextmanager
def answered() -> Iterator[None]:
    """Raises the driver's errors of the block as errors.DatabaseUnavailable, or as errors.DatabaseUnfit."""
    try:
        yield
    except psycopg.Error as error:
        raise refusal(error) from error


def refusal(error: psycopg.Error) -> Exception:
    """The error in our words. What is no defect of the network is one of the place: a right or a table is missing."""
    ours = translation(error)
    if ours is not error:
        return ours
    return errors.DatabaseUnfit(f"the database refused: {error.diag.message_primary or 'no reason given'}")
