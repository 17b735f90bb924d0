"""Errors of calls and inside answers as the classes that they stand for, and who sent them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_service_pb2
from llm_schema_registry.client import BackupClient, RegistryClient, error_of, transport_words
from llm_schema_registry.common.v1 import failure_pb2
from llm_schema_registry.registry.v1 import subject_service_pb2


@pytest.mark.parametrize(("reason", "kind"), [("OVERLOADED", errors.Overloaded), ("OF_TOMORROW", errors.Error)])
def test_failures_are_errors(reason: str, kind: type[errors.Error]) -> None:
    """A failure inside a stream is the error that a call would raise, also one with a reason of a newer service."""
    violations = [failure_pb2.FieldViolation(field="text", description="too long")]
    failure = failure_pb2.Failure(
        code=errors.Code.RESOURCE_EXHAUSTED,
        reason=reason,
        message="Too much.",
        metadata={"a": "b"},
        violations=violations,
    )

    error = error_of(failure)

    assert type(error) is kind
    assert (error.reason, error.code, error.message) == (reason, errors.Code.RESOURCE_EXHAUSTED, "Too much.")
    assert (error.metadata, error.violations) == ({"a": "b"}, (errors.Violation("text", "too long"),))


def test_a_failure_with_a_code_that_is_none() -> None:
    """A code that no canonical code has is UNKNOWN, not a crash."""
    error = error_of(failure_pb2.Failure(code=99, reason="OF_TOMORROW", message="?"))

    assert error.code is errors.Code.UNKNOWN


async def test_the_transport_says_its_words(free_port: Callable[[], int]) -> None:
    """An error that no service sent holds what gRPC said of the connection."""
    async with BackupClient(f"127.0.0.1:{free_port()}") as client:
        with pytest.raises(errors.NotServing) as caught:
            await client.call(client.backups.ListBackups, backup_service_pb2.ListBackupsRequest())

    assert "Connection refused" in (transport_words(caught.value) or "")


async def test_a_service_of_ours_has_no_words_of_the_transport(client: RegistryClient) -> None:
    """An error that a service sent is told apart."""
    with pytest.raises(errors.SubjectNotFound) as caught:
        await client.call(client.subjects.GetSubject, subject_service_pb2.GetSubjectRequest(subject="nobody-has-it"))

    assert transport_words(caught.value) is None
