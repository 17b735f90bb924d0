"""What a server's refusals mean for whoever prepares or swaps places."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import translation

NO_RIGHT = "42501"  # insufficient_privilege
IN_USE = "55006"  # object_in_use
LOCKED = "55P03"  # lock_not_available
_UNFIT = frozenset(
    {
        "0A000",  # feature_not_supported
        "22023",  # invalid_parameter_value: an encoding or a collation that is not there
        "3D000",  # invalid_catalog_name
        "3F000",  # invalid_schema_name
        "42704",  # undefined_object: a collation, a role
        "42P04",  # duplicate_database
        "42P06",  # duplicate_schema
    }
)
_FULL = "53"  # insufficient resources: disk full, out of memory
_CANCELLED = "57014"  # query_canceled: our own limit
_CUT_OFF = "25P03"  # idle_in_transaction_session_timeout


@contextmanager
def refused(doing: str) -> Iterator[None]:
    """Raises the driver's errors of the block as errors.DatabaseUnavailable or DatabaseUnfit; defects stay.

    doing: what the block does, as in "creating the database x".
    """
    try:
        yield
    except psycopg.Error as error:
        raise _refusal(doing, error) from error


def _refusal(doing: str, error: psycopg.Error) -> Exception:
    state, said = error.sqlstate or "", error.diag.message_primary or "no reason given"
    if state == NO_RIGHT:
        return errors.DatabaseUnfit(f"{doing} is not allowed to this database role ({said}): grant it that right")
    if state in {IN_USE, LOCKED}:
        return errors.DatabaseUnfit(
            f"{doing} was not possible within its time, because others hold it ({said}): end them and repeat"
        )
    if state == _CANCELLED:
        return errors.DatabaseUnfit(f"{doing} took longer than its limit and was given up: repeat it")
    if state == _CUT_OFF:
        return errors.DatabaseUnavailable(f"{doing} was given up by the server, which heard nothing more: repeat it")
    if state in _UNFIT:
        return errors.DatabaseUnfit(f"{doing} was refused by the database server: {said}")
    if state.startswith(_FULL) and state != "53300":
        return errors.DatabaseUnfit(f"{doing} failed, the database server has run out of something ({said})")
    return translation(error)
