"""The estimate of bloat, by hand-made figures."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.admin.domain.bloat import Shape, btree_bloat_bytes, table_bloat_bytes, toast_bloat_bytes

BLOCK = 8192
# Rows of 24 + 40 + 4 = 68 bytes: 120 a page of 8168 bytes.
SHAPE = Shape(100 * BLOCK, BLOCK, rows=1200, width=40, columns=3, nulls=False, fill=100)


def test_table_needs_the_pages_that_its_rows_fill() -> None:
    """1200 rows, 120 a page, need 10 of 100 pages."""
    assert table_bloat_bytes(SHAPE) == 90 * BLOCK


def test_fillfactor_is_no_bloat() -> None:
    """Space that is left free on purpose is needed."""
    assert table_bloat_bytes(replace(SHAPE, fill=50)) == 80 * BLOCK


def test_btree_needs_its_page_of_facts() -> None:
    """Rows of 8 + 40 + 4 bytes: 141 a page filled to 90 %, and one page besides."""
    assert btree_bloat_bytes(replace(SHAPE, fill=90)) == (100 - 9 - 1) * BLOCK


def test_toast_holds_four_chunks_a_page() -> None:
    """10 chunks need 3 of 8 pages."""
    assert toast_bloat_bytes(8 * BLOCK, BLOCK, 10) == 5 * BLOCK


@given(
    st.integers(0, 10_000),
    st.floats(0, 1e9),
    st.floats(0, 10_000),
    st.integers(0, 100),
    st.booleans(),
    st.floats(10, 100),
)
def test_bloat_is_between_nothing_and_everything(
    pages: int, rows: float, width: float, columns: int, nulls: bool, fill: float
) -> None:
    """No figures give an estimate below zero or above the size."""
    shape = Shape(pages * BLOCK, BLOCK, rows, width, columns, nulls, fill)

    assert 0 <= table_bloat_bytes(shape) <= shape.size_bytes
    assert 0 <= btree_bloat_bytes(shape) <= shape.size_bytes
