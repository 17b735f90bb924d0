"""What the program's exit status means to scripts."""

from __future__ import annotations

import enum

from llm_schema_registry import errors


class ExitCode(enum.IntEnum):
    """Stable: scripts branch on them."""

    FINE = 0
    REFUSED = 1
    """The service refused or failed, or the answer is no: not compatible, not valid."""
    USAGE = 2
    """The command line is at fault, or a file that it names cannot be read."""
    UNREACHABLE = 3
    """No service answered, or it cannot work for now. The same command may succeed later."""
    INTERRUPTED = 130
    """Ctrl-C. Source: 128 + SIGINT, as shells report it."""
    PIPE_CLOSED = 141
    """Whoever read the output is gone. Source: 128 + SIGPIPE, as shells report it."""


class UsageFault(Exception):
    """The command line is at fault in a way that only the command itself can see. Ends with ExitCode.USAGE."""


_LATER = frozenset({errors.Code.UNAVAILABLE, errors.Code.DEADLINE_EXCEEDED})


def of(error: errors.Error) -> ExitCode:
    """UNREACHABLE for codes UNAVAILABLE and DEADLINE_EXCEEDED, REFUSED for all others."""
    return ExitCode.UNREACHABLE if error.code in _LATER else ExitCode.REFUSED
