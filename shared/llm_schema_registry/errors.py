"""The one error family: raised by every layer, carried over the wire, raised again by the client.

An error has a code (canonical gRPC code), a reason (a name of `common/v1/error_reason.proto`, without its prefix), a
message that tells a stranger what to do next and holds no secret, metadata for programs, and, where a field of the
request is at fault, violations that name it. Standard library only: every layer may import this module.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

DOMAIN = "llm-schema-registry"
"""`google.rpc.ErrorInfo.domain` of every error of ours."""


class Code(enum.IntEnum):
    """Canonical status codes. Source: google/rpc/code.proto."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Violation:
    """One field at fault: its path in the request, and what is wrong and what is allowed."""

    field: str
    description: str


class Error(Exception):
    """The family's root. Raise a subclass; `code` and `reason` belong to the class.

    message: one sentence or two for a person.
    metadata: the message's variables, for programs; keys lower_snake_case.
    violations: the request's fields at fault, if any.
    retry_seconds: when a repeat may help; None when it cannot.
    """

    code: ClassVar[Code] = Code.INTERNAL
    reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        metadata: Mapping[str, str | int] | None = None,
        violations: Iterable[Violation] = (),
        retry_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.violations = tuple(violations)
        self.retry_seconds = retry_seconds

    def __str__(self) -> str:
        return self.message


class InvalidField(Error):
    """Fields of the request are at fault; `violations` names each and what is allowed."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_FIELD"

    @classmethod
    def of(cls, field: str, description: str) -> InvalidField:
        """An error about one field."""
        return cls(f"{field}: {description}", violations=[Violation(field, description)])


class InvalidSchema(Error):
    """The text is not a valid schema of its format."""

    code, reason = Code.INVALID_ARGUMENT, "INVALID_SCHEMA"


class RequestIdReused(Error):
    """The same request id was used before with another request."""

    code, reason = Code.INVALID_ARGUMENT, "REQUEST_ID_REUSED"


class UnsupportedFormat(Error):
    """This server does not read the schema format."""

    code, reason = Code.UNIMPLEMENTED, "UNSUPPORTED_FORMAT"


class SchemaNotFound(Error):
    """No schema has this id or fingerprint, or its content was purged."""

    code, reason = Code.NOT_FOUND, "SCHEMA_NOT_FOUND"


class SubjectNotFound(Error):
    """The subject does not exist or is deleted."""

    code, reason = Code.NOT_FOUND, "SUBJECT_NOT_FOUND"


class VersionNotFound(Error):
    """The subject has no such version, or it is deleted."""

    code, reason = Code.NOT_FOUND, "VERSION_NOT_FOUND"


class IncompatibleSchema(Error):
    """The candidate breaks a reader or writer that the subject's level protects."""

    code, reason = Code.FAILED_PRECONDITION, "INCOMPATIBLE_SCHEMA"


class IllegalTransition(Error):
    """The lifecycle has no such step."""

    code, reason = Code.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"


class VersionReferenced(Error):
    """Other versions still reference this one."""

    code, reason = Code.FAILED_PRECONDITION, "VERSION_REFERENCED"


