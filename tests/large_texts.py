"""Content of a registry that no compression makes less."""

from __future__ import annotations

import base64
import random

import psycopg

from tests.fix_backup import BlockingSchemas

MIB = 1024 * 1024
TEXT_BYTES = 512 * 1024
ROW_BYTES = 48 * 1024
_COPY = "COPY registry.schemas (id, format, text, identity, semantic, create_time, dialect) FROM STDIN"


def grow(target: str, count: int, rng: random.Random) -> None:
    """Registers contents with so many random bytes in all, as base 64."""
    with BlockingSchemas(target) as schemas:
        for number in range(count // TEXT_BYTES):
            text = base64.b64encode(rng.randbytes(TEXT_BYTES)).decode()
            schemas.register(f"large-{number}", f'{{"description": "{text}"}}')


def grow_table(url: str, count: int, rng: random.Random) -> None:
    """As `grow`, much faster, and behind the registry's back: it would complain of contents that no version holds."""
    with psycopg.connect(url) as connection, connection.cursor().copy(_COPY) as copy:
        for number in range(count // ROW_BYTES):
            text = base64.b64encode(rng.randbytes(ROW_BYTES)).decode()
            identity = b"test" + number.to_bytes(28, "big")
            copy.write_row((1_000_000 + number, 1, text, identity, identity, "2026-01-01", "none"))
