"""errors.Error as google.rpc.Status, the form in which it travels.

Source: AIP-193 (https://google.aip.dev/193): one ErrorInfo, BadRequest where fields are at fault, RetryInfo where a
repeat may help. The status travels in the trailing metadata, which clients limit to 8 KiB by default, so it is cut to
STATUS_BYTES_MAX: first the last violations go, their number is told in the metadata, then texts are cut.
"""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from llm_schema_registry import errors

DETAILS_KEY = "grpc-status-details-bin"
STATUS_BYTES_MAX = 4096
TEXT_CHARACTERS_MAX = 1024
"""Longest message, description or metadata value; what is longer ends in an ellipsis."""
TEXT_CHARACTERS_MIN = 32
"""Texts are never cut below this length."""
LINE_BYTES_MAX = 1024

CODES = {code: grpc_code for grpc_code in grpc.StatusCode for code in [grpc_code.value[0]]}
"""grpc's status codes by their numbers."""


def encode(error: errors.Error) -> status_pb2.Status:
    """The error as a status of at most STATUS_BYTES_MAX bytes."""
    kept, characters = len(error.violations), TEXT_CHARACTERS_MAX
    while True:
        status = _status(error, kept, characters)
        if status.ByteSize() <= STATUS_BYTES_MAX or characters < TEXT_CHARACTERS_MIN:
            return status
        if kept:
            kept //= 2
        else:
            characters //= 2


def line(message: str) -> str:
    """The message for the `grpc-message` trailer: at most LINE_BYTES_MAX once it is percent-encoded."""
    used = 0
    for position, character in enumerate(message):
        printable = " " <= character <= "~" and character != "%"
        used += 1 if printable else 3 * len(character.encode("utf-8", "replace"))
        if used > LINE_BYTES_MAX:
            return message[:position] + "..."
    return message


def _status(error: errors.Error, kept: int, characters: int) -> status_pb2.Status:
    metadata = {key: _cut(value, characters) for key, value in error.metadata.items()}
    if kept < len(error.violations):
        metadata["violations_omitted"] = str(len(error.violations) - kept)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=errors.DOMAIN, metadata=metadata)
    details = [_packed(info)]
    if kept:
        request = error_details_pb2.BadRequest()
        for violation in error.violations[:kept]:
            request.field_violations.add(
                field=_cut(violation.field, characters), description=_cut(violation.description, characters)
            )
        details.append(_packed(request))
    if error.retry_seconds is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_seconds * 1e9))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=int(error.code), message=_cut(error.message, characters), details=details)


def _packed(
    detail: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(detail)
    return packed


def _cut(text: str, characters: int) -> str:
    """At most so many characters, and nothing that UTF-8 cannot hold."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= characters else text[: characters - 1] + "…"
