"""Checks texts by their format's rules, and data by a stored schema's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.formats import Problem, Validation
from services.registry.domain.model import Format, Reference, Schema
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
    return SchemaValidation((), tuple(library.language(form).lint(candidate.parsed)))


async def validate_data(schema: Schema, data: bytes, *, assert_formats: bool, library: Library) -> Validation:
    """Where data does not follow a stored schema. Raises InvalidField when the data cannot be read."""
    validator = await library.validator(schema, assert_formats=assert_formats)
    return await offload(len(data), lambda: validator.check(data))


def _problem(field: str, description: str) -> Problem:
    """A violation of `text/...` as a problem at a place in the text."""
    return Problem(field.removeprefix("text"), "", "", description)
