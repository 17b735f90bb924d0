"""Every option of the settings has a test that shows its behaviour, and the reference page is the model's."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from llm_schema_registry.kernel.settings import Settings
from llm_schema_registry.kernel.settings_pages import configuration_page
from llm_schema_registry.kernel.settings_sources import options
from services.admin.settings import AdminServiceSettings
from services.backup.settings import BackupServiceSettings
from services.registry.settings import RegistrySettings

ROOT = Path(__file__).resolve().parents[2]
MARKER = "option"
PAGES: Mapping[str, type[Settings]] = {
    "configuration.md": RegistrySettings,
    "configuration-backup.md": BackupServiceSettings,
    "configuration-admin.md": AdminServiceSettings,
}
OPTIONS = {**options(AdminServiceSettings), **options(BackupServiceSettings), **options(RegistrySettings)}


def marked_options(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Options and test names of every `@pytest.mark.option("section.option", …)` in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == f"pytest.mark.{MARKER}":
                    for argument in decorator.args:
                        yield ast.literal_eval(argument), node.name


@functools.cache
def marked_tests() -> dict[str, list[str]]:
    """Names of the tests of each option, read from the source of all tests."""
    found: dict[str, list[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for option, test in marked_options(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(option, []).append(test)
    return found


@pytest.mark.parametrize("option", OPTIONS)
def test_option_has_a_test(option: str) -> None:
    """A test that is marked with the option shows that it changes behaviour."""
    assert marked_tests().get(option), f'mark the test with @pytest.mark.{MARKER}("{option}")'


def test_marked_options_exist() -> None:
    """No test is marked with an option that the model does not have."""
    assert set(marked_tests()) <= set(OPTIONS)


@pytest.mark.parametrize("option", OPTIONS)
def test_option_is_described(option: str) -> None:
    """Every option says what it means."""
    assert OPTIONS[option].description


@pytest.mark.parametrize("page", PAGES)
def test_configuration_page_is_generated_from_the_model(page: str) -> None:
    """Each page is what its model says; `python -m services.<name> reference` writes it."""
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")

    assert written == configuration_page(PAGES[page])
