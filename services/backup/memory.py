"""Keeps the process small."""

from __future__ import annotations

import ctypes

M_ARENA_MAX = -8
"""Source: mallopt(3), GNU C library."""


def use_one_arena() -> None:
    """Lets all threads allocate from one arena: pieces of a mebibyte pass through many of them, and each thread's own
    arena would keep some. Measured: a seventh less memory at its peak. Does nothing on other C libraries.
    """
    try:
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        return
