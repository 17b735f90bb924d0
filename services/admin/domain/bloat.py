"""How many bytes a table or B-tree needs for its rows, from PostgreSQL's own statistics.

Source: the approach of ioguix/pgsql-bloat-estimation (github.com/ioguix/pgsql-bloat-estimation, table_bloat.sql and
btree_bloat.sql), derived anew from PostgreSQL 17, "Database Page Layout" (73.6) and access/itup.h: pages that rows of
the average width would fill, against the pages there are. It knows nothing of deduplication in B-trees, which makes an
index smaller than estimated, and never says less than none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

PAGE_HEADER_BYTES = 24
ITEM_POINTER_BYTES = 4
ALIGN_BYTES = 8
ROW_HEADER_BYTES = 23
INDEX_ROW_HEADER_BYTES = 8
BTREE_SPECIAL_BYTES = 16
CHUNKS_PER_PAGE = 4
"""Of TOAST. Source: EXTERN_TUPLES_PER_PAGE in access/heaptoast.h."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A relation in figures. width: average bytes of a row's values. fill: percent of a page that is filled.

    columns: for a table, 0 for a B-tree. nulls: whether any value may be missing.
    """

    size_bytes: int
    block_bytes: int
    rows: float
    width: float
    columns: int
    nulls: bool
    fill: float


def table_bloat_bytes(shape: Shape) -> int:
    """Bytes of a heap beyond what its rows need."""
    bitmap = math.ceil(shape.columns / 8) if shape.nulls else 0
    row = _aligned(ROW_HEADER_BYTES + bitmap) + _aligned(shape.width) + ITEM_POINTER_BYTES
    return _beyond(shape, row, shape.block_bytes - PAGE_HEADER_BYTES, 0)


def btree_bloat_bytes(shape: Shape) -> int:
    """Bytes of a B-tree beyond what its rows need; its one page of facts about itself is needed."""
    row = _aligned(INDEX_ROW_HEADER_BYTES + (ALIGN_BYTES if shape.nulls else 0) + shape.width) + ITEM_POINTER_BYTES
    return _beyond(shape, row, shape.block_bytes - PAGE_HEADER_BYTES - BTREE_SPECIAL_BYTES, 1)


def toast_bloat_bytes(size_bytes: int, block_bytes: int, chunks: float) -> int:
    """Bytes of a TOAST table beyond what its chunks need."""
    return max(0, size_bytes - math.ceil(chunks / CHUNKS_PER_PAGE) * block_bytes)


def _beyond(shape: Shape, row_bytes: float, page_bytes: int, pages_always: int) -> int:
    rows_per_page = max(1, math.floor(page_bytes * shape.fill / 100 / row_bytes))
    pages = math.ceil(shape.rows / rows_per_page) + pages_always
    return max(0, shape.size_bytes - pages * shape.block_bytes)


def _aligned(width: float) -> int:
    return math.ceil(width / ALIGN_BYTES) * ALIGN_BYTES
