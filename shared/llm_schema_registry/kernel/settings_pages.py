"""Settings made readable: the effective values of a process, and the reference page of a model."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from llm_schema_registry.kernel.control import EffectiveOption
from llm_schema_registry.kernel.settings import Settings
from llm_schema_registry.kernel.settings_sources import UNSET, Loaded, options, plain

S = TypeVar("S", bound=Settings)


def effective(loaded: Loaded[S]) -> list[EffectiveOption]:
    """Every option with its effective value and source, in the order of the model."""
    rows = []
    for option in options(type(loaded.settings)):
        section, _, name = option.partition(".")
        value = plain(getattr(getattr(loaded.settings, section), name))
        rows.append(EffectiveOption(option, value, loaded.sources.get(option, "default")))
    return rows


def effective_text(loaded: Loaded[S]) -> str:
    """The effective options as aligned columns."""
    rows = [("OPTION", "VALUE", "SOURCE")]
    rows += [(row.option, row.value, row.source) for row in effective(loaded)]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = (f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}" for row in rows)
    return "\n".join(lines) + "\n"


def configuration_page(model: type[Settings]) -> str:
    """The reference page of a model: every section and option with default, bounds and meaning."""
    return "\n".join(_page(model)) + "\n"


def _page(model: type[Settings]) -> Iterator[str]:
    yield f"# Configuration of the {model.service_name} service" if model.service_name else "# Configuration"
    yield ""
    yield "Generated from the settings model; a test compares the two."
    yield ""
    yield (
        "Sources, later ones win: defaults; the TOML or YAML file that `SCHEMA_REGISTRY_CONFIG_FILE` names; the files"
        " in the directory that `SCHEMA_REGISTRY_SECRETS_DIR` names (`section__option` or `section/option`);"
        " environment variables `SCHEMA_REGISTRY__SECTION__OPTION`. An empty variable or secret file counts as not set."
        " Unknown names are errors. Options marked ↻ are taken over by Reload without a restart."
    )
    known = options(model)
    for section, outer in model.model_fields.items():
        section_model: Any = outer.annotation
        yield from ("", f"## {section}", "", (section_model.__doc__ or "").strip(), "")
        yield "| option | default | allowed | meaning |"
        yield "|---|---|---|---|"
        for option, described in known.items():
            if option.startswith(f"{section}."):
                yield _row(option, described)


def _row(option: str, described: Any) -> str:
    mark = " ↻" if (described.json_schema_extra or {}).get("reloads") else ""
    default = described.get_default(call_default_factory=False)
    shown = "required" if default is PydanticUndefined else f"`{plain(default)}`"
    shown = shown.replace(f"`{UNSET}`", UNSET)
    cells = (f"`{option}`{mark}", shown, _allowed(described), described.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _allowed(described: Any) -> str:
    """Type and bounds in words."""
    words = [_kind(described.annotation)]
    for rule in described.metadata:
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")):
            bound = getattr(rule, name, None)
            if bound is not None:
                words.append(f"{sign} {bound}")
    return ", ".join(words)


def _kind(annotation: Any) -> str:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in typing.get_args(annotation))
    if origin in {typing.Union, types.UnionType}:
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        return _kind(inner[0])
    if origin is tuple:
        return "list of paths" if typing.get_args(annotation)[0] is Path else "list of texts"
    names = {bool: "true, false", int: "whole number", float: "number", str: "text", Path: "path"}
    return "secret text" if annotation is SecretStr else names.get(annotation, "text")
