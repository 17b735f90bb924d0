"""Puts one database in another's place by names.

A client finds the live name closed for the moment of the swap, as when a server restarts. Source of the order: blocking
new sessions before ending the old ones, else clients that come again at once keep the name in use (seen in the wild:
ten attempts in a row failed).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping

import psycopg
from psycopg import sql

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection
from services.backup.adapters.place_errors import IN_USE
from services.backup.adapters.postgres_session import end_when_cut_off
from services.backup.ports import Failpoints

TERMINATE_SECONDS = 15.0
"""For sessions to end that were told to."""
LOOK_SECONDS = 0.01
RENAMES_MAX = 5
"""Of attempts: a session that was admitted just before the door closed may appear late."""
LOCK_SECONDS = 10.0
FAILPOINTS = ("swap.closed", "swap.terminated", "swap.first_renamed", "swap.second_renamed", "swap.renamed")

_DATABASES = """
SELECT datname::text, datallowconn, shobj_description(oid, 'pg_database')
FROM pg_catalog.pg_database WHERE datname = ANY(%s)
"""
# Autovacuum's workers, which have no user, are no clients: a rename ends them, and here only a superuser could.
# The kind of a backend is hidden from roles with few rights.
_TERMINATE = """
SELECT pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
WHERE datname = ANY(%s) AND pid <> pg_backend_pid() AND usesysid IS NOT NULL
"""
_MARK = "llm_schema_registry: swapped in from {}"
"""Comment of a database that was swapped in: it says that this very swap is done. One that it had before is lost."""


class Swap:
    """One swap, begun or continued: what was done before is told by which names exist."""

    def __init__(self, session: Connection, failpoints: Failpoints, *, live: str, incoming: str, aside: str) -> None:
        self._session = session
        self._failpoints = failpoints
        self._live = live
        self._incoming = incoming
        self._aside = aside

    async def run(self) -> None:
        """Does what is left to do. When it cannot, the live database is open again, unless the process was killed.

        Raises errors.DatabaseUnfit when names say that this swap neither can be done nor was.
        """
        await self._session.execute("SELECT set_config('lock_timeout', %s, false)", [f"{LOCK_SECONDS * 1000:.0f}"])
        await end_when_cut_off(self._session)
        there = await self._there()
        if self._incoming not in there:
            await self._finish(there)
            return
        if self._live in there and self._aside in there:
            raise errors.DatabaseUnfit(
                f"the database {self._aside} is there already: drop it, or put the live one aside under another name"
            )
        involved = [name for name in (self._live, self._incoming) if name in there]
        try:
            await self._close(involved)
            await self._rename(involved)
        except BaseException:
            await self._reopen()
            raise
        await self._failpoints.reached("swap.renamed")

    async def _there(self) -> Mapping[str, tuple[bool, str | None]]:
        """Which of the names exist: whether they let clients in, and their comment."""
        names = [self._live, self._incoming, self._aside]
        found = await (await self._session.execute(_DATABASES, [names])).fetchall()
        return {name: (allows, comment) for name, allows, comment in found}

    async def _finish(self, there: Mapping[str, tuple[bool, str | None]]) -> None:
        """The incoming one is not there: it is the live one by now, or never was."""
        live = there.get(self._live)
        if live is None or live[1] != self._mark:
            if live is not None and not live[0]:
                # Closed by a swap that can no longer be done.
                await self._allow(self._live, allowed=True)
            raise errors.DatabaseUnfit(
                f"there is no database {self._incoming} to swap in, and it was not swapped in before: restore again"
            )
        if not live[0]:
            await self._allow(self._live, allowed=True)

    @property
    def _mark(self) -> str:
        return _MARK.format(self._incoming)

    async def _close(self, names: Collection[str]) -> None:
        for name in names:
            await self._allow(name, allowed=False)
        await self._failpoints.reached("swap.closed")
        await self._terminate(names)
        await self._failpoints.reached("swap.terminated")

    async def _allow(self, name: str, *, allowed: bool) -> None:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        await self._session.execute(statement.format(sql.Identifier(name), sql.Literal(allowed)))

    async def _terminate(self, names: Collection[str]) -> None:
        """Ends every client's session and waits until they are gone. Raises errors.DatabaseUnfit when some stay."""
        ends = time.monotonic() + TERMINATE_SECONDS
        while True:
            told = await (await self._session.execute(_TERMINATE, [list(names)])).fetchall()
            if not told:
                return
            if time.monotonic() > ends:
                raise errors.DatabaseUnfit(
                    f"{len(told)} sessions with {' and '.join(names)} did not end within {TERMINATE_SECONDS:g} seconds:"
                    " end them by hand and repeat"
                )
            await asyncio.sleep(LOOK_SECONDS)

    async def _rename(self, names: Collection[str]) -> None:
        for attempt in range(1, RENAMES_MAX + 1):
            try:
                await self._rename_once()
            except psycopg.Error as error:
                if error.sqlstate != IN_USE or attempt == RENAMES_MAX:
                    raise
                await self._terminate(names)
            else:
                return

    async def _rename_once(self) -> None:
        """All of it in one transaction: a process that is killed leaves the names as they were."""
        there = await self._there()
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        live, incoming, aside = map(sql.Identifier, (self._live, self._incoming, self._aside))
        async with self._session.transaction():
            await self._session.execute(
                sql.SQL("COMMENT ON DATABASE {} IS {}").format(incoming, sql.Literal(self._mark))
            )
            if self._live in there:
                await self._session.execute(rename.format(live, aside))
                await self._failpoints.reached("swap.first_renamed")
            await self._session.execute(rename.format(incoming, live))
            await self._allow(self._live, allowed=True)
            await self._failpoints.reached("swap.second_renamed")

    async def _reopen(self) -> None:
        """Lets clients in again. What happens to it is no more than to whoever came with the error."""
        try:
            await asyncio.shield(self._allow(self._live, allowed=True))
        except (psycopg.Error, asyncio.CancelledError):
            return
