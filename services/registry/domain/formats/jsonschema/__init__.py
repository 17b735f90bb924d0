"""JSON Schema: drafts 4, 6, 7, 2019-09 and 2020-12, by jsonschema-rs, never with a network."""

from services.registry.domain.formats.jsonschema.language import JsonSchema

__all__ = ["JsonSchema"]
