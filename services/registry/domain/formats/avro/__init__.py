"""Avro: the whole schema language of specification 1.12, by a strict model of our own."""

from services.registry.domain.formats.avro.language import Avro

__all__ = ["Avro"]
