"""Hard limits of size, and names that say nothing."""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

from tests.unit.house.source_tree import ROOT, python_files

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 600
PARAMETERS_MAX = 6
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "base", "manager", "common"}

AREA_COMMON = Path("shared/llm_schema_registry/common")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[Function]:
    """Every function and method of a module."""
    yield from (node for node in ast.walk(ast.parse(source)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines of the body, without the docstring."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not statements:
        return 0
    return (statements[-1].end_lineno or 0) - statements[0].lineno + 1


def parameters(function: Function) -> int:
    """Parameters of all kinds, without `self` and `cls`."""
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    return len([one for one in named if one.arg not in {"self", "cls"}])


def test_functions_are_short() -> None:
    """No function body has more than 60 lines."""
    found = {
        f"{path}:{function.lineno} {function.name}": body_lines(function)
        for path in python_files()
        for function in functions((ROOT / path).read_text())
        if body_lines(function) > FUNCTION_LINES_MAX
    }

    assert found == {}


def test_modules_are_short() -> None:
    """No module has more than 600 lines."""
    lengths = {path: len((ROOT / path).read_text().splitlines()) for path in python_files()}

    assert {path: length for path, length in lengths.items() if length > MODULE_LINES_MAX} == {}


def test_parameters_are_few() -> None:
    """No function has more than six parameters; tests ask for the fixtures that they need."""
    found = {
        f"{path}:{function.lineno} {function.name}": parameters(function)
        for path in python_files("shared", "services", "deploy", "protos")
        for function in functions((ROOT / path).read_text())
        if parameters(function) > PARAMETERS_MAX
    }

    assert found == {}


def test_names_say_something() -> None:
    """No module or folder is named after nothing; the proto area `common` is the one exception."""
    found = [
        path
        for path in python_files()
        if EMPTY_NAMES & {path.stem, *path.parent.parts}
        and path.parts[:3] != ("shared", "llm_schema_registry", "common")
    ]

    assert found == []


def test_the_measures() -> None:
    """The docstring does not count as body, `self` does not count as parameter, nested functions are seen."""
    source = textwrap.dedent('''
        def f(self, a, *, b):
            """One.

            Two.
            """
            def g(): ...
            return (
                a
            )
    ''')
    outer, inner = sorted(functions(source), key=lambda function: function.lineno)

    assert (body_lines(outer), parameters(outer)) == (4, 2)
    assert (body_lines(inner), parameters(inner)) == (1, 0)
