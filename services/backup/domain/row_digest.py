"""A table's digest: the same for the same rows in any order, so nobody has to sort them.

The SHA-256 digests of the rows, read as numbers, are added up modulo 2^256. Rows that occur several times count so
often; a row that is missing, added or other in a single bit gives another sum but for one case in 2^256, whatever
befell it by accident. It is not for telling who chose the rows apart from who did not: with very many rows of one's own
choice, others of the same sum can be found. Against those stand the digest and the signature over the dump itself.
Source: Bellare, Micciancio, "A New Paradigm for Collision-Free Hashing: Incrementality at Reduced Cost" (1997), AdHash;
Clarke et al., "Incremental Multiset Hash Functions and Their Application to Memory Integrity Checking" (2003),
MSet-Add-Hash; Wagner, "A Generalized Birthday Problem" (2002), for the limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

DIGEST_BYTES = 32
_MODULUS = 1 << (8 * DIGEST_BYTES)


class RowDigest:
    """The digest of a table whose rows are added bit by bit, and their number."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, rows: Iterable[bytes]) -> None:
        """Adds whole rows, each as PostgreSQL's COPY writes it as text, the newline at its end included."""
        # Once for every row there is: names that are looked up once make it a fifth faster.
        hashed, number, count, total = sha256, int.from_bytes, 0, 0
        for row in rows:
            total += number(hashed(row).digest(), "little")
            count += 1
        self.rows += count
        self._sum = (self._sum + total) % _MODULUS

    def add_hashed(self, digest: bytes) -> None:
        """Adds a row whose SHA-256 was made piece by piece."""
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(digest, "little")) % _MODULUS

    def remove(self, rows: Sequence[bytes]) -> None:
        """Takes rows away that were added."""
        self.rows -= len(rows)
        self._sum = (self._sum - sum(int.from_bytes(sha256(row).digest(), "little") for row in rows)) % _MODULUS

    def digest(self) -> bytes:
        """DIGEST_BYTES bytes, little-endian; zeros for a table without rows."""
        return self._sum.to_bytes(DIGEST_BYTES, "little")
