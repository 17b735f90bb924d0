"""Compressed streams: what comes back, and what is refused."""

from __future__ import annotations

import random
import subprocess
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain import compression
from services.backup.domain.compression import Compressor, Corrupt, Decompressor, TooLong, Truncated

KINDS = ["zstd", "gzip"]
MUCH = 1 << 40


def compressed(kind: str, plain: bytes) -> bytes:
    """The bytes as one stream."""
    compressor = Compressor(kind)
    return compressor.update(plain) + compressor.finish()


def decompressed(kind: str, content: bytes, *, most: int = MUCH) -> bytes:
    """What the stream holds."""
    decompressor = Decompressor(kind, output_bytes_max=most)
    return decompressor.update(content) + decompressor.finish()


@given(kind=st.sampled_from(KINDS), seed=st.integers(0, 99), size=st.integers(0, 9000), step=st.integers(1, 4000))
@settings(max_examples=60)
def test_what_goes_in_comes_out(kind: str, seed: int, size: int, step: int) -> None:
    """However the stream is cut on its way, the same bytes come out."""
    rng = random.Random(seed)
    plain = bytes(rng.choice(b"abcdef ") for _ in range(size))
    compressor, decompressor = Compressor(kind), Decompressor(kind, output_bytes_max=size)
    stored = b"".join([compressor.update(plain[i : i + step]) for i in range(0, size, step)] + [compressor.finish()])

    out = [decompressor.update(stored[i : i + step]) for i in range(0, len(stored), step)]

    assert b"".join(out) + decompressor.finish() == plain


@pytest.mark.regression("B3")
@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_stream_is_noticed(kind: str) -> None:
    """A stream without its end is refused wherever it was cut off (regression B3: `gzip -t` alone is no proof)."""
    stored = compressed(kind, random.Random(1).randbytes(500) * 3)

    for length in range(len(stored)):
        with pytest.raises((Truncated, Corrupt)):
            decompressed(kind, stored[:length])


@pytest.mark.parametrize("kind", KINDS)
def test_the_checksum_is_checked(kind: str) -> None:
    """A changed byte of the checksum, or of the content before it, is noticed."""
    stored = bytearray(compressed(kind, b"content" * 100))
    stored[-1 if kind == "zstd" else -5] ^= 1

    with pytest.raises(Corrupt, match=f"the {kind} stream is damaged"):
        decompressed(kind, bytes(stored))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cut", [0, 1, 5])
def test_a_second_stream_behind_the_first_is_refused(kind: str, cut: int) -> None:
    """One frame or member is one object; what follows is not silently read or dropped."""
    stored = compressed(kind, b"one")
    decompressor = Decompressor(kind, output_bytes_max=MUCH)
    both = stored + compressed(kind, b"two")
    split = len(stored) + cut

    with pytest.raises(Corrupt, match="follows the end"):
        decompressor.update(both[:split]) + decompressor.update(both[split:])


@pytest.mark.parametrize("kind", KINDS)
def test_garbage_is_refused(kind: str) -> None:
    """Bytes of another kind are no stream."""
    with pytest.raises(Corrupt):
        decompressed(kind, b"PGDMP is not compressed at all")


@pytest.mark.parametrize("kind", KINDS)
def test_a_bomb_is_stopped_at_the_limit(kind: str) -> None:
    """What would become more than was allowed is refused before the surplus is given out."""
    bomb = compressed(kind, bytes(10_000_000))
    given_out = 0
    decompressor = Decompressor(kind, output_bytes_max=9_999_999)

    def drain() -> None:
        nonlocal given_out
        for piece in decompressor.pieces(bomb):
            given_out += len(piece)

    with pytest.raises(TooLong):
        drain()
    assert given_out <= 9_999_999
    assert len(decompressed(kind, bomb, most=10_000_000)) == 10_000_000


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_stay_small(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even a stream that is nearly nothing comes out in pieces of bounded size."""
    monkeypatch.setattr(compression, "PIECE_BYTES_MAX", 1 << 20)
    monkeypatch.setattr(compression, "_ZSTD_STEP_BYTES", 16)
    bomb = compressed(kind, bytes(20 << 20))

    sizes = [len(piece) for piece in Decompressor(kind, output_bytes_max=MUCH).pieces(bomb)]

    assert sum(sizes) == 20 << 20
    assert max(sizes) <= 1 << 20


def test_a_frame_that_wants_much_memory_is_refused() -> None:
    """A frame whose window is beyond the limit is not read."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    greedy = zstandard.ZstdCompressor(compression_params=parameters).compressobj()

    with pytest.raises(Corrupt):
        decompressed("zstd", greedy.compress(bytes(1000)) + greedy.flush())


@pytest.mark.parametrize(("kind", "level"), [("zstd", 0), ("zstd", 20), ("gzip", 10), ("lz4", 3)])
def test_kinds_and_levels_are_checked(kind: str, level: int) -> None:
    """Only levels that every reader of ours accepts are written."""
    with pytest.raises(ValueError, match="no such compression"):
        Compressor(kind, level)


def test_no_such_stream() -> None:
    """A kind that is not known is refused by the reader too."""
    with pytest.raises(ValueError, match="no such compression: lz4"):
        Decompressor("lz4", output_bytes_max=1)


@pytest.mark.parametrize("level", [1, 19])
def test_every_level_is_read(level: int) -> None:
    """What the lowest and the highest level write is read back, and so is what threads wrote."""
    compressor = Compressor("zstd", level, threads=2)
    stored = compressor.update(bytes(9_000_000)) + compressor.finish()

    assert decompressed("zstd", stored) == bytes(9_000_000)


def test_other_programs_read_it() -> None:
    """gzip itself reads what is written here, and zlib agrees about what is read."""
    stored = compressed("gzip", b"for other programs" * 50)

    shown = subprocess.run(["gzip", "-dc"], input=stored, stdout=subprocess.PIPE, check=True).stdout

    assert shown == b"for other programs" * 50
    assert decompressed("gzip", zlib.compress(b"theirs", wbits=31)) == b"theirs"
