"""The backup service as a process of its own, beside a registry on the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from llm_schema_registry.backup.v1 import backup_service_pb2_grpc, restore_service_pb2_grpc
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.settings_sources import load
from llm_schema_registry.operation.v1 import operation_pb2, operation_service_pb2, operation_service_pb2_grpc
from llm_schema_registry.registry.v1 import schema_pb2, schema_service_pb2, schema_service_pb2_grpc
from services.backup.adapters.recipients import generate_key_file, generate_signing_key
from services.backup.assembly import Assembly, Setting, assemble
from services.backup.settings import BackupServiceSettings
from tests.fix_service import CONTROL_TOKEN, Service

WAIT_SECONDS_MAX = 110


class BackupCalls:
    """The services of a backup process, called over a channel; over one without TLS unless another is given.

    wait_seconds: for the end of an operation.
    """

    def __init__(
        self, target: str, channel: grpc.aio.Channel | None = None, *, wait_seconds: float = WAIT_SECONDS_MAX
    ) -> None:
        self._wait_seconds = wait_seconds
        self.channel = channel or grpc.aio.insecure_channel(target)
        self.backups = backup_service_pb2_grpc.BackupServiceStub(self.channel)
        self.restores = restore_service_pb2_grpc.RestoreServiceStub(self.channel)
        self.operations = operation_service_pb2_grpc.OperationServiceStub(self.channel)

    async def __aenter__(self) -> BackupCalls:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def ended(self, answer: Any) -> operation_pb2.Operation:
        """The operation of an answer, once it has ended, one way or the other."""
        request = operation_service_pb2.WatchOperationRequest(name=answer.operation.name)
        async for response in self.operations.WatchOperation(request, timeout=self._wait_seconds):
            if response.event.WhichOneof("event") == "ended":
                return response.event.ended
        raise AssertionError("the watch ended before the operation")

    async def done(self, answer: Any, result: Any) -> Any:
        """What the operation of an answer made, as a message of the result's kind."""
        operation = await self.ended(answer)
        assert not operation.HasField("error"), operation.error
        assert operation.response.Unpack(result), operation.response
        return result


MakeBackupService = Callable[..., Service]


@pytest.fixture
def backup_keys(tmp_path: Path) -> dict[str, object]:
    """Options of a backup service with a signing key and one recipient, made anew."""
    generate_signing_key(tmp_path / "signing.pem", tmp_path / "signing.pub")
    generate_key_file(tmp_path / "recipient.key")
    return {"backup__signing_key_path": tmp_path / "signing.pem", "backup__key_paths": tmp_path / "recipient.key"}


@pytest.fixture
def make_backup_service(
    tmp_path_factory: pytest.TempPathFactory, backup_keys: dict[str, object], tmp_path: Path
) -> Iterator[MakeBackupService]:
    """Makes backup processes: `make_backup_service(database_url, **options)`, not started yet.

    Without other options: a directory store and keys of the test's own, no schedules, an archive that seals
    every 0.2 s. options: `section__option=value`.
    """
    made: list[Service] = []

    def make(database_url: str, **options: object) -> Service:
        chosen = {"backup__directory": tmp_path / "store"} if "s3__bucket" not in options else {}
        environment = backup_environment(database_url, {**chosen, **backup_keys, **options})
        service = Service(tmp_path_factory.mktemp("backup"), environment, "backup")
        made.append(service)
        return service

    yield make
    for service in made:
        service.kill()


AssembleBackup = Callable[..., AbstractAsyncContextManager[Assembly]]


@pytest.fixture
def assemble_backup(backup_keys: dict[str, object], tmp_path: Path) -> AssembleBackup:
    """The parts of a backup service in this process, nothing of which runs by itself:
    `async with assemble_backup(database_url, **options) as parts`. Options as those of `make_backup_service`; without a
    database there is none to reach.
    """

    @asynccontextmanager
    async def assembled(
        database_url: str = "postgresql://nobody@127.0.0.1:1/none", **options: object
    ) -> AsyncIterator[Assembly]:
        chosen = {} if "s3__bucket" in options else {"backup__directory": tmp_path / "store"}
        environment = backup_environment(database_url, {**chosen, **backup_keys, **options})
        settings = load(BackupServiceSettings, environment).settings
        async with AsyncExitStack() as stack:
            parts = await assemble(Setting(settings, SystemClock(), "assembled", lambda *_, **__: None), stack)
            stack.push_async_callback(parts.operations.close, 0)
            yield parts

    return assembled


@pytest.fixture
def filled_registry(make_database: Any, make_service: Any) -> Service:
    """A running registry with some content, on a database of the test's own: `.environment` holds the URL."""
    registry = make_service(make_database())
    registry.start()
    fill(registry, "filled", 5)
    return registry  # type: ignore[no-any-return]


@pytest_asyncio.fixture
async def backup(filled_registry: Service, make_backup_service: MakeBackupService) -> AsyncIterator[BackupCalls]:
    """The services of a backup process beside a registry with some content."""
    service = make_backup_service(database_of(filled_registry))
    await service.start_async()
    async with BackupCalls(service.target) as calls:
        yield calls


def database_of(service: Service) -> str:
    """URL of the database that a process works on."""
    return service.environment["SCHEMA_REGISTRY__DATABASE__URL"]


def fill(registry: Service, stem: str, count: int) -> None:
    """Registers so many schemas under names that begin with a stem."""
    with BlockingSchemas(registry.target) as schemas:
        for number in range(count):
            schemas.register(f"{stem}-{number}", f'{{"title": "{stem} {number}", "type": "object"}}')


class BlockingSchemas:
    """SchemaService, called without an event loop."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target)
        self._stub = schema_service_pb2_grpc.SchemaServiceStub(self._channel)

    def __enter__(self) -> BlockingSchemas:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()

    def register(self, subject: str, text: str) -> int:
        """Registers a JSON Schema and returns its id."""
        request = schema_service_pb2.RegisterSchemaRequest(
            subject=subject, format=schema_pb2.SCHEMA_FORMAT_JSON, text=text
        )
        schema_id: int = self._stub.RegisterSchema(request, timeout=30).version.schema_id
        return schema_id


def backup_environment(database_url: str, options: dict[str, object]) -> dict[str, str]:
    """The options of a backup service on this machine, as environment variables."""
    chosen: dict[str, object] = {
        "server__local_mode": "true",
        "server__grpc_port": 0,
        "server__http_port": 0,
        "server__drain_seconds": 0,
        "server__grace_seconds": 5,
        "control__token": CONTROL_TOKEN,
        "database__url": database_url,
        "database__ssl_enabled": "false",
        "database__pool_min": 1,
        "database__pool_max": 5,
        "backup__schedules_enabled": "false",
        "archive__seal_seconds": 0.2,
        **options,
    }
    return {f"SCHEMA_REGISTRY__{key.upper()}": str(value) for key, value in chosen.items()}
