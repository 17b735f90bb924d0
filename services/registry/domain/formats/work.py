"""Work on texts as plain functions, so that another process can do it: arguments and results can be pickled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from cachetools import LRUCache

from llm_schema_registry.errors import InvalidField
from services.registry.domain.evolution.policy import Rules
from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats import (
    DataRules,
    DataValidator,
    Difference,
    Parsed,
    Problem,
    SchemaFormat,
    Validation,
)

COMPILED_MAX = 32
"""Schemas that a worker keeps compiled."""

_compiled: LRUCache[tuple[bytes, bytes, DataRules], DataValidator] = LRUCache(COMPILED_MAX)


def parse(language: SchemaFormat, text: str, sources: Mapping[str, str], dialect: str) -> Parsed:
    """See SchemaFormat.parse."""
    return language.parse(text, sources, dialect=dialect)


def diff(
    language: SchemaFormat, pairs: Sequence[tuple[Parsed, Parsed]], rules: Rules, findings_max: int
) -> list[list[Finding]]:
    """See SchemaFormat.diff: for each pair of reader and writer at most `findings_max` findings that do harm."""
    return [list(islice(_harmful(language.diff(reader, writer, rules)), findings_max)) for reader, writer in pairs]


def differences(language: SchemaFormat, before: Parsed, after: Parsed) -> Sequence[Difference]:
    """See SchemaFormat.differences."""
    return language.differences(before, after)


def check(language: SchemaFormat, parsed: Parsed, key: bytes, data: bytes, rules: DataRules) -> Validation:
    """See DataValidator.check. key: the schema's identity, under which it is kept compiled here."""
    return _validator(language, parsed, key, rules).check(data)


def check_all(
    language: SchemaFormat, parsed: Parsed, key: bytes, payloads: Sequence[bytes], rules: DataRules
) -> list[Validation]:
    """See `read_and_check`, for each payload."""
    validator = _validator(language, parsed, key, rules)
    return [read_and_check(validator, payload) for payload in payloads]


def read_and_check(validator: DataValidator, data: bytes) -> Validation:
    """See DataValidator.check; data that cannot be read at all has a problem too."""
    try:
        return validator.check(data)
    except InvalidField as error:
        return Validation(tuple(Problem("", "", "", violation.description) for violation in error.violations))


def _harmful(findings: Iterable[Finding]) -> Iterator[Finding]:
    return (finding for finding in findings if finding.verdict is not Verdict.COMPATIBLE)


def _validator(language: SchemaFormat, parsed: Parsed, key: bytes, rules: DataRules) -> DataValidator:
    """The schema, compiled, from those that are kept."""
    known = (key, parsed.identity_body, rules)
    validator = _compiled.get(known)
    if validator is None:
        validator = _compiled[known] = language.validator(parsed, rules)
    return validator
