"""Sealed bytes: what comes back, and that nothing else does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain.sealing import (
    CHUNK_BYTES,
    CHUNKS_MAX,
    HEADER_BYTES,
    PREFIX_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    DataKey,
    Header,
    Opener,
    Sealer,
    Tampered,
    WrongKey,
    _Cipher,
    key_id,
    open_chunk,
    open_sealed,
    seal,
    sealed_size,
)

CORPUS = Path(__file__).parents[2] / "corpora" / "backup"
KEY = DataKey.of(bytes(range(32)))
OTHER = DataKey.of(bytes(range(1, 33)))
SALT = bytes(range(100, 100 + SALT_BYTES))
PREFIX = b"prefix!"
CONTEXT = "cluster-1/backups/01/data-00001"
CHUNK = 64
WHOLE = CHUNK + TAG_BYTES


def sealed(plain: bytes, *, context: str = CONTEXT, salt: bytes = SALT, chunk_bytes: int = CHUNK) -> bytes:
    """The bytes sealed in small chunks."""
    sealer = Sealer(KEY, context, salt=salt, prefix=PREFIX, chunk_bytes=chunk_bytes)
    return sealer.update(plain) + sealer.finish()


def in_pieces(content: bytes, sizes: list[int]) -> list[bytes]:
    """The content, cut into pieces of these sizes, over and over."""
    pieces, start, index = [], 0, 0
    while start < len(content):
        pieces.append(content[start : start + sizes[index % len(sizes)]])
        start += sizes[index % len(sizes)]
        index += 1
    return pieces


SIZES = st.lists(st.integers(1, 3 * WHOLE), min_size=1, max_size=5)


@given(plain=st.binary(max_size=5 * CHUNK), writes=SIZES, reads=SIZES)
@settings(max_examples=150)
def test_what_is_sealed_comes_back(plain: bytes, writes: list[int], reads: list[int]) -> None:
    """However the stream is cut, on either side, the same bytes come back, and the sealed ones are the same too."""
    sealer = Sealer(KEY, CONTEXT, salt=SALT, prefix=PREFIX, chunk_bytes=CHUNK)
    stored = b"".join([sealer.update(piece) for piece in in_pieces(plain, writes)] + [sealer.finish()])

    opener = Opener(KEY, CONTEXT)
    back = b"".join([opener.update(piece) for piece in in_pieces(stored, reads)] + [opener.finish()])

    assert back == plain
    assert stored == sealed(plain)
    assert len(stored) == sealed_size(len(plain), CHUNK)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_every_flipped_bit_is_noticed(size: int) -> None:
    """A single changed bit anywhere, header and tags included, opens to nothing."""
    stored = sealed(bytes(size))

    for bit in range(len(stored) * 8):
        changed = bytearray(stored)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Tampered):
            open_sealed(KEY, CONTEXT, bytes(changed))


@pytest.mark.parametrize("size", [0, CHUNK, 3 * CHUNK, 3 * CHUNK + 5])
def test_every_truncation_is_noticed(size: int) -> None:
    """Bytes that end anywhere too early, exactly between two chunks as well, are refused."""
    stored = sealed(bytes(size))

    for length in range(len(stored)):
        with pytest.raises(Tampered):
            open_sealed(KEY, CONTEXT, stored[:length])


@given(extra=st.binary(min_size=1, max_size=2 * WHOLE), size=st.sampled_from([0, 5, CHUNK, 2 * CHUNK]))
@settings(max_examples=80)
def test_trailing_bytes_are_noticed(extra: bytes, size: int) -> None:
    """Bytes behind the end are refused."""
    with pytest.raises(Tampered):
        open_sealed(KEY, CONTEXT, sealed(bytes(size)) + extra)


def test_moved_chunks_are_noticed() -> None:
    """A chunk that was swapped, repeated or dropped is refused, and the message says which and where."""
    stored = sealed(bytes(range(256)))
    head, chunks = stored[:HEADER_BYTES], [stored[HEADER_BYTES + i * WHOLE :][:WHOLE] for i in range(4)]
    first, second, third, last = chunks

    for order, at in [((second, first, third, last), 0), ((first, first, third, last), 1), ((first, third, last), 1)]:
        with pytest.raises(Tampered, match=f"chunk {at} .*byte {HEADER_BYTES + at * WHOLE}") as refused:
            open_sealed(KEY, CONTEXT, head + b"".join(order))
        assert (refused.value.chunk, refused.value.offset) == (at, HEADER_BYTES + at * WHOLE)


def test_chunks_of_another_object_are_noticed() -> None:
    """A chunk of an object sealed with another salt under the same key and context does not fit in."""
    one, other = sealed(bytes(3 * CHUNK)), sealed(bytes(3 * CHUNK), salt=SALT[::-1])
    place = HEADER_BYTES + WHOLE

    with pytest.raises(Tampered, match="chunk 1"):
        open_sealed(KEY, CONTEXT, one[:place] + other[place : place + WHOLE] + one[place + WHOLE :])


def test_the_context_is_bound() -> None:
    """What was sealed as one object does not open as another."""
    with pytest.raises(Tampered, match="belongs to another object"):
        open_sealed(KEY, "cluster-1/backups/02/data-00001", sealed(b"content"))


def test_a_wrong_key_is_named() -> None:
    """Another key is recognised by the header, before a byte is opened."""
    with pytest.raises(WrongKey, match=f"under the key {KEY.id}, not under {OTHER.id}"):
        open_sealed(OTHER, CONTEXT, sealed(b"content"))


def test_a_key_that_calls_itself_another_opens_nothing() -> None:
    """A header whose key id was replaced by another key's is refused by that key too."""
    stored = bytearray(sealed(b"content"))
    stored[12:28] = bytes.fromhex(OTHER.id)

    with pytest.raises(Tampered):
        open_sealed(OTHER, CONTEXT, bytes(stored))


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 7])
def test_chunks_open_alone(size: int) -> None:
    """Each chunk can be read by its span and opened without the others."""
    plain = random.Random(size).randbytes(size)
    stored = sealed(plain)
    header = Header.parse(stored[:HEADER_BYTES])
    count = header.chunk_count(len(stored))

    opened = []
    for index in range(count):
        start, length = header.chunk_span(len(stored), index)
        chunk = stored[start : start + length]
        opened.append(open_chunk(KEY, CONTEXT, header, index, chunk, last=index == count - 1))

    assert b"".join(opened) == plain
    assert count == max(1, -(-size // CHUNK))


def test_a_chunk_alone_knows_whether_it_is_the_last() -> None:
    """The last chunk that is left after a truncation does not pass for the last one."""
    stored = sealed(bytes(3 * CHUNK))[: HEADER_BYTES + 2 * WHOLE]
    header = Header.parse(stored)
    start, length = header.chunk_span(len(stored), 1)

    with pytest.raises(Tampered):
        open_chunk(KEY, CONTEXT, header, 1, stored[start : start + length], last=True)


@pytest.mark.parametrize("size", [0, HEADER_BYTES, HEADER_BYTES + TAG_BYTES - 1, HEADER_BYTES + WHOLE + TAG_BYTES])
def test_impossible_sizes_are_refused(size: int) -> None:
    """A number of bytes that no sealed object has is refused before anything is read."""
    header = Header.parse(sealed(b""))

    with pytest.raises(Tampered, match=f"has {size} bytes"):
        header.chunk_count(size)


def test_a_chunk_beyond_the_end_is_an_index_error() -> None:
    """A chunk that is not there has no span."""
    header = Header.parse(sealed(b""))

    with pytest.raises(IndexError):
        header.chunk_span(HEADER_BYTES + TAG_BYTES, 1)


def test_chunks_have_a_limit() -> None:
    """Past the counter's end nothing is sealed: a nonce would repeat."""
    cipher = _Cipher(KEY, CONTEXT, Header(CHUNK, KEY.id, SALT, PREFIX))
    cipher.seal(CHUNKS_MAX - 1, b"", last=True)

    with pytest.raises(ValueError, match="at most 4294967296 chunks"):
        cipher.seal(CHUNKS_MAX, b"", last=True)


def test_a_key_is_not_printed() -> None:
    """The representation of a key does not tell it."""
    assert "key=" not in repr(KEY)
    assert KEY.key.hex() not in repr(KEY)
    assert repr(KEY.key) not in repr(KEY)


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_short_and_long_keys_are_refused(length: int) -> None:
    """A key of another length is an error, not padded and not cut."""
    with pytest.raises(ValueError, match="has 32 bytes"):
        DataKey.of(bytes(length))


def test_an_id_must_be_the_keys_own() -> None:
    """A key cannot go by another key's id."""
    with pytest.raises(ValueError, match="not this key's"):
        DataKey(OTHER.id, KEY.key)


@pytest.mark.parametrize("chunk_bytes", [0, 15, 16 * 1024 * 1024 + 1])
def test_chunk_sizes_are_bounded(chunk_bytes: int) -> None:
    """A header cannot make its reader hold more than the limit."""
    with pytest.raises(ValueError, match="chunks have"):
        Sealer(KEY, CONTEXT, salt=SALT, prefix=PREFIX, chunk_bytes=chunk_bytes)


@pytest.mark.parametrize(("salt", "prefix"), [(b"", PREFIX), (SALT + b"x", PREFIX), (SALT, b"short")])
def test_salts_and_prefixes_have_their_length(salt: bytes, prefix: bytes) -> None:
    """A salt or prefix of another length is an error."""
    with pytest.raises(ValueError, match="the salt has 32 bytes"):
        Sealer(KEY, CONTEXT, salt=salt, prefix=prefix)


def test_memory_is_bounded_by_a_chunk() -> None:
    """A sealer gives out what it can: it never keeps more than one chunk."""
    sealer = Sealer(KEY, CONTEXT, salt=SALT, prefix=PREFIX)
    given_out = 0

    for number in range(1, 40):
        given_out += len(sealer.update(bytes(100_000)))
        assert number * 100_000 - given_out <= CHUNK_BYTES


def test_the_first_version_is_read_for_ever() -> None:
    """The sealed object of version 1 in the corpus opens to what was sealed then, and is still written so."""
    stored = (CORPUS / "sealed-v1.bin").read_bytes()
    plain = (CORPUS / "sealed-v1.plain").read_bytes()

    assert open_sealed(KEY, CONTEXT, stored) == plain
    assert sealed(plain) == stored


def test_small_objects_are_sealed_at_once() -> None:
    """`seal` and the streaming sealer give the same bytes."""
    assert len(PREFIX) == PREFIX_BYTES
    assert open_sealed(KEY, CONTEXT, seal(KEY, CONTEXT, b"small", salt=SALT, prefix=PREFIX)) == b"small"
    assert key_id(KEY.key) == KEY.id
