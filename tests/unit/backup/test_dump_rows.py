"""The rows of a dump, read while it passes, and digests that do not depend on their order."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backup.adapters.dump_rows import DumpRows
from services.backup.domain.row_digest import RowDigest

ROWS = st.lists(st.binary(max_size=40).map(lambda text: text.replace(b"\n", b"\\n") + b"\n"), max_size=12)
ARCHIVES = (14, 15, 16)


def number(value: int) -> bytes:
    """A number as archives have it."""
    return struct.pack("<BI", value < 0, abs(value))


def text(value: str | None) -> bytes:
    """A text as archives have it."""
    return number(-1) if value is None else number(len(value.encode())) + value.encode()


def entry(version: int, identity: int, kind: str, space: str, name: str) -> bytes:
    """An entry of a table of contents. Source: PostgreSQL, src/bin/pg_dump/pg_backup_archiver.c, WriteToc."""
    names = number(identity) + number(1) + text("0") + text("16385") + text(name) + text(kind) + number(3)
    made = text("") + text("") + text(f"COPY {name} FROM stdin;\n") + text(space) + text("") + text(None)
    relkind = number(0) if version >= 16 else b""
    return names + made + relkind + text("owner") + text("false") + text("7") + text(None) + b"\x02" + bytes(8)


def beginning(version: int, entries: Sequence[bytes], compression: int = 0) -> bytes:
    """Header and table of contents."""
    packed = bytes([compression]) if version >= 15 else number(compression)
    head = b"PGDMP\x01" + bytes([version, 0, 4, 8, 1]) + packed + number(1) * 7
    return head + text("registry") + text("17.5") + text("17.5") + number(len(entries)) + b"".join(entries)


def block(identity: int, chunks: Sequence[bytes]) -> bytes:
    """The data of a table."""
    return b"\x01" + number(identity) + b"".join(number(len(chunk)) + chunk for chunk in chunks if chunk) + number(0)


def archive(version: int, tables: Mapping[str, Sequence[bytes]], rng: random.Random | None = None) -> bytes:
    """An archive with these tables, and one of another schema. Without rng each row is a chunk, as it is today."""
    entries, blocks = [entry(version, 1, "TABLE", "registry", "versions")], []
    other = {"other": [b"1\n", b"2\n"]}
    for identity, (name, rows) in enumerate({**tables, **other}.items(), start=2):
        entries.append(entry(version, identity, "TABLE DATA", "public" if name == "other" else "registry", name))
        chunks = [*rows, b"\\.\n\n\n"]
        blocks.append(block(identity, cut(b"".join(chunks), rng) if rng else chunks))
    return beginning(version, entries) + b"".join(blocks)


def cut(content: bytes, rng: random.Random) -> list[bytes]:
    """The content in pieces of any length."""
    at = sorted(rng.choices(range(len(content) + 1), k=rng.randrange(8)))
    return [content[start:end] for start, end in zip([0, *at], [*at, len(content)], strict=True)]


def read(pieces: Sequence[bytes]) -> DumpRows:
    """What is told of a dump that comes in such pieces."""
    rows = DumpRows("registry")
    for piece in pieces:
        rows.add(piece)
    return rows


def digest(rows: Sequence[bytes]) -> tuple[int, bytes]:
    """Number and digest of rows that are given at once."""
    made = RowDigest()
    made.add(rows)
    return made.rows, made.digest()


@given(first=ROWS, second=ROWS, version=st.sampled_from(ARCHIVES), seed=st.integers(), by_row=st.booleans())
def test_rows_in_any_pieces(first: list[bytes], second: list[bytes], version: int, seed: int, *, by_row: bool) -> None:
    """However an archive is cut, and whatever its chunks are, its tables' rows are told."""
    rng = random.Random(seed)
    whole = archive(version, {"schemas": first, "versions": second}, None if by_row else rng)

    found = read(cut(whole, rng)).tables()

    assert found is not None
    assert {name: (each.rows, each.digest()) for name, each in found.items()} == {
        "schemas": digest(first),
        "versions": digest(second),
    }


@pytest.mark.parametrize(
    ("dump", "said"),
    [
        (beginning(17, []), "archive version 1.17"),
        (beginning(13, []), "archive version 1.13"),
        (beginning(16, [], compression=1), "a compressed archive"),
        (b"PGDMP\x02" + bytes(20), "no archive of version 1"),
        (beginning(16, []) + b"\x03" + number(1), "a block of kind 3"),
        (beginning(16, []) + b"\x01" + number(1) + number(-5), "a negative length"),
        (beginning(16, []) + block(9, [b"half a row"]), "does not end"),
        (beginning(16, [entry(16, 1, "TABLE", "a", "b")[:-9] + bytes(9)]), "ends otherwise than known"),
        (beginning(16, [])[:-5] + number(1) + number(1) * 2 + number(1 << 30), "a text of 1073741824 bytes"),
    ],
)
def test_what_is_not_read(dump: bytes, said: str) -> None:
    """Of an archive that is otherwise than known no rows are told, and why is; the rest of it is passed over."""
    rows = read([dump, b"more"])

    assert said in rows.unread
    assert rows.tables() is None


def test_archive_that_breaks_off() -> None:
    """Of an archive that ends too early no rows are told."""
    whole = archive(16, {"schemas": [b"1\n"]})

    assert [size for size in range(len(whole)) if read([whole[:size]]).tables() is not None] == [
        len(whole) - len(block(3, [b"1\n", b"2\n", b"\\.\n\n\n"])),  # What is of no other schema is whole.
    ]


@given(rows=ROWS, seed=st.integers())
def test_order_does_not_matter(rows: list[bytes], seed: int) -> None:
    """The same rows in another order have the same digest, one more or one fewer another."""
    shuffled = random.Random(seed).sample(rows, len(rows))

    assert digest(shuffled) == digest(rows)
    assert digest([*rows, b"\n"])[1] != digest(rows)[1]
    assert digest([*rows, *rows])[1] != digest(rows)[1] or not rows


def test_digest_is_a_sum() -> None:
    """A digest is the sum of the rows' SHA-256, little-endian, and rows can be taken away again."""
    rows = [b"one\ttwo\n", b"\\N\n", b"\\N\n"]
    total = sum(int.from_bytes(hashlib.sha256(row).digest(), "little") for row in rows)
    made = RowDigest()
    made.add([*rows, b"more\n"])
    made.remove([b"more\n"])

    assert (made.rows, made.digest()) == (3, (total % 2**256).to_bytes(32, "little"))
    assert digest([]) == (0, bytes(32))
