"""Where operations and leases lie in an object store.

    operations/<name>.json     the last state of an operation
    operations/<name>.cancel   that another process than the one which runs it was asked to cancel it
    leases/<office>.json       who holds an office

What makes a key raises ValueError for a name that fits none; what reads one answers None for a key that is not ours.
"""

from __future__ import annotations

import re

LEASES = "leases/"
OPERATIONS = "operations/"
_ENDING = ".json"
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII | re.IGNORECASE)


def is_name(text: str) -> bool:
    """Whether a text may name an operation or an office: at most 64 letters, digits and `._-` within."""
    return _NAME.fullmatch(text) is not None


def lease(office: str) -> str:
    """The lease of an office."""
    return f"{LEASES}{_named(office)}{_ENDING}"


def operation(name: str) -> str:
    """An operation's last state."""
    return f"{OPERATIONS}{_named(name)}{_ENDING}"


def cancellation(name: str) -> str:
    """The wish that an operation be cancelled."""
    return f"{OPERATIONS}{_named(name)}.cancel"


def operation_of(key: str) -> str | None:
    """The name of an operation."""
    if not (key.startswith(OPERATIONS) and key.endswith(_ENDING)):
        return None
    name = key[len(OPERATIONS) : -len(_ENDING)]
    return name if is_name(name) else None


def _named(name: str) -> str:
    if not is_name(name):
        raise ValueError(f"no name for an object: {name[:80]!r}")
    return name
