"""Schema texts before the compiler sees them: which of the two forms, the limits, and the names of references."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

from google.protobuf.message import DecodeError

from llm_schema_registry.errors import InvalidSchema, Violation
from services.registry.domain.formats.protobuf.compiling import Files
from services.registry.domain.formats.protobuf.descriptors import FileDescriptorProto

DEPTH_MAX: Final = 64
"""Brackets of all kinds that are open at one place. protoc refuses 32 nested messages itself, and crashes on thousands
of nested brackets in an option's value."""

PATH_PART_BYTES_MAX: Final = 255
"""Bytes between two slashes of an import path: what file systems take (NAME_MAX of Linux, limits.h)."""

PATH_BYTES_MAX: Final = 2_048
"""Bytes of an import path: with those of the folder before it, less than file systems take (PATH_MAX, limits.h)."""

WELL_KNOWN: Final = "google/protobuf/"

# Strings, comments and brackets, as protoc's tokenizer tells them: a string ends with its line.
_TOKEN: Final = re.compile(
    r"""//[^\n]* | /\*.*?(?:\*/|\Z) | "(?:[^"\\\n]|\\[^\n])*"? | '(?:[^'\\\n]|\\[^\n])*'? | [{}\[\]()<>]""",
    re.DOTALL | re.VERBOSE,
)
_OPENING: Final[Mapping[str, str]] = {"}": "{", "]": "[", ")": "(", ">": "<"}
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SPACE: Final = str.maketrans("", "", " \t\r\n")


def files(schema_text: str, sources: Mapping[str, str]) -> Files:
    """What to compile for a text and the texts that it references. Raises InvalidSchema."""
    root = _free_name(schema_text, sources)
    texts: dict[str, str] = {}
    descriptors: dict[str, bytes] = {}
    for name, source in sources.items():
        fault = _name_fault(name, sources)
        if fault:
            raise invalid_reference(name, fault)
        _read(name, source, texts, descriptors, reference=True)
    _read(root, schema_text, texts, descriptors, reference=False)
    return Files(root, texts, descriptors)


def invalid(*faults: str) -> InvalidSchema:
    """The error for a text that is no schema, naming every place."""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return InvalidSchema(
        f"the text is not a valid Protobuf schema: {faults[0]}{more}",
        violations=[Violation("text", fault) for fault in faults],
    )


def invalid_reference(name: str, fault: str) -> InvalidSchema:
    """The error for a reference that does not do."""
    message = f"the reference {name[:200]!r} does not do: {fault}"
    return InvalidSchema(message, violations=[Violation("references", message)])


def _free_name(schema_text: str, sources: Mapping[str, str]) -> str:
    """A name for the text that nothing else has or imports: it depends on all of them, so none can hold it."""
    digest = hashlib.sha256()
    for part in (schema_text, *sources, *sources.values()):
        digest.update(part.encode("utf-8", "surrogatepass"))
    return f"schema-{digest.hexdigest()}.proto"


def _name_fault(name: str, sources: Mapping[str, str]) -> str:
    """What is wrong with a name as an import path; empty when nothing is."""
    parts = name.split("/")
    if not name or any(part in {"", ".", ".."} for part in parts):
        return "a name is an import path: not absolute, and without empty, `.` or `..` parts"
    if "\\" in name or any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "a name is an import path: without backslashes and control characters"
    try:
        if any(len(part.encode("utf-8")) > PATH_PART_BYTES_MAX for part in parts):
            return f"between two slashes of an import path there are at most {PATH_PART_BYTES_MAX} bytes"
        if len(name.encode("utf-8")) > PATH_BYTES_MAX:
            return f"an import path has at most {PATH_BYTES_MAX} bytes"
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which no path can hold"
    if name.startswith(WELL_KNOWN):
        return f"{WELL_KNOWN}* always means the well-known types of the server and needs no reference"
    above = next((other for other in sources if name.startswith(f"{other}/")), None)
    return "" if above is None else f"it lies below {above[:200]!r}, which is a file"


def _read(name: str, text: str, texts: dict[str, str], descriptors: dict[str, bytes], *, reference: bool) -> None:
    """Puts a text where it belongs. Raises InvalidSchema when it is neither form or beyond a limit."""
    try:
        fault = text_fault(text)
        blob = None if fault else _descriptor(name, text)
    except ValueError as error:
        fault = str(error)
    if fault:
        raise invalid_reference(name, fault) if reference else invalid(fault)
    if blob is None:
        texts[name] = text
    else:
        descriptors[name] = blob


def text_fault(text: str) -> str:
    """What a text breaks before it is read; empty when nothing."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which no UTF-8 text can hold"
    nul = text.find("\0")
    if nul >= 0:
        return f"line {text.count(chr(10), 0, nul) + 1}: a NUL character is not allowed"
    depth: Counter[str] = Counter()
    for found in _TOKEN.finditer(text):
        token = found[0]
        fault = ""
        if token in _OPENING:
            depth[_OPENING[token]] = max(0, depth[_OPENING[token]] - 1)
        elif len(token) == 1:
            depth[token] += 1
            fault = f"nested deeper than {DEPTH_MAX} brackets" if depth.total() > DEPTH_MAX else ""
        elif token.startswith("/*") and "/*" in token[2:]:  # The compiler would say so once for each.
            fault = "a block comment begins within a block comment"
        if fault:
            return f"line {text.count(chr(10), 0, found.start()) + 1}: {fault}"
    return ""


def _descriptor(name: str, text: str) -> bytes | None:
    """A text in the other form as a FileDescriptorProto of that name; None for .proto text.

    Source: the registry ecosystem passes a serialized FileDescriptorProto as standard base64 (RFC 4648, section 4).
    Raises ValueError for base64 of anything else.
    """
    packed = text.translate(_SPACE)
    if not packed or len(packed) % 4 or _BASE64.fullmatch(packed) is None:
        return None
    try:
        descriptor = FileDescriptorProto.FromString(base64.b64decode(packed, validate=True))
        named = bool(descriptor.ListFields())
    except (binascii.Error, DecodeError, UnicodeDecodeError):
        named = False
    if not named:
        raise ValueError("it looks like base64, but not of a serialized FileDescriptorProto; and it is no .proto text")
    descriptor.name = name
    return descriptor.SerializeToString()
