"""Content of a registry that no compression makes less."""

from __future__ import annotations

import base64
import random

from tests.fix_backup import BlockingSchemas

MIB = 1024 * 1024
TEXT_BYTES = 512 * 1024


def grow(target: str, count: int, rng: random.Random) -> None:
    """Registers contents with so many random bytes in all, as base 64."""
    with BlockingSchemas(target) as schemas:
        for number in range(count // TEXT_BYTES):
            text = base64.b64encode(rng.randbytes(TEXT_BYTES)).decode()
            schemas.register(f"large-{number}", f'{{"description": "{text}"}}')
