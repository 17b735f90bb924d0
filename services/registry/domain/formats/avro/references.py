"""Referenced texts: read in the order of their dependencies, so that each finds the types of those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from services.registry.domain.formats import Problem
from services.registry.domain.formats import json_text as text
from services.registry.domain.formats.avro.model import Definition, Schema
from services.registry.domain.formats.avro.parser import Parser
from services.registry.domain.formats.json_text import Json

_STEPS_MIN: Final = 100_000
_STEPS_PER_CHARACTER: Final = 4


class Faulty(Exception):
    """A text, or one that it references, is no schema. problems: at least one.

    reference: name of the referenced text at fault; None for the text itself.
    """

    def __init__(self, problems: list[Problem], reference: str | None = None) -> None:
        super().__init__(problems[0].message)
        self.problems = problems
        self.reference = reference


def parse(schema_text: str, sources: Mapping[str, str]) -> Schema:
    """The schema that a text holds, with the types of all sources in scope. Raises Faulty."""
    known = _definitions(sources)
    parser = Parser(known)
    schema = parser.parse(_read(schema_text), steps=_steps(schema_text))
    if parser.errors:
        raise Faulty(parser.errors)
    return schema


def _definitions(sources: Mapping[str, str]) -> dict[str, Definition]:
    """Every type that the sources define, by full name.

    A source that turns out to need others is set aside, and read once more after them: two readings at most each.
    """
    known: dict[str, Definition] = {}
    waiting: dict[str, None] = {}
    done: set[str] = set()
    for first in sources:
        agenda = [first]
        while agenda:
            name = agenda[-1]
            if name in done:
                agenda.pop()
                continue
            parser = Parser(known, foreign=True)
            parser.parse(_read(sources[name], name), steps=_steps(sources[name]))
            needed = [item for item in _named(parser, sources) if item not in done]
            if needed and name not in waiting:
                waiting[name] = None
                loop = [item for item in needed if item in waiting]
                if loop:
                    raise _cycle(loop[0])
                agenda += needed
                continue
            _require_valid(parser, name)
            known.update(parser.definitions)
            waiting.pop(name, None)
            done.add(name)
            agenda.pop()
    return known


def _named(parser: Parser, sources: Mapping[str, str]) -> list[str]:
    """Sources that a text names but has not in scope."""
    named = (full if full in sources else name for _, name, full in parser.unknown)
    return [item for item in dict.fromkeys(named) if item in sources]


def _require_valid(parser: Parser, name: str) -> None:
    """Raises Faulty when a source is no schema, or not one of the type that its name promises."""
    if parser.errors:
        raise Faulty(parser.errors, name)
    if name not in parser.definitions:
        message = "the text does not define a type of that full name, which is what a reference of Avro stands for"
        raise Faulty([Problem("", "", "name", message)], name)


def _cycle(name: str) -> Faulty:
    message = "the referenced texts need each other in a circle; define types that need each other in one text"
    return Faulty([Problem("", "", "type", message)], name)


def _read(schema_text: str, reference: str | None = None) -> Json:
    """The value of a schema's text. Raises Faulty."""
    try:
        schema_text.encode("utf-8")
        return text.read(schema_text)
    except UnicodeEncodeError:
        message = "not JSON: it holds half of a surrogate pair, which no UTF-8 text can hold"
    except text.TextError as error:
        message = f"not JSON: {error}"
    raise Faulty([Problem("", "", "", message)], reference)


def _steps(schema_text: str) -> int:
    """What the checks of defaults may take: in proportion to the text, so that no text takes long."""
    return _STEPS_MIN + _STEPS_PER_CHARACTER * len(schema_text)
