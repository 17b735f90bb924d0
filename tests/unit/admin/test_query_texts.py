"""Values in statements are not shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.admin.domain.maintenance import QUERY_CHARACTERS_MAX, without_values


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT name FROM t WHERE a = 'secret' AND b = 12.5e3", "SELECT name FROM t WHERE a = ? AND b = ?"),
        ("SELECT $1, t1.col2", "SELECT $1, t1.col2"),
        ("SELECT 'it''s', E'a\\'b', $$x$$, $q$ 'y' $q$", "SELECT ?, ?, ?, ?"),
        ('SELECT "Odd 1 name"  -- secret\nFROM t', 'SELECT "Odd 1 name" FROM t'),
        ("INSERT INTO t VALUES ('cut off at the en", "INSERT INTO t VALUES (?"),
        ("SELECT /* secret */ 1", "SELECT ?"),
    ],
)
def test_values_become_question_marks(text: str, shown: str) -> None:
    """Texts, numbers and comments go; names and parameters stay."""
    assert without_values(text) == shown


@given(st.from_regex(r"[a-z0-9 ]{1,30}secret[a-z0-9 ]{0,30}", fullmatch=True), st.booleans())
def test_quoted_text_is_never_shown(value: str, cut: bool) -> None:
    """No text in quotes is shown, not even one whose end the server cut off."""
    statement = f"UPDATE t SET a = '{value}" + ("" if cut else "' WHERE b = 1")

    assert "secret" not in without_values(statement)


def test_long_text_is_cut() -> None:
    """A statement is shown up to its limit."""
    assert len(without_values("SELECT " + "a, " * 1000)) == QUERY_CHARACTERS_MAX
