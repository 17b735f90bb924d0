"""The last word on a witness: both schemas, compiled as for validating data, and the assumptions in force."""

from __future__ import annotations

import json
from itertools import islice
from typing import Final

import jsonschema_rs

from llm_schema_registry.errors import InvalidField
from services.registry.domain.evolution.policy import Rules
from services.registry.domain.formats import Parsed, json_data, json_text
from services.registry.domain.formats.json_data import Data
from services.registry.domain.formats.jsonschema import compiling
from services.registry.domain.formats.jsonschema.exact.check import Checker, Unknown
from services.registry.domain.formats.jsonschema.exact.closing import Closing
from services.registry.domain.formats.jsonschema.exact.document import Node
from services.registry.domain.formats.jsonschema.exact.filling import Filling

ASKED_MAX: Final = 1_500
"""Instances judged in one comparison."""
WITNESS_BYTES_MAX: Final = 64 << 10
ERRORS_MAX: Final = 20


class Judge:
    """Says whether an instance is a witness."""

    def __init__(self, reader: Parsed, writer: Parsed, rules: Rules, nodes: tuple[Node, Node]) -> None:
        self._parsed = reader, writer
        self._rules = rules
        self._reader_node, self._writer_node = nodes
        self._reader: jsonschema_rs.Validator | None = None
        self._writer: jsonschema_rs.Validator | None = None
        self._left = ASKED_MAX
        self._filling = Filling()
        self._checker = Checker()
        self._closing = Closing(self._writer_node.document)

    def rejection(self, value: Data) -> tuple[str, list[jsonschema_rs.ValidationError]] | None:
        """The instance as JSON and why the reader rejects it; None when it is no witness."""
        self._left -= 1
        if self._left < 0:
            return None
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            encoded = text.encode("utf-8")
            read = json_data.read(encoded, unique_names=True)
        except (ValueError, InvalidField):
            return None
        self._writer = self._writer or self._compiled(self._parsed[1])
        if len(encoded) > WITNESS_BYTES_MAX or not self._writer.is_valid(read):
            return None
        errors = self._rejected(read)
        return (text, errors) if errors and self._obeys(read) else None

    def _compiled(self, parsed: Parsed) -> jsonschema_rs.Validator:
        return compiling.compiled(
            parsed.text,
            json_text.read(parsed.text),
            parsed.dialect,
            parsed.sources,
            assert_formats=self._rules.assert_formats,
        )

    def _obeys(self, value: Data) -> bool:
        """Whether a writer writes such data under the assumptions."""
        if not self._rules.declared_properties_only:
            return True
        try:
            return self._closing.obeys(value, self._checker)
        except Unknown:
            return False

    def _rejected(self, value: Data) -> list[jsonschema_rs.ValidationError]:
        """Why the reader rejects it under the assumptions."""
        self._reader = self._reader or self._compiled(self._parsed[0])
        if self._reader.is_valid(value):
            return []
        if self._rules.reader_fills_defaults:
            filled = self._filling.filled(self._reader_node, value)
            return list(islice(self._reader.iter_errors(filled), ERRORS_MAX))
        return list(islice(self._reader.iter_errors(value), ERRORS_MAX))
