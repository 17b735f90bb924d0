"""Errors on the wire: what the kernel encodes, the client decodes."""

from __future__ import annotations

import urllib.parse
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry import errors
from llm_schema_registry.client.decode import from_rpc_error
from llm_schema_registry.common.v1 import error_reason_pb2
from llm_schema_registry.kernel.status import CODES, DETAILS_KEY, LINE_BYTES_MAX, STATUS_BYTES_MAX, encode, line

FAMILY = list(errors.family())


class Failed(grpc.RpcError):
    """A failed call as grpc gives it."""

    def __init__(self, code: Any, details: str, trailing: Any) -> None:
        super().__init__(details)
        self._code, self._details, self._trailing = code, details, trailing

    def code(self) -> Any:
        """The status code."""
        return self._code

    def details(self) -> str:
        """The status message."""
        return self._details

    def trailing_metadata(self) -> Any:
        """The trailer."""
        return self._trailing


def over_the_wire(error: errors.Error) -> errors.Error:
    """The error, encoded and decoded."""
    status = encode(error)
    trailing = ((DETAILS_KEY, status.SerializeToString()),)
    return from_rpc_error(Failed(CODES[status.code], status.message, trailing))


@pytest.mark.parametrize("cls", FAMILY)
def test_every_class_survives_the_wire(cls: type[errors.Error]) -> None:
    """Each class of the family comes back as itself with all it holds."""
    sent = cls(
        "what to do",
        metadata={"limit": 3},
        violations=[errors.Violation("text", "must be short")],
        retry_seconds=2.25,
    )

    received = over_the_wire(sent)

    assert type(received) is cls
    assert vars(received) == vars(sent)


@pytest.mark.parametrize("cls", FAMILY)
def test_every_reason_is_in_the_contract(cls: type[errors.Error]) -> None:
    """A class's reason is a value of error_reason.proto."""
    assert f"ERROR_REASON_{cls.reason}" in error_reason_pb2.ErrorReason.keys()  # noqa: SIM118 - an enum wrapper


@given(
    message=st.text(max_size=5000),
    count=st.integers(0, 300),
    description=st.text(max_size=300),
    value=st.text(max_size=2000),
)
def test_status_is_bounded(message: str, count: int, description: str, value: str) -> None:
    """Whatever an error holds, its status fits into a trailer and comes back as the same class."""
    violations = [errors.Violation(f"field_{number}", description) for number in range(count)]
    sent = errors.InvalidField(message, metadata={"value": value}, violations=violations)

    assert encode(sent).ByteSize() <= STATUS_BYTES_MAX
    received = over_the_wire(sent)
    assert type(received) is errors.InvalidField
    omitted = int(received.metadata.get("violations_omitted", 0))
    assert len(received.violations) + omitted == count


@given(st.text(max_size=3000))
def test_status_line_is_bounded(message: str) -> None:
    """The line of the trailer is short once it is percent-encoded, and a beginning of the message."""
    found = line(message)

    assert len(urllib.parse.quote(found.encode("utf-8", "replace"))) <= 3 * LINE_BYTES_MAX + 3
    assert found == message or message.startswith(found.removesuffix("..."))


def test_reason_of_a_newer_server() -> None:
    """A reason that this code does not know keeps the server's code, reason and message."""
    status = status_pb2.Status(code=int(errors.Code.ABORTED), message="new")
    info = error_details_pb2.ErrorInfo(reason="BRAND_NEW", domain=errors.DOMAIN, metadata={"a": "b"})
    status.details.add().Pack(info)

    received = from_rpc_error(Failed(grpc.StatusCode.ABORTED, "new", ((DETAILS_KEY, status.SerializeToString()),)))

    assert (received.code, received.reason, received.metadata) == (errors.Code.ABORTED, "BRAND_NEW", {"a": "b"})
    assert errors.Error.reason == "INTERNAL"


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.NotServing),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.Deadline),
        (grpc.StatusCode.UNIMPLEMENTED, errors.MethodUnknown),
        (grpc.StatusCode.UNAUTHENTICATED, errors.CredentialInvalid),
        (grpc.StatusCode.INTERNAL, errors.Error),
        (grpc.StatusCode.CANCELLED, errors.Error),
    ],
)
@pytest.mark.parametrize("trailing", [None, (), ((DETAILS_KEY, b"\xff"),), (("other", "x"),)])
def test_statuses_of_others(code: grpc.StatusCode, cls: type[errors.Error], trailing: Any) -> None:
    """A status without our details, from a proxy or the transport, becomes what fits its code."""
    received = from_rpc_error(Failed(code, "proxy", trailing))

    assert type(received) is cls
    assert int(received.code) == code.value[0]


def test_foreign_details_are_not_ours() -> None:
    """An ErrorInfo of another domain does not name our classes."""
    status = status_pb2.Status(code=5)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="SUBJECT_NOT_FOUND", domain="elsewhere"))

    received = from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, "x", ((DETAILS_KEY, status.SerializeToString()),)))

    assert type(received) is errors.Error
    assert received.reason == "NOT_FOUND"


def test_bare_rpc_error() -> None:
    """Even an error without any accessor is decoded."""
    assert from_rpc_error(grpc.RpcError()).code is errors.Code.UNKNOWN
