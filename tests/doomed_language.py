"""A schema language that ends the process that reads certain texts, or never ends: for worker processes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

from services.registry.domain.formats import Parsed
from services.registry.domain.formats.jsonschema import JsonSchema

ENDS_PROCESS = '{"title": "ends the process"}'
NEVER_ENDS = '{"title": "never ends"}'


class DoomedLanguage(JsonSchema):
    """JSON Schema, but for two texts."""

    def parse(self, schema_text: str, sources: Mapping[str, str], *, dialect: str = "") -> Parsed:
        """See JsonSchema.parse."""
        if schema_text == ENDS_PROCESS:
            os._exit(1)
        if schema_text == NEVER_ENDS:
            time.sleep(3600)
        return super().parse(schema_text, sources, dialect=dialect)
