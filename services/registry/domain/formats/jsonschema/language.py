"""The JSON Schema format: parse, lint, diff and validation of data."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final
from urllib.parse import quote

import jsonschema_rs

from llm_schema_registry.errors import InvalidField, InvalidSchema, Violation
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding
from services.registry.domain.formats import (
    DataRules,
    DataValidator,
    Difference,
    Encoding,
    Parsed,
    Problem,
    Validation,
    json_data,
    json_text,
)
from services.registry.domain.formats.jsonschema import compiling, cost, differences, exact, meaning, remarks
from services.registry.domain.formats.jsonschema import rules as registry_rules
from services.registry.domain.formats.jsonschema.compiling import DRAFTS, PATTERNS
from services.registry.domain.formats.jsonschema.keywords import held, pointer
from services.registry.domain.formats.jsonschema.undeclared import Undeclared
from services.registry.domain.limits import VALIDATION_ERRORS_MAX
from services.registry.domain.model import Format

DRAFT_DEFAULT: Final = "https://json-schema.org/draft/2020-12/schema"
DRAFT_ADDRESSES: Final[Mapping[str, str]] = {
    re.sub("[^0-9]*0?([0-9-]+)/schema", r"\1", address): address for address in DRAFTS
}
"""Addresses of the drafts by their short names: 4, 6, 7, 2019-09, 2020-12."""
PLACES_MAX: Final = 1_000
"""Pointers into its schema that a compiled schema keeps."""

ANNOTATIONS: Final = ("title", "description")
_ROOT: Final = "json-schema:///.root"
"""Where a schema stands for the library while a part of it is compiled. Names of sources resolve against it."""
_UNRESOLVED = re.compile(r"is not present in a registry and retrieving it failed: .*", re.DOTALL)


class JsonSchema:
    """JSON Schema behind the format protocol. Stateless."""

    apart: Final[Collection[str]] = ("diff",)

    def parse(self, schema_text: str, sources: Mapping[str, str], *, dialect: str = "") -> Parsed:
        """The schema that a text holds. See SchemaFormat.parse.

        A source that names no draft is read in that of the schema. A text read in another draft than DRAFT_DEFAULT
        though it does not say so is other content than the text alone: its identity begins with the draft.
        """
        value = _read(schema_text)
        draft = _draft(value, dialect)
        unsaid = draft != DRAFT_DEFAULT and not (isinstance(value, dict) and "$schema" in value)
        values = {name: _read(source) for name, source in sources.items()}
        try:
            explosive = cost.may_refer(schema_text, sources) and cost.measure(value, values, draft)
        except cost.TooCostly as error:
            raise InvalidSchema(f"the schema is refused: {error}") from None
        except ValueError as error:  # Of urllib: an address that is none.
            raise _invalid(Problem("", "", "", f"an address in it cannot be read: {str(error)[:200]}")) from None
        try:
            _compile(schema_text, value, draft, sources, assert_formats=False)
        except InvalidSchema as error:
            raise _all_errors(value, draft) or error from None
        return Parsed(
            format=Format.JSON,
            text=schema_text,
            identity_body=((draft if unsaid else "") + json_text.compact(schema_text)).encode("utf-8"),
            semantic_body=meaning.body(value, draft, values, spelled=schema_text),
            annotations=tuple(_annotations(schema_text, value)),
            sources=dict(sources),
            explosive=explosive,
            dialect=draft,
        )

    def lint(self, parsed: Parsed) -> Sequence[Problem]:
        """Keywords without effect in the schema's draft, often misspelt ones, and plain contradictions."""
        return tuple(islice(remarks.remarks(json_text.read(parsed.text), parsed.dialect), VALIDATION_ERRORS_MAX))

    def diff(self, reader: Parsed, writer: Parsed, rules: Rules) -> Iterable[Finding]:
        """Findings by the policy's rules; nothing for the same meaning. See SchemaFormat.diff."""
        if reader.semantic_body == writer.semantic_body:
            return ()
        if rules.policy is Policy.EXACT:
            return exact.findings(reader, writer, rules)
        return registry_rules.findings(reader, writer, rules.policy)

    def differences(self, before: Parsed, after: Parsed) -> Sequence[Difference]:
        """What changed, part by part. See SchemaFormat.differences."""
        return differences.differences(before, after)

    def validator(self, parsed: Parsed, rules: DataRules) -> DataValidator:
        """The schema, compiled for checking data. See SchemaFormat.validator."""
        if rules.encoding is Encoding.BINARY:
            raise InvalidField.of("encoding", "must be JSON or FRAMED: JSON Schema has no binary encoding")
        value = json_text.read(parsed.text)
        compiled = _compile(parsed.text, value, parsed.dialect, parsed.sources, assert_formats=rules.assert_formats)
        if not rules.strict:
            return _Compiled(compiled)
        sources = {name: json_text.read(source) for name, source in parsed.sources.items()}
        place = functools.partial(_compile_place, parsed, value, assert_formats=rules.assert_formats)
        return _Compiled(compiled, Undeclared(value, sources, parsed.dialect, place))


_VALID: Final = Validation(())


