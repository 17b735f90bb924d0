"""Which keys and prefixes every store takes, so that what one store holds can be copied to any other."""

from __future__ import annotations

import re

from llm_schema_registry.objects.store import KEY_BYTES_MAX

SEGMENT_BYTES_MAX = 200
"""Of what stands between two slashes. File systems allow 255, some 143 once they encrypt names."""

SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""What stands between two slashes of a key."""

_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")


def check_key(key: str) -> None:
    """Returns when the key is one of ours: segments of ASCII letters, digits and `-_.`, joined by single slashes.

    No segment begins with a full stop: that keeps `..` out, and leaves names to the stores themselves. Raises
    ValueError.
    """
    if len(key) > KEY_BYTES_MAX:
        raise ValueError(f"the object key {key[:80]!r}… is longer than {KEY_BYTES_MAX} bytes")
    for segment in key.split("/"):
        if SEGMENT.fullmatch(segment) is None or len(segment) > SEGMENT_BYTES_MAX:
            raise ValueError(
                f"the object key {key!r} is not allowed: between slashes stand 1 to {SEGMENT_BYTES_MAX} ASCII letters, "
                "digits, `-`, `_` or `.`, the first of them not a full stop"
            )


def check_prefix(prefix: str) -> None:
    """Returns when keys of ours can begin like this; the empty prefix is that of all keys. Raises ValueError."""
    whole, slash, last = prefix.rpartition("/")
    if slash:
        check_key(whole)
    if len(prefix) > KEY_BYTES_MAX or _PREFIX.fullmatch(prefix) is None or last.startswith("."):
        raise ValueError(f"the prefix {prefix[:80]!r} is not the beginning of an object key")
