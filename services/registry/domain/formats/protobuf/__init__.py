"""Protobuf: proto2, proto3 and editions, by protoc and the library's own descriptors."""

from services.registry.domain.formats.protobuf.language import ParsedProtobuf, Protobuf

__all__ = ["ParsedProtobuf", "Protobuf"]