class _Compiled:
    """A compiled schema. Safe to use from many tasks."""

    def __init__(self, validator: jsonschema_rs.Validator, undeclared: Undeclared | None = None) -> None:
        self._validator = validator
        self._undeclared = undeclared
        self._places: dict[tuple[str | int, ...], str] = {}

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema. See DataValidator.check."""
        instance = json_data.read(data, unique_names=False)
        if self._undeclared is None and self._validator.is_valid(instance):  # Twice as fast as to look for errors.
            return _VALID
        errors = islice(self._validator.iter_errors(instance), VALIDATION_ERRORS_MAX + 1)
        found = [
            Problem(pointer(error.instance_path), self._place(error.schema_path), error.kind.name, error.message[:500])
            for error in errors
        ]
        if self._undeclared is not None and len(found) <= VALIDATION_ERRORS_MAX:
            found += islice(self._undeclared.problems(instance), VALIDATION_ERRORS_MAX + 1 - len(found))
        return Validation(tuple(found[:VALIDATION_ERRORS_MAX]), truncated=len(found) > VALIDATION_ERRORS_MAX)

    def _place(self, path: list[str | int]) -> str:
        """The pointer to a place in the schema, made once: the same few are asked for again and again."""
        key = tuple(path)
        place = self._places.get(key)
        if place is None:
            place = pointer(key)
            if len(self._places) < PLACES_MAX:
                self._places[key] = place
        return place


def _read(schema_text: str) -> json_text.Json:
    """The value of a schema's text. Raises InvalidSchema."""
    try:
        value = json_text.read(schema_text)
    except json_text.TextError as error:
        raise _invalid(Problem("", "", "", f"not JSON: {error}")) from None
    except ArithmeticError:  # Of decimal: an exponent of twenty digits.
        raise _invalid(Problem("", "", "", "not JSON: a number has an exponent beyond all limits")) from None
    if not isinstance(value, dict | bool):
        raise _invalid(Problem("", "", "", "a JSON Schema is an object or a boolean"))
    return value


def _draft(schema: json_text.Json, dialect: str) -> str:
    """Address of the draft that the schema is written in: its own, else `dialect`, else DRAFT_DEFAULT.

    Decided before the library sees it: the library fetches a `$schema` that it does not know.
    """
    assumed = dialect or DRAFT_DEFAULT
    declared = schema.get("$schema", assumed) if isinstance(schema, dict) else assumed
    address = declared.removesuffix("#") if isinstance(declared, str) else ""
    if address not in DRAFTS:
        raise _invalid(Problem("/$schema", "", "$schema", f"must be one of {', '.join(sorted(DRAFTS))}"))
    return address


def _all_errors(schema: json_text.Json, draft: str) -> InvalidSchema | None:
    """The error with every place at which a text breaks its draft's meta-schema; None when it breaks it nowhere."""
    errors = islice(_meta_schema(draft).iter_errors(schema), VALIDATION_ERRORS_MAX)
    problems = [_problem(error) for error in errors]
    return _invalid(*problems) if problems else None


@functools.lru_cache(maxsize=len(DRAFTS))
def _meta_schema(draft: str) -> jsonschema_rs.Validator:
    """The draft's meta-schema, which the library holds, as a validator."""
    fragment = "#" if draft.startswith("http:") else ""
    return DRAFTS[draft]({"$ref": draft + fragment}, offline=True, pattern_options=PATTERNS)


def _compile(
    schema_text: str, schema: json_text.Json, draft: str, sources: Mapping[str, str], *, assert_formats: bool
) -> jsonschema_rs.Validator:
    """The library's validator. Raises InvalidSchema, for example for a `$ref` that leads nowhere."""
    try:
        return compiling.compiled(schema_text, schema, draft, sources, assert_formats=assert_formats)
    except jsonschema_rs.ValidationError as error:
        raise _invalid(_problem(error)) from None
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise _invalid(Problem("", "", "", str(error)[:500])) from None


def _compile_place(
    parsed: Parsed, schema: json_text.Json, place: cost.Place, *, assert_formats: bool
) -> jsonschema_rs.Validator:
    """The library's validator of what stands at a place of a schema or of its sources.

    One that accepts everything where the library cannot make it out on its own.
    """
    address = place.document or _ROOT
    resources = [*compiling.resources(schema, parsed.dialect, parsed.sources), (_ROOT, json.loads(parsed.text))]
    try:
        return DRAFTS[parsed.dialect](
            {"$ref": f"{address}#{quote(pointer(place.path))}"},
            registry=compiling.registry(resources, parsed.dialect),
            validate_formats=assert_formats,
            pattern_options=PATTERNS,
            offline=True,
        )
    except (jsonschema_rs.ReferencingError, jsonschema_rs.ValidationError, ValueError):
        return jsonschema_rs.Draft202012Validator(True)


def _problem(error: jsonschema_rs.ValidationError) -> Problem:
    """An error of the library about a schema, in our words."""
    message = _UNRESOLVED.sub("is not among the references, and nothing is ever fetched", error.message)
    if error.kind.name == "format" and error.instance_path[-1:] == ["pattern"]:
        message = (
            "is no regular expression of the linear-time engine: look-around and back-references are not supported"
        )
    return Problem(pointer(error.instance_path), "", error.kind.name, message[:500])


def _annotations(schema_text: str, schema: json_text.Json) -> Iterable[str]:
    """Titles and descriptions anywhere in the schema."""
    if not any(f'"{keyword}"' in schema_text for keyword in ANNOTATIONS):
        return
    waiting = [schema] if isinstance(schema, dict) else []
    while waiting:
        item = waiting.pop()
        for keyword, value in item.items():
            if isinstance(value, dict | list):
                waiting.extend(held(keyword, value))
            elif keyword in ANNOTATIONS and isinstance(value, str):
                yield value


def _invalid(*problems: Problem) -> InvalidSchema:
    """The error for a text that is no schema, naming every place."""
    first = problems[0]
    place = f" at {first.instance_path}" if first.instance_path else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return InvalidSchema(
        f"the text is not a valid JSON Schema{place}: {first.message}{more}",
        violations=[Violation(f"text{problem.instance_path}", problem.message) for problem in problems],
    )
