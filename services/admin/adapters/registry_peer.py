"""The registry over gRPC, as a client calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from llm_schema_registry import errors
from llm_schema_registry.client.channel import Tls
from llm_schema_registry.client.registry import RegistryClient
from llm_schema_registry.registry.v1 import change_service_pb2 as changes_pb
from llm_schema_registry.registry.v1 import compatibility_pb2, schema_pb2
from llm_schema_registry.registry.v1 import compatibility_service_pb2 as compatibility
from llm_schema_registry.registry.v1 import schema_service_pb2 as schemas
from llm_schema_registry.registry.v1 import subject_service_pb2 as subjects
from llm_schema_registry.registry.v1 import validation_service_pb2 as validation
from services.admin.domain.system import REGISTRY
from services.admin.ports import Peers

AWAY = frozenset({"NOT_SERVING", "DEADLINE", "INTERNAL"})
"""Reasons of errors that no registry sent: the channel made them up."""


class RegistryPeer:
    """See Trial. Calls go to any replica, as those of other clients do."""

    def __init__(self, peers: Peers, tls: Tls | None, timeout_seconds: float) -> None:
        self._peers = peers
        self._tls = tls
        self._timeout_seconds = timeout_seconds

    async def health(self) -> bool:
        """See Trial."""
        stub: Any = health_pb2_grpc.HealthStub
        async with self._client() as client:
            answer = await client.call(stub(client.channel).Check, health_pb2.HealthCheckRequest())
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def subjects(self, prefix: str, *, limit: int) -> Sequence[tuple[str, datetime]]:
        """See Trial."""
        request = subjects.ListSubjectsRequest(name_prefix=prefix, include_deleted=True, page_size=limit)
        async with self._client() as client:
            answer = await client.call(client.subjects.ListSubjects, request)
        return [(each.name, each.update_time.ToDatetime(tzinfo=UTC)) for each in answer.subjects]

    async def register(self, subject: str, text: str) -> tuple[int, int]:
        """See Trial."""
        request = schemas.RegisterSchemaRequest(
            subject=subject, format=schema_pb2.SCHEMA_FORMAT_JSON, text=text, description="smoke test"
        )
        async with self._client() as client:
            version = (await client.call(client.schemas.RegisterSchema, request)).version
        return version.number, version.schema_id

    async def latest(self, subject: str) -> tuple[int, int]:
        """See Trial."""
        async with self._client() as client:
            answer = await client.call(
                client.subjects.GetVersion, subjects.GetVersionRequest(subject=subject, latest=True)
            )
        return answer.version.number, answer.version.schema_id

    async def text(self, schema_id: int) -> str:
        """See Trial."""
        async with self._client() as client:
            return (await client.call(client.schemas.GetSchema, schemas.GetSchemaRequest(id=schema_id))).schema.text

    async def version(self, subject: str, number: int) -> tuple[int, str]:
        """See Trial."""
        request = subjects.GetVersionRequest(subject=subject, number=number)
        async with self._client() as client:
            answer = await client.call(client.subjects.GetVersion, request)
        return answer.version.schema_id, answer.schema.text

    async def compatible(self, subject: str, text: str) -> bool:
        """See Trial."""
        request = compatibility.CheckCompatibilityRequest(
            subject=subject,
            format=schema_pb2.SCHEMA_FORMAT_JSON,
            text=text,
            level=compatibility_pb2.COMPATIBILITY_LEVEL_BACKWARD,
            policy=compatibility_pb2.COMPATIBILITY_POLICY_LENIENT,
        )
        async with self._client() as client:
            report = (await client.call(client.compatibility.CheckCompatibility, request)).report
        return report.verdict == compatibility_pb2.VERDICT_COMPATIBLE

    async def valid_schema(self, text: str) -> bool:
        """See Trial."""
        request = validation.ValidateSchemaRequest(format=schema_pb2.SCHEMA_FORMAT_JSON, text=text)
        async with self._client() as client:
            return (await client.call(client.validation.ValidateSchema, request)).valid

    async def valid_data(self, schema_id: int, data: str) -> bool:
        """See Trial."""
        request = validation.ValidateDataRequest(schema_id=schema_id, data=data.encode())
        async with self._client() as client:
            return (await client.call(client.validation.ValidateData, request)).valid

    async def now(self) -> str:
        """See Trial."""
        async with self._client() as client:
            request = changes_pb.WatchChangesRequest(now=True)
            async with aclosing(client.stream(client.changes.WatchChanges, request)) as answers:
                async for answer in answers:
                    return answer.resume_token
        raise errors.PeerFailed("the watch ended before it began")

    async def seen(self, token: str, subject: str) -> bool:
        """See Trial."""
        request = changes_pb.WatchChangesRequest(resume_token=token, subject_prefix=subject)
        async with self._client() as client, aclosing(client.stream(client.changes.WatchChanges, request)) as answers:
            async for answer in answers:
                if any(each.event.version_registered.version.subject == subject for each in answer.changes):
                    return True
        return False

    async def remove(self, subject: str) -> None:
        """See Trial."""
        async with self._client() as client:
            with suppress(errors.SubjectNotFound):
                await client.call(client.subjects.DeleteSubject, subjects.DeleteSubjectRequest(subject=subject))

    async def purge(self, subject: str) -> None:
        """See Trial."""
        async with self._client() as client:
            with suppress(errors.SubjectNotFound):
                await client.call(client.subjects.PurgeSubject, subjects.PurgeSubjectRequest(subject=subject))

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[RegistryClient]:
        """A client of the registry. Raises errors.PeerUnreachable when no replica answers."""
        addresses = [each.target for each in await self._peers.replicas(REGISTRY)]
        if not addresses:
            raise errors.PeerUnreachable("no replica of the registry is known (peers.registry)", retry_seconds=5)
        async with RegistryClient(addresses, tls=self._tls, timeout_seconds=self._timeout_seconds) as client:
            try:
                yield client
            except errors.Error as failed:
                away = failed.code in {errors.Code.UNAVAILABLE, errors.Code.DEADLINE_EXCEEDED}
                if not away or failed.reason not in AWAY:
                    raise
                raise errors.PeerUnreachable(
                    f"the registry at {', '.join(addresses)} does not answer: {failed.message}", retry_seconds=1
                ) from None
