"""Keys, prefixes, and where uploads are cut."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.objects.keys import check_key, check_prefix
from llm_schema_registry.objects.parts import PARTS_PER_SIZE, PartHashes, part_bytes
from llm_schema_registry.objects.store import PART_BYTES, PARTS_MAX

SEGMENTS = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", fullmatch=True)
KEYS = st.lists(SEGMENTS, min_size=1, max_size=6).map("/".join)
S3_PART_BYTES_MAX = 5 * 1024**3


@given(key=KEYS, cut=st.integers(0, 200))
def test_beginnings_of_keys(key: str, cut: int) -> None:
    """Every beginning of a key is a prefix."""
    check_key(key)
    check_prefix(key[:cut])


@given(key=st.text(alphabet="ab./\\-\0 ", max_size=12))
def test_keys_stay_inside(key: str) -> None:
    """A key that is allowed never leads out of a folder, nor to a name that begins with a full stop."""
    try:
        check_key(key)
    except ValueError:
        return
    assert all(part and not part.startswith(".") for part in key.split("/"))
    assert not set(key) & set("\\\0 ")


@pytest.mark.parametrize("prefix", ["/", "a//", "../", ".", "a/.", "a/../b", "a b", "x" * 1025])
def test_bad_prefixes(prefix: str) -> None:
    """What no key begins with is no prefix."""
    with pytest.raises(ValueError, match=r"prefix|key"):
        check_prefix(prefix)


def test_part_sizes() -> None:
    """Parts double after every thousand, stay below S3's limit, and all of them hold 5 TiB and more."""
    sizes = [part_bytes(number, PART_BYTES) for number in range(1, PARTS_MAX + 1)]

    assert sizes[PARTS_PER_SIZE - 1 : PARTS_PER_SIZE + 1] == [PART_BYTES, 2 * PART_BYTES]
    assert max(sizes) <= S3_PART_BYTES_MAX
    assert sum(sizes) > 5 * 1024**4


@pytest.mark.parametrize("number", [0, -1, PARTS_MAX + 1])
def test_no_such_part(number: int) -> None:
    """Parts are numbered from 1 to 10,000."""
    with pytest.raises(ValueError, match="parts"):
        part_bytes(number, PART_BYTES)


@given(pieces=st.lists(st.binary(max_size=40), max_size=12), size=st.integers(1, 16))
def test_part_hashes(pieces: list[bytes], size: int) -> None:
    """However a stream arrives, its parts are the same: full ones, then the rest; one empty part for nothing."""
    hashes = PartHashes(size)
    for piece in pieces:
        hashes.update(piece)
    whole = b"".join(pieces)

    cut = [whole[start : start + size] for start in range(0, len(whole), size)] or [b""]

    assert [(part.number, part.size_bytes, part.sha256) for part in hashes.parts()] == [
        (number, len(text), hashlib.sha256(text).digest()) for number, text in enumerate(cut, start=1)
    ]
