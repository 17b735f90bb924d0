"""The chain of manifests: each names the one before it, so one that was taken out without a word is missed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """A manifest in the chain. sha256: of it as stored. previous: of the one before it, None for the first."""

    id: str
    sha256: bytes
    previous: bytes | None


def missing(links: Sequence[Link], deleted: Collection[bytes], doubtful: Collection[str]) -> Iterator[str]:
    """What was removed without a tombstone, in words.

    links: oldest first. deleted: digests of manifests that were deleted in order. doubtful: ids of backups that are
    there, or were a moment ago, and whose manifests nobody can trust: what follows them cannot be judged.
    """
    known = {link.sha256 for link in links} | set(deleted)
    older = ""
    for link in links:
        judged = not any(older < each < link.id for each in doubtful)
        if link.previous is not None and link.previous not in known and judged:
            where = f"between {older} and {link.id}" if older else f"before {link.id}"
            yield (
                f"a backup {where} is gone, and no tombstone says that it was deleted: its manifest had the SHA-256"
                f" {link.previous.hex()}. Look for it in another store's copy, and find out who can delete objects"
                f" here; this is told until {link.id} is gone too"
            )
        older = link.id
