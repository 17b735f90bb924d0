"""Short forms of the calls that most tests of the registry make, over a real channel."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

import grpc.aio
import pytest_asyncio

from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import (
    change_pb2,
    change_service_pb2,
    compatibility_pb2,
    schema_pb2,
    schema_service_pb2,
    subject_pb2,
    subject_service_pb2,
    version_pb2,
)

if TYPE_CHECKING:  # Imported at run time, it would be there before pytest could register it as a plugin.
    from tests.fix_service import Service

Request = TypeVar("Request")
Answer = TypeVar("Answer")

NONE = compatibility_pb2.COMPATIBILITY_LEVEL_NONE


class Registry:
    """A client with the calls that tests repeat."""

    def __init__(self, client: RegistryClient) -> None:
        self.client = client
        self.schemas = client.schemas
        self.subjects = client.subjects
        self.compatibility = client.compatibility
        self.validation = client.validation
        self.changes = client.changes

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request, **options: Any
    ) -> Answer:
        """The answer. Raises the server's error."""
        return await self.client.call(method, request, **options)

    async def register(self, subject: str, schema: object, **fields: Any) -> schema_service_pb2.RegisterSchemaResponse:
        """Registers a schema, JSON Schema unless told otherwise: text, or a value that becomes text."""
        text = schema if isinstance(schema, str) else json.dumps(schema)
        given: dict[str, Any] = {"format": schema_pb2.SCHEMA_FORMAT_JSON, "subject": subject, "text": text} | fields
        request = schema_service_pb2.RegisterSchemaRequest(**given)
        return await self.call(self.schemas.RegisterSchema, request)

    async def level(self, subject: str, level: compatibility_pb2.CompatibilityLevel.ValueType = NONE) -> None:
        """Sets a subject's level."""
        config = subject_pb2.Config(compatibility_level=level)
        await self.call(
            self.subjects.UpdateConfig, subject_service_pb2.UpdateConfigRequest(subject=subject, config=config)
        )

    async def versions(self, subject: str, count: int) -> list[version_pb2.Version]:
        """Registers `count` different schemas under a subject with level NONE."""
        await self.level(subject)
        made = [await self.register(subject, {"title": subject, "maximum": number}) for number in range(1, count + 1)]
        return [answer.version for answer in made]

    async def version(self, subject: str, number: int) -> version_pb2.Version:
        """A version, also a deleted one."""
        request = subject_service_pb2.GetVersionRequest(subject=subject, number=number, include_deleted=True)
        return (await self.call(self.subjects.GetVersion, request)).version

    async def delete(self, subject: str, number: int) -> version_pb2.Version:
        """Deletes a version."""
        request = subject_service_pb2.DeleteVersionRequest(subject=subject, number=number)
        return (await self.call(self.subjects.DeleteVersion, request)).version

    async def purge(self, subject: str, number: int) -> list[int]:
        """Purges a version and returns the ids of the contents that are gone."""
        request = subject_service_pb2.PurgeVersionRequest(subject=subject, number=number)
        return list((await self.call(self.subjects.PurgeVersion, request)).schema_ids)

    async def schema(self, schema_id: int) -> schema_pb2.Schema:
        """A content."""
        request = schema_service_pb2.GetSchemaRequest(id=schema_id)
        return (await self.call(self.schemas.GetSchema, request)).schema

    async def events(self, subject: str) -> list[change_pb2.ChangeEvent]:
        """What happened to a subject so far, in order."""
        request = change_service_pb2.ListChangesRequest(subject_prefix=subject, page_size=1000)
        answer = await self.call(self.changes.ListChanges, request)
        while answer.more:
            request.resume_token = answer.resume_token
            following = await self.call(self.changes.ListChanges, request)
            answer.changes.extend(following.changes)
            answer.more, answer.resume_token = following.more, following.resume_token
        return [change.event for change in answer.changes]


@pytest_asyncio.fixture
async def calls(registry: Service) -> AsyncIterator[Registry]:
    """Calls to the registry of the run."""
    async with RegistryClient(registry.target) as client:
        yield Registry(client)
