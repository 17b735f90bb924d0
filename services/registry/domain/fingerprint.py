"""Digests over content: equal exactly when two contents are the same (identity) or mean the same (semantic)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from services.registry.domain.model import Format

ALGORITHM = b"\x01"
"""SHA-256 over length-prefixed parts: the format's number, the body, then name and digest of each reference by name."""


def fingerprint(form: Format, body: bytes, references: Mapping[str, bytes]) -> bytes:
    """33 bytes: the algorithm's number and the digest.

    body: the format's canonical bytes. references: the same kind of fingerprint of what each name stands for.
    """
    digest = hashlib.sha256()
    parts = [bytes([form]), body]
    for name in sorted(references):
        parts += [name.encode("utf-8"), references[name]]
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    return ALGORITHM + digest.digest()
