"""Checks texts by their format's rules, and data by a schema's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llm_schema_registry.errors import InvalidField, InvalidSchema, SchemaNotFound
from services.registry.domain.formats import DataRules, Encoding, Problem, Validation
from services.registry.domain.limits import SCHEMA_ID_MAX
from services.registry.domain.model import Format, Reference, Schema
from services.registry.domain.settings import in_force
from services.registry.ports import Store
from services.registry.usecases.library import Library, offload
from services.registry.usecases.queries import Queries

FRAME_BYTES = 5
"""A zero byte and the schema's id. Source: Confluent, "Formats, Serializers, and Deserializers", wire format."""


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


@dataclass(frozen=True, slots=True)
class DataQuestion:
    """What data is checked against, and how.

    schema_id, or subject and number (None: the latest), or, for framed data alone, neither.
    rules: their assert_formats counts when `assert_formats` is True or False; None leaves it to the subject's settings.
    """

    schema_id: int | None
    subject: str | None
    number: int | None
    rules: DataRules
    assert_formats: bool | None


@dataclass(frozen=True, slots=True)
class DataTarget:
    """A question whose schema is known. schema: None when each payload names its own."""

    schema: Schema | None
    rules: DataRules


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found in a payload. schema_id: 0 when the payload does not tell it."""

    schema_id: int
    validation: Validation


class ValidateData:
    """Checks payloads against stored schemas."""

    def __init__(self, store: Store, queries: Queries, library: Library) -> None:
        self._store = store
        self._queries = queries
        self._library = library

    async def target(self, question: DataQuestion) -> DataTarget:
        """The schema that a question names. Raises SchemaNotFound, SubjectNotFound, VersionNotFound."""
        rules = replace(question.rules, assert_formats=bool(question.assert_formats))
        if question.schema_id is not None:
            return DataTarget(await self._queries.schema(question.schema_id), rules)
        if question.subject is None:
            return DataTarget(None, rules)
        _, schema = await self._queries.version(question.subject, question.number, include_deleted=False)
        if question.assert_formats is None:
            basis = await self._store.basis(question.subject)
            rules = replace(rules, assert_formats=bool(in_force(basis.own, basis.general).assert_formats))
        return DataTarget(schema, rules)

    async def check(self, target: DataTarget, data: bytes) -> Checked:
        """Where a payload does not follow its schema.

        Raises InvalidField when it cannot be read, or does not fit the target; SchemaNotFound for the id in a frame;
        and what Library.check raises.
        """
        schema, body = target.schema, data
        if target.rules.encoding is Encoding.FRAMED:
            schema_id, body = _unframed(data)
            _require_expected(schema, schema_id)
            schema = schema or await self._queries.schema(schema_id)
        assert schema is not None, "only framed data may be checked without naming a schema"
        return Checked(schema.id, await self._library.check(schema, body, target.rules))

    async def check_all(self, target: DataTarget, payloads: Sequence[bytes]) -> list[Checked]:
        """For each payload where it does not follow its schema; what `check` raises about a payload is a problem here.

        Raises UnsupportedFormat, LimitExceeded, Overloaded, and InvalidField when a rule does not fit the schema.
        """
        if target.rules.encoding is not Encoding.FRAMED:
            assert target.schema is not None, "only framed data may be checked without naming a schema"
            found = await self._library.check_all(target.schema, payloads, target.rules)
            fine = Checked(target.schema.id, Validation(()))  # One for all: most payloads are valid.
            return [Checked(target.schema.id, each) if each.problems else fine for each in found]
        checked: dict[int, Checked] = {}
        bodies: dict[int, list[tuple[int, bytes]]] = {}
        for index, payload in enumerate(payloads):
            try:
                schema_id, body = _unframed(payload)
                _require_expected(target.schema, schema_id)
            except InvalidField as error:
                checked[index] = Checked(0, _refused(error.violations[0].description))
            else:
                bodies.setdefault(schema_id, []).append((index, body))
        for schema_id, numbered in bodies.items():
            found = await self._check_frames(target, schema_id, [body for _, body in numbered])
            for (index, _), validation in zip(numbered, found, strict=True):
                checked[index] = Checked(schema_id, validation)
        return [checked[index] for index in range(len(payloads))]

    async def _check_frames(self, target: DataTarget, schema_id: int, bodies: Sequence[bytes]) -> list[Validation]:
        """Bodies of frames that name one schema."""
        try:
            schema = target.schema or await self._queries.schema(schema_id)
        except SchemaNotFound as error:
            return [_refused(error.message)] * len(bodies)
        return await self._library.check_all(schema, bodies, target.rules)


def _unframed(data: bytes) -> tuple[int, bytes]:
    """The schema id of a frame and what follows it. Raises InvalidField."""
    if len(data) < FRAME_BYTES or data[0] != 0:
        raise InvalidField.of("data", "must begin with a zero byte and the four bytes of a schema id")
    schema_id = int.from_bytes(data[1:FRAME_BYTES], "big")
    if not 0 < schema_id <= SCHEMA_ID_MAX:
        raise InvalidField.of("data", f"names schema id {schema_id} in its frame; ids are 1 to {SCHEMA_ID_MAX}")
    return schema_id, data[FRAME_BYTES:]


def _require_expected(schema: Schema | None, schema_id: int) -> None:
    """Raises InvalidField when a frame names another schema than the caller."""
    if schema is not None and schema.id != schema_id:
        raise InvalidField.of("data", f"names schema id {schema_id} in its frame; the request names {schema.id}")


def _refused(description: str) -> Validation:
    return Validation((Problem("", "", "", description),))


def _problem(field: str, description: str) -> Problem:
    """A violation of `text/...` as a problem at a place in the text."""
    return Problem(field.removeprefix("text"), "", "", description)
