"""A call's status as the error that the server raised: the same class, message, metadata and violations."""

from __future__ import annotations

from typing import Any, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from llm_schema_registry import errors
from llm_schema_registry.common.v1 import failure_pb2

DETAILS_KEY = "grpc-status-details-bin"

_BARE: dict[errors.Code, type[errors.Error]] = {
    errors.Code.INVALID_ARGUMENT: errors.InvalidField,
    errors.Code.DEADLINE_EXCEEDED: errors.Deadline,
    errors.Code.PERMISSION_DENIED: errors.RoleRequired,
    errors.Code.RESOURCE_EXHAUSTED: errors.Overloaded,
    errors.Code.UNIMPLEMENTED: errors.MethodUnknown,
    errors.Code.UNAVAILABLE: errors.NotServing,
    errors.Code.UNAUTHENTICATED: errors.CredentialInvalid,
}
"""Classes for statuses that do not come from our servers: a proxy's, or the transport's own."""

_WORDS = "transport_words"
"""Set on errors that no service of ours sent, beside the fields of errors.Error: no other layer makes such errors."""

D = TypeVar("D", bound=Message)


def from_rpc_error(failed: grpc.RpcError) -> errors.Error:
    """The error behind a failed call; never raises.

    A reason that this code does not know, because the server is newer, becomes an errors.Error with the server's
    `code` and `reason` on the instance. A status without our details, from a proxy or the transport, becomes the class
    that fits its code, with the transport's words as its message; `transport_words` tells them apart. Works for
    grpc's blocking and asyncio errors.
    """
    code = errors.Code(failed.code().value[0]) if _has_code(failed) else errors.Code.UNKNOWN
    message = failed.details() or code.name if hasattr(failed, "details") else code.name
    status = _status(failed)
    info = None if status is None else _detail(status, error_details_pb2.ErrorInfo)
    if status is None or info is None or info.domain != errors.DOMAIN:
        error = _bare(code, message)
        error.__dict__[_WORDS] = f"{message} {_debug_text(failed)}"
        return error
    violations = _detail(status, error_details_pb2.BadRequest)
    retry = _detail(status, error_details_pb2.RetryInfo)
    cls = errors.by_reason(info.reason)
    error = (cls or errors.Error)(
        status.message or message,
        metadata=dict(info.metadata),
        violations=[
            errors.Violation(violation.field, violation.description)
            for violation in (violations.field_violations if violations else ())
        ],
        retry_seconds=retry.retry_delay.ToNanoseconds() / 1e9 if retry else None,
    )
    return error if cls else _named(error, code, info.reason)


def error_of(failure: failure_pb2.Failure) -> errors.Error:
    """The error that a failure inside an answer stands for, as `from_rpc_error` gives it for a call."""
    cls = errors.by_reason(failure.reason)
    error = (cls or errors.Error)(
        failure.message,
        metadata=dict(failure.metadata),
        violations=[errors.Violation(one.field, one.description) for one in failure.violations],
    )
    return error if cls else _named(error, _code(failure.code), failure.reason)


def transport_words(error: errors.Error) -> str | None:
    """What gRPC or a proxy said, at length, when no service of ours sent the error; None when one did."""
    words: str | None = error.__dict__.get(_WORDS)
    return words


def _code(number: int) -> errors.Code:
    """The canonical code; UNKNOWN for a number that is none."""
    try:
        return errors.Code(number)
    except ValueError:
        return errors.Code.UNKNOWN


def _has_code(failed: grpc.RpcError) -> bool:
    code = failed.code() if hasattr(failed, "code") else None
    return code is not None and code is not grpc.StatusCode.OK


def _debug_text(failed: grpc.RpcError) -> str:
    """gRPC's own account of a failed call; empty when it has none."""
    return str(failed.debug_error_string() or "") if hasattr(failed, "debug_error_string") else ""


def _status(failed: grpc.RpcError) -> status_pb2.Status | None:
    trailing: Any = failed.trailing_metadata() if hasattr(failed, "trailing_metadata") else None
    for key, value in trailing or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _detail(status: status_pb2.Status, kind: type[D]) -> D | None:
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    return None


def _bare(code: errors.Code, message: str) -> errors.Error:
    if code is errors.Code.RESOURCE_EXHAUSTED and "message larger than max" in message:
        return errors.MessageTooLarge(message)
    cls = _BARE.get(code)
    return cls(message) if cls else _named(errors.Error(message), code, code.name)


def _named(error: errors.Error, code: errors.Code, reason: str) -> errors.Error:
    """The error with the code and reason of the wire instead of its class's."""
    error.__dict__.update(code=code, reason=reason)
    return error