class NotDeleted(Error):
    """Only what is deleted can be purged."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_DELETED"


class ReferenceNotFound(Error):
    """A reference names a version that does not exist or is deleted."""

    code, reason = Code.FAILED_PRECONDITION, "REFERENCE_NOT_FOUND"


class ReferenceCycle(Error):
    """The references lead back to the subject itself."""

    code, reason = Code.FAILED_PRECONDITION, "REFERENCE_CYCLE"


class ReferenceLimit(Error):
    """The references are deeper or more than the server follows."""

    code, reason = Code.FAILED_PRECONDITION, "REFERENCE_LIMIT"


class ReadOnly(Error):
    """The server is read-only."""

    code, reason = Code.FAILED_PRECONDITION, "READ_ONLY"


class LimitExceeded(Error):
    """A limit that the metadata names is reached."""

    code, reason = Code.FAILED_PRECONDITION, "LIMIT_EXCEEDED"


class IllegalState(Error):
    """A process cannot take this step from the state it is in."""

    code, reason = Code.FAILED_PRECONDITION, "ILLEGAL_STATE"


class EtagMismatch(Error):
    """The object changed since its etag was read."""

    code, reason = Code.ABORTED, "ETAG_MISMATCH"


class Conflict(Error):
    """Other writers changed the subject during every attempt."""

    code, reason = Code.ABORTED, "CONFLICT"


class WatcherTooSlow(Error):
    """The watcher read too slowly; it can resume from the last token that it read."""

    code, reason = Code.ABORTED, "WATCHER_TOO_SLOW"


class PositionExpired(Error):
    """The changes after this position are no longer kept."""

    code, reason = Code.OUT_OF_RANGE, "POSITION_EXPIRED"


class PositionUnknown(Error):
    """The position has not been reached in this epoch."""

    code, reason = Code.OUT_OF_RANGE, "POSITION_UNKNOWN"


class EpochChanged(Error):
    """A restore began a new epoch: resync."""

    code, reason = Code.FAILED_PRECONDITION, "EPOCH_CHANGED"


class NotServing(Error):
    """The process is starting, draining or in maintenance."""

    code, reason = Code.UNAVAILABLE, "NOT_SERVING"


class DatabaseUnavailable(Error):
    """The database cannot be reached."""

    code, reason = Code.UNAVAILABLE, "DATABASE_UNAVAILABLE"


class PoolExhausted(Error):
    """No database connection became free in time."""

    code, reason = Code.UNAVAILABLE, "POOL_EXHAUSTED"


class WritesFenced(Error):
    """Writes are fenced while a restore is activated."""

    code, reason = Code.UNAVAILABLE, "WRITES_FENCED"


class Deadline(Error):
    """The work did not fit into the deadline, or could not have."""

    code, reason = Code.DEADLINE_EXCEEDED, "DEADLINE"


class MessageTooLarge(Error):
    """The request or the answer is larger than the limit in the metadata."""

    code, reason = Code.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE"


class Overloaded(Error):
    """Too many calls or streams are open."""

    code, reason = Code.RESOURCE_EXHAUSTED, "OVERLOADED"


class CredentialInvalid(Error):
    """No credential, or one that is not valid."""

    code, reason = Code.UNAUTHENTICATED, "CREDENTIAL_INVALID"


class RoleRequired(Error):
    """The caller's role is below the method's."""

    code, reason = Code.PERMISSION_DENIED, "ROLE_REQUIRED"


class OperationNotFound(Error):
    """No operation has this name, or it was forgotten."""

    code, reason = Code.NOT_FOUND, "OPERATION_NOT_FOUND"


class BackupNotFound(Error):
    """No backup has this id, or it was deleted."""

    code, reason = Code.NOT_FOUND, "BACKUP_NOT_FOUND"


class RestoreNotFound(Error):
    """No restore has this id, or it was released."""

    code, reason = Code.NOT_FOUND, "RESTORE_NOT_FOUND"


class OperationRunning(Error):
    """Another operation that excludes this one runs; the metadata names it."""

    code, reason = Code.ABORTED, "OPERATION_RUNNING"


class OperationCancelled(Error):
    """The operation was cancelled, by its caller or by the end of the process that ran it."""

    code, reason = Code.CANCELLED, "OPERATION_CANCELLED"


class LeaseLost(Error):
    """Another process took over while this one was away: what it was about to commit is void."""

    code, reason = Code.ABORTED, "LEASE_LOST"


class BackupFailed(Error):
    """A backup could not be made; nothing of it counts."""

    code, reason = Code.FAILED_PRECONDITION, "BACKUP_FAILED"


class BackupDamaged(Error):
    """What is stored of a backup or the archive is not what was written; the message names the object and place."""

    code, reason = Code.DATA_LOSS, "BACKUP_DAMAGED"


class BackupProtected(Error):
    """The backup must not be deleted: it is pinned, locked, or among those that are always kept."""

    code, reason = Code.FAILED_PRECONDITION, "BACKUP_PROTECTED"


class KeyUnavailable(Error):
    """No key that is at hand opens the data, or a key that must be there is not."""

    code, reason = Code.FAILED_PRECONDITION, "KEY_UNAVAILABLE"


class TargetUnreachable(Error):
    """No backup and archive lead to the restore's target; the metadata says what can be reached."""

    code, reason = Code.OUT_OF_RANGE, "TARGET_UNREACHABLE"


class LossWindowChanged(Error):
    """More would be lost than was confirmed; the metadata holds the present window."""

    code, reason = Code.ABORTED, "LOSS_WINDOW_CHANGED"


class RestoreFailed(Error):
    """A restore could not be prepared or activated; what served before still serves."""

    code, reason = Code.FAILED_PRECONDITION, "RESTORE_FAILED"


class ToolMismatch(Error):
    """PostgreSQL's client programs at hand do not fit the server; the message names both versions."""

    code, reason = Code.FAILED_PRECONDITION, "TOOL_MISMATCH"


class DatabaseUnfit(Error):
    """The database cannot be used for this: a right, room, an extension or an encoding is missing."""

    code, reason = Code.FAILED_PRECONDITION, "DATABASE_UNFIT"


class WrongCluster(Error):
    """The store and the database belong to different registries."""

    code, reason = Code.FAILED_PRECONDITION, "WRONG_CLUSTER"


class ObjectStoreUnavailable(Error):
    """The object store cannot be reached."""

    code, reason = Code.UNAVAILABLE, "OBJECT_STORE_UNAVAILABLE"


class ObjectStoreDenied(Error):
    """The object store refuses: credentials, the bucket, or its quota."""

    code, reason = Code.FAILED_PRECONDITION, "OBJECT_STORE_DENIED"


class RecoveryNotFound(Error):
    """No recovery has this id."""

    code, reason = Code.NOT_FOUND, "RECOVERY_NOT_FOUND"


class RecoveryStopped(Error):
    """A step of a recovery failed; the recovery stands still and can be resumed or aborted."""

    code, reason = Code.FAILED_PRECONDITION, "RECOVERY_STOPPED"


class PeerUnreachable(Error):
    """Another process of the system, which the metadata names, cannot be reached."""

    code, reason = Code.UNAVAILABLE, "PEER_UNREACHABLE"


class PeerFailed(Error):
    """Another process of the system did not do what it was asked."""

    code, reason = Code.FAILED_PRECONDITION, "PEER_FAILED"


class MethodUnknown(Error):
    """The server has no such method."""

    code, reason = Code.UNIMPLEMENTED, "METHOD_UNKNOWN"


class Internal(Error):
    """A defect of the server; the metadata holds the id under which its log has the details."""

    code, reason = Code.INTERNAL, "INTERNAL"


def family() -> Iterator[type[Error]]:
    """Every class that may travel on the wire, in the order of its definition."""
    yield from Error.__subclasses__()


def by_reason(reason: str) -> type[Error] | None:
    """The class of a reason; None for one that a newer server knows and this code does not."""
    return next((cls for cls in family() if cls.reason == reason), None)
