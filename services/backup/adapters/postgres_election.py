"""Elects one process of many for an office: an advisory lock on a session of its own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import psycopg
from psycopg import conninfo

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection, PostgresOptions
from services.backup.adapters.postgres_session import open_session, translated

IDLE_SECONDS, INTERVAL_SECONDS, PROBES = 2, 1, 3
"""TCP keepalives, on both sides: a holder that was cut off is noticed, by itself and by the server, within 5 s."""
_CUT_OFF = {
    "tcp_keepalives_idle": str(IDLE_SECONDS),
    "tcp_keepalives_interval": str(INTERVAL_SECONDS),
    "tcp_keepalives_count": str(PROBES),
    # For an answer that nobody takes: keepalives are for silence alone.
    "tcp_user_timeout": str((IDLE_SECONDS + INTERVAL_SECONDS * PROBES) * 1000),
}
"""How the server notices it."""
HEARTBEAT_SECONDS = 5.0
ANSWER_SECONDS_MAX = 10.0
"""A holder whose session does not answer for so long counts as deposed."""

log = logging.getLogger(__name__)


def office_key(office: str) -> int:
    """Key of the advisory lock that an office is."""
    digest = hashlib.sha256(f"llm_schema_registry office {office}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)


class PostgresElection:
    """Election by the registry's database."""

    def __init__(
        self,
        options: PostgresOptions,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        keepalives = {
            "keepalives_idle": IDLE_SECONDS,
            "keepalives_interval": INTERVAL_SECONDS,
            "keepalives_count": PROBES,
        }
        self._options = replace(options, url=conninfo.make_conninfo(options.url, **keepalives))
        self._heartbeat_seconds = heartbeat_seconds
        self._answer_seconds_max = answer_seconds_max
        self._lost: dict[str, asyncio.Event] = {}

    @asynccontextmanager
    async def held(self, office: str) -> AsyncIterator[bool]:
        """As Election.held. An office is held once in a process: another block of the same office gets False.

        While it is held, `lost(office)` tells when that ended before the block did.
        """
        if office in self._lost:
            yield False
            return
        lost = self._lost[office] = asyncio.Event()
        try:
            async with self._session() as session:
                if session is None:
                    yield True
                elif await self._taken(session, office):
                    async with self._guarded(session, office, lost):
                        yield True
                else:
                    yield False
        finally:
            del self._lost[office]

    def lost(self, office: str) -> asyncio.Event:
        """Is set when the session that holds the office ended, so another process may hold it by now.

        Only while a block of `held` for the office runs; KeyError otherwise. Never set when the database could not be
        reached from the start.
        """
        return self._lost[office]

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Connection | None]:
        """A session for the block; None when the database cannot be reached."""
        try:
            session: Connection | None = await open_session(self._options)
        except (errors.DatabaseUnavailable, OSError):
            session = None
        try:
            yield session
        finally:
            if session is not None:
                # Not asked to unlock: the end of the session does it, also when the server no longer answers.
                await session.close()

    async def _taken(self, session: Connection, office: str) -> bool:
        """Whether the lock was free and is the session's now; true as well when the database went away meanwhile."""
        try:
            with translated():
                # Over a socket of the same machine they are of no use and stay zero.
                await session.execute(
                    "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)",
                    [list(_CUT_OFF), list(_CUT_OFF.values())],
                )
                cursor = await session.execute("SELECT pg_try_advisory_lock(%s)", [office_key(office)])
                row = await cursor.fetchone()
        except errors.DatabaseUnavailable:
            return True
        return row == (True,)

    @asynccontextmanager
    async def _guarded(self, session: Connection, office: str, lost: asyncio.Event) -> AsyncIterator[None]:
        """Watches the session during the block."""
        guard = asyncio.create_task(self._guard(session, office, lost), name=f"office-{office}")
        try:
            yield
        finally:
            guard.cancel()
            with suppress(asyncio.CancelledError):
                await guard

    async def _guard(self, session: Connection, office: str, lost: asyncio.Event) -> None:
        """Asks the session until it no longer answers; then nothing of it is waited for."""
        while await self._answers(session):
            # The end of the session shows at once, not only at the next question.
            with suppress(psycopg.Error, OSError):
                async for _ in session.notifies(timeout=self._heartbeat_seconds):
                    pass
        lost.set()
        log.warning("the session that held the office %s ended: another process may hold it now", office)

    async def _answers(self, session: Connection) -> bool:
        question = asyncio.create_task(session.execute("SELECT 1"))
        try:
            await asyncio.wait([question], timeout=self._answer_seconds_max)
            return question.done() and question.exception() is None
        finally:
            if not question.done():
                # A cancelled query is first taken back from the server, which takes long when that is silent.
                await session.close()
                question.cancel()
