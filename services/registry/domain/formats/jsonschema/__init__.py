"""JSON Schema: drafts 4, 6, 7, 2019-09 and 2020-12, by jsonschema-rs, never with a network."""

from services.registry.domain.formats.jsonschema.language import DRAFT_ADDRESSES, JsonSchema

__all__ = ["DRAFT_ADDRESSES", "JsonSchema"]
