"""Every fault of an earlier system has a test that shows that it cannot happen here."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.fix_fault_table import MARKER, REGRESSIONS
from tests.unit.house.source_tree import ROOT, python_files


def marked(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Ids and test names of every `@pytest.mark.regression("B1", …)` in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{MARKER}":
                    yield from ((ast.literal_eval(argument), node.name) for argument in decorator.args)


@pytest.fixture(scope="module")
def tests_by_id() -> dict[str, list[str]]:
    """Names of the tests of each fault, read from the source of all tests."""
    found: dict[str, list[str]] = {}
    for path in python_files("tests"):
        for name, test in marked(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            found.setdefault(name, []).append(test)
    return found


@pytest.mark.parametrize("name", REGRESSIONS)
def test_fault_has_a_test(name: str, tests_by_id: dict[str, list[str]]) -> None:
    """A test is marked with the fault."""
    assert tests_by_id.get(name), f'mark the test with @pytest.mark.{MARKER}("{name}")'


def test_all_faults_are_known(tests_by_id: dict[str, list[str]]) -> None:
    """The faults are B1 to B13, and no test is marked with another one."""
    assert list(REGRESSIONS) == [f"B{number}" for number in range(1, 14)]
    assert set(tests_by_id) <= set(REGRESSIONS)
