"""The JSON Schema format: parse, lint, diff and validation of data."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final
from urllib.parse import urljoin

import jsonschema_rs

from llm_schema_registry.errors import InvalidSchema, Violation
from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats import DataValidator, Parsed, Problem, Validation, json_data, json_text
from services.registry.domain.formats.jsonschema import cost
from services.registry.domain.formats.jsonschema.keywords import KNOWN, walk
from services.registry.domain.limits import VALIDATION_ERRORS_MAX
from services.registry.domain.model import Format

DRAFTS: Final[Mapping[str, type[jsonschema_rs.Validator]]] = {
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4Validator,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6Validator,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012Validator,
}
DRAFT_DEFAULT: Final = "https://json-schema.org/draft/2020-12/schema"
DRAFT_NUMBERS: Final[Mapping[str, int]] = {
    "http://json-schema.org/draft-04/schema": jsonschema_rs.Draft4,
    "http://json-schema.org/draft-06/schema": jsonschema_rs.Draft6,
    "http://json-schema.org/draft-07/schema": jsonschema_rs.Draft7,
    "https://json-schema.org/draft/2019-09/schema": jsonschema_rs.Draft201909,
    "https://json-schema.org/draft/2020-12/schema": jsonschema_rs.Draft202012,
}
PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=1 << 20)
"""The linear-time engine: no look-around and no back-references, and so no pattern that never ends."""

ANNOTATIONS: Final = ("title", "description")
_UNRESOLVED = re.compile(r"is not present in a registry and retrieving it failed: .*", re.DOTALL)


class JsonSchema:
    """JSON Schema behind the format protocol. Stateless."""

    def parse(self, schema_text: str, sources: Mapping[str, str]) -> Parsed:
        """The schema that a text holds. See SchemaFormat.parse."""
        value = _read(schema_text)
        draft = _draft(value)
        try:
            explosive = cost.may_refer(schema_text, sources) and cost.measure(
                value, {name: _read(source) for name, source in sources.items()}
            )
        except cost.TooCostly as error:
            raise InvalidSchema(f"the schema is refused: {error}") from None
        except ValueError as error:  # Of urllib: an address that none is.
            raise _invalid(Problem("", "", "", f"an address in it cannot be read: {str(error)[:200]}")) from None
        try:
            _compile(schema_text, value, sources, assert_formats=False)
        except InvalidSchema as error:
            raise _all_errors(value, draft) or error from None
        return Parsed(
            format=Format.JSON,
            text=schema_text,
            identity_body=json_text.compact(schema_text).encode("utf-8"),
            semantic_body=json_text.canonical_text(schema_text, value).encode("utf-8"),
            annotations=tuple(_annotations(schema_text, value)),
            sources=dict(sources),
            explosive=explosive,
        )

    def lint(self, parsed: Parsed) -> Sequence[Problem]:
        """Keywords that no draft knows: they are ignored by every validator, and often misspelt."""
        found = (
            _unknown(path, keyword)
            for path, schema in walk(json_text.read(parsed.text))
            for keyword in schema
            if keyword not in KNOWN and not keyword.startswith(("x-", "$comment"))
        )
        return tuple(islice(found, VALIDATION_ERRORS_MAX))

    def diff(self, reader: Parsed, writer: Parsed) -> Iterable[Finding]:
        """Nothing for the same meaning; otherwise one finding that says it is not decided."""
        if reader.semantic_body == writer.semantic_body and reader.sources == writer.sources:
            return
        yield Finding(
            rule="NOT_DECIDED",
            verdict=Verdict.UNDECIDED,
            message="the schemas differ, and it is not shown that the reader accepts everything the writer writes",
            remedy=(
                "register under level NONE once you have checked the change yourself, or under a new subject; "
                "changes of white space, member order or number notation alone are compatible"
            ),
        )

    def validator(self, parsed: Parsed, *, assert_formats: bool) -> DataValidator:
        """The schema, compiled for checking data."""
        return _Compiled(
            _compile(parsed.text, json_text.read(parsed.text), parsed.sources, assert_formats=assert_formats)
        )


class _Compiled:
    """A compiled schema. Safe to use from many tasks."""

    def __init__(self, validator: jsonschema_rs.Validator) -> None:
        self._validator = validator

    def check(self, data: bytes) -> Validation:
        """Where the data does not follow the schema. See DataValidator.check."""
        instance = json_data.read(data, unique_names=False)
        found = list(islice(self._validator.iter_errors(instance), VALIDATION_ERRORS_MAX + 1))
        problems = tuple(_problem(error) for error in found[:VALIDATION_ERRORS_MAX])
        return Validation(problems, truncated=len(found) > VALIDATION_ERRORS_MAX)


def _read(schema_text: str) -> json_text.Json:
    """The value of a schema's text. Raises InvalidSchema."""
    try:
        value = json_text.read(schema_text)
    except json_text.TextError as error:
        raise _invalid(Problem("", "", "", f"not JSON: {error}")) from None
    if not isinstance(value, dict | bool):
        raise _invalid(Problem("", "", "", "a JSON Schema is an object or a boolean"))
    return value


