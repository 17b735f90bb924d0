"""Sessions of one's own with PostgreSQL that may last as long as a backup, and what its refusals mean for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Connection, PostgresOptions, connect, translation

TIMEOUTS = (
    *("statement_timeout", "lock_timeout", "transaction_timeout"),
    *("idle_in_transaction_session_timeout", "idle_session_timeout"),
)
"""Settings of a role or database that would end a long session. Not every major has all of them."""

CUT_OFF_SECONDS = 10.0
"""For a transaction that holds what everybody needs and whose process says nothing: it may be cut off."""

_NOT_MIGRATED = frozenset({"3F000", "42P01", "42703", "42883"})  # no such schema, table, column, function
_LOCKED = "55P03"  # lock_not_available
_IN_FAILED_TRANSACTION = "25P02"
_NO_RIGHT = "42501"  # insufficient_privilege
_ENDED = frozenset({"25P03", "25P04"})  # idle_in_transaction_session_timeout, transaction_timeout


async def open_session(options: PostgresOptions) -> Connection:
    """A session in autocommit that no timeout of the server ends. Raises errors.DatabaseUnavailable.

    It must reach the server itself: a pooler that shares sessions between transactions breaks what it is for.
    """
    session = await connect(options)
    try:
        with translated():
            await session.execute(
                "SELECT set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = ANY(%s)", [list(TIMEOUTS)]
            )
    except BaseException:
        await session.close()
        raise
    return session


async def end_when_cut_off(session: Connection) -> None:
    """Has the server give up a transaction of the session, and all its locks, when nothing comes for CUT_OFF_SECONDS.

    Else the locks of a process that is cut off last until TCP gives up, which takes hours.
    """
    limit = f"{CUT_OFF_SECONDS * 1000:.0f}"
    # Over a socket of the same machine the last one stays zero. It is for an answer that nobody takes.
    await session.execute(
        "SELECT set_config(name, %s, false) FROM pg_catalog.pg_settings WHERE name = ANY(%s)",
        [limit, ["idle_in_transaction_session_timeout", "tcp_user_timeout"]],
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raises the driver's errors of the block as errors.DatabaseUnavailable or DatabaseUnfit; defects stay."""
    try:
        yield
    except psycopg.Error as error:
        raise _translation(error) from error


def _translation(error: psycopg.Error) -> Exception:
    state, said = error.sqlstate or "", error.diag.message_primary or "no reason given"
    if state == _NO_RIGHT:
        return errors.DatabaseUnfit(
            f"the database role lacks a right ({said}): it must own the registry's tables, or read all of them"
        )
    if state in _NOT_MIGRATED:
        return errors.DatabaseUnfit(
            f"this database holds no registry of this version ({said}): start the registry, which makes its tables"
        )
    if state == _LOCKED:
        return errors.DatabaseUnfit(
            "a table of the registry is locked by someone who changes it: repeat when that is done, or end that session"
        )
    if state in _ENDED or state == _IN_FAILED_TRANSACTION:
        return errors.DatabaseUnavailable("the database session ended before its work was done: repeat it")
    if state.startswith("53") and state != "53300":
        return errors.DatabaseUnfit(f"the database server has run out of something ({said}): give it more room")
    if state.startswith("XX"):
        return errors.DatabaseUnfit(f"the database server reports damaged data ({said}): it must be repaired first")
    return translation(error)
