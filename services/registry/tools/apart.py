"""Contents that refer to no others, read in worker processes, many at a time.

A piece of work that takes too long or ends its process is repeated content by content, so the one at fault is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, TypeVar

from llm_schema_registry import errors
from services.registry.domain.fingerprint import fingerprint
from services.registry.domain.formats import SchemaFormat
from services.registry.domain.model import Format
from services.registry.ports import Workers

T = TypeVar("T")

PIECE_CONTENTS_MAX = 50
"""Contents that a worker gets at a time: far from a worker's limit of time, for Protobuf's compiler too."""
PIECE_BYTES_MAX = 1 << 20
"""Characters of text that a worker gets at a time, unless one content alone has more."""


class Content(NamedTuple):
    """A content without references. A tuple, because it is pickled once for each of them."""

    id: int
    format: Format
    text: str
    dialect: str
    identity: bytes
    semantic: bytes


Languages: TypeAlias = Mapping[Format, SchemaFormat]
Work: TypeAlias = Callable[[Languages, Sequence[Content]], Sequence[T]]


class Apart:
    """Does work on contents in workers. What it holds is what it was given."""

    def __init__(self, languages: Languages, workers: Workers) -> None:
        self._languages = languages
        self._workers = workers

    async def run(self, work: Work[T], contents: Sequence[Content]) -> list[T | errors.LimitExceeded]:
        """For each content what `work`, a function of a module, makes of it; the error for one that takes too long or
        ends its process.

        One piece at a time: call it several times at once to keep several workers busy. Raises what `work` raises, and
        Overloaded when the workers have no room for another piece.
        """
        found: list[T | errors.LimitExceeded] = []
        for piece in _pieces(contents):
            found += await self._piece(work, piece)
        return found

    async def _piece(self, work: Work[T], piece: list[Content]) -> Sequence[T | errors.LimitExceeded]:
        try:
            return await self._workers.run(work, self._languages, piece)
        except errors.LimitExceeded as error:
            if len(piece) == 1:
                return [error]
        return [found for content in piece for found in await self._piece(work, [content])]


def _pieces(contents: Sequence[Content]) -> Iterator[list[Content]]:
    piece: list[Content] = []
    size = 0
    for content in contents:
        if piece and (len(piece) == PIECE_CONTENTS_MAX or size + len(content.text) > PIECE_BYTES_MAX):
            yield piece
            piece, size = [], 0
        piece.append(content)
        size += len(content.text)
    if piece:
        yield piece


def problems(languages: Languages, contents: Sequence[Content]) -> list[str | None]:
    """For each content what is wrong with it, None for nothing."""
    return [_problem(languages[content.format], content) for content in contents]


def _problem(language: SchemaFormat, content: Content) -> str | None:
    try:
        parsed = language.parse(content.text, {}, dialect=content.dialect)
    except errors.Error as error:
        return unreadable(content.id, error)
    identity = fingerprint(content.format, parsed.identity_body, {})
    semantic = fingerprint(content.format, parsed.semantic_body, {})
    return mismatch(content.id, (content.identity, content.semantic), (identity, semantic))


def unreadable(schema_id: int, error: errors.Error) -> str:
    """Words for a content whose text this code does not accept, or whose references lead nowhere."""
    return f"content {schema_id} cannot be read again: {error.message}"


def mismatch(schema_id: int, stored: tuple[bytes, bytes], made: tuple[bytes, bytes]) -> str | None:
    """Words for a content whose fingerprints, identity and semantic, are not its text's; None when they are."""
    wrong = [name for name, *both in zip(("identity", "semantic"), stored, made, strict=True) if both[0] != both[1]]
    if not wrong:
        return None
    return f"content {schema_id}: what is stored as its {' and '.join(wrong)} fingerprint is not its text's"


def annotations_of(languages: Languages, contents: Sequence[Content]) -> list[tuple[str, ...] | None]:
    """For each content its titles and descriptions, None for one that this code does not accept."""
    return [_annotated(languages[content.format], content) for content in contents]


def _annotated(language: SchemaFormat, content: Content) -> tuple[str, ...] | None:
    try:
        return language.parse(content.text, {}, dialect=content.dialect).annotations
    except errors.Error:
        return None