def _draft(schema: json_text.Json) -> str:
    """Address of the draft that the schema is written in.

    Decided before the library sees it: the library fetches a `$schema` that it does not know.
    """
    declared = schema.get("$schema", DRAFT_DEFAULT) if isinstance(schema, dict) else DRAFT_DEFAULT
    address = declared.removesuffix("#") if isinstance(declared, str) else ""
    if address not in DRAFTS:
        raise _invalid(Problem("/$schema", "", "$schema", f"must be one of {', '.join(sorted(DRAFTS))}"))
    return address


def _all_errors(schema: json_text.Json, draft: str) -> InvalidSchema | None:
    """The error with every place at which a text breaks its draft's meta-schema; None when it breaks it nowhere."""
    errors = islice(_meta_schema(draft).iter_errors(schema), VALIDATION_ERRORS_MAX)
    problems = [_problem(error, of_schema=True) for error in errors]
    return _invalid(*problems) if problems else None


@functools.lru_cache(maxsize=len(DRAFTS))
def _meta_schema(draft: str) -> jsonschema_rs.Validator:
    """The draft's meta-schema, which the library holds, as a validator."""
    fragment = "#" if draft.startswith("http:") else ""
    return DRAFTS[draft]({"$ref": draft + fragment}, offline=True, pattern_options=PATTERNS)


def _compile(
    schema_text: str, schema: json_text.Json, sources: Mapping[str, str], *, assert_formats: bool
) -> jsonschema_rs.Validator:
    """The library's validator. Raises InvalidSchema, for example for a `$ref` that leads nowhere."""
    draft = _draft(schema)
    base = schema.get("$id", schema.get("id", "")) if isinstance(schema, dict) else ""
    resources = []
    for name, source in sources.items():
        value = json.loads(source)
        resources += [(address, value) for address in {name, urljoin(base if isinstance(base, str) else "", name)}]
    try:
        registry = jsonschema_rs.Registry(resources, draft=DRAFT_NUMBERS[draft], retriever=_refuse_retrieval)
        return DRAFTS[draft](
            schema_text if isinstance(schema, dict) else schema is True,
            registry=registry if resources else None,
            validate_formats=assert_formats,
            pattern_options=PATTERNS,
            mask="the value",
            offline=True,
        )
    except jsonschema_rs.ValidationError as error:
        raise _invalid(_problem(error, of_schema=True)) from None
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        raise _invalid(Problem("", "", "", str(error)[:500])) from None


def _refuse_retrieval(uri: str) -> json_text.Json:
    raise ValueError(f"{uri} is not among the references, and nothing is ever fetched")


def _problem(error: jsonschema_rs.ValidationError, *, of_schema: bool = False) -> Problem:
    """An error of the library in our words."""
    message = _UNRESOLVED.sub("is not among the references, and nothing is ever fetched", error.message)
    if of_schema and error.kind.name == "format" and error.instance_path[-1:] == ["pattern"]:
        message = (
            "is no regular expression of the linear-time engine: look-around and back-references are not supported"
        )
    return Problem(
        instance_path=json_text.pointer(error.instance_path),
        schema_path="" if of_schema else json_text.pointer(error.schema_path),
        keyword=error.kind.name,
        message=message[:500],
    )


def _unknown(path: tuple[str | int, ...], keyword: str) -> Problem:
    near = difflib.get_close_matches(keyword, KNOWN, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    message = f"`{keyword[:100]}` is no keyword of any draft and has no effect{hint}"
    return Problem(json_text.pointer((*path, keyword)), "", keyword[:100], message)


def _annotations(schema_text: str, schema: json_text.Json) -> Iterable[str]:
    """Titles and descriptions anywhere in the schema."""
    if not any(f'"{keyword}"' in schema_text for keyword in ANNOTATIONS):
        return
    for _, item in walk(schema):
        for keyword in ANNOTATIONS:
            value = item.get(keyword)
            if isinstance(value, str):
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
