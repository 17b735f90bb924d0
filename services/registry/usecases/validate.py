"""Checks texts by their format's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.formats import Problem
from services.registry.domain.model import Format, Reference
from services.registry.usecases.library import Library, offload


@dataclass(frozen=True, slots=True)
class SchemaValidation:
    """Why a text is no schema; and what is allowed in it but probably not meant."""

    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...] = ()


async def validate_schema(
    form: Format, text: str, references: Sequence[Reference], *, library: Library
) -> SchemaValidation:
    """Whether a text is a schema. Raises UnsupportedFormat and what resolving its references raises."""
    try:
        candidate = await library.candidate(form, text, references)
    except InvalidSchema as error:
        found = [_problem(violation.field, violation.description) for violation in error.violations]
        return SchemaValidation(tuple(found) or (Problem("", "", "", error.message),))
    language = library.language(form)
    return SchemaValidation((), tuple(await offload(len(text), lambda: language.lint(candidate.parsed))))


def _problem(field: str, description: str) -> Problem:
    """A violation of `text/...` as a problem at a place in the text."""
    return Problem(field.removeprefix("text"), "", "", description)
