"""The client's channel against a small server: what it repeats, which deadline it sets, which ids it adds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient, service_config
from llm_schema_registry.client.service_config import ATTEMPTS_MAX, policy, services
from llm_schema_registry.registry.v1 import schema_service_pb2, subject_service_pb2, version_pb2

SCHEMAS = "llm_schema_registry.registry.v1.SchemaService"
SUBJECTS = "llm_schema_registry.registry.v1.SubjectService"

Answer = Callable[[int, Any, Any], Any]


@dataclass
class Scripted:
    """A server that answers as the test says, and remembers what it was sent."""

    answer: Answer
    requests: list[Any] = field(default_factory=list)
    remaining: list[float | None] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        self.remaining.append(context.time_remaining())
        self.metadata.append(dict(context.invocation_metadata()))
        answer = self.answer(len(self.requests), request, context)
        return await answer if asyncio.iscoroutine(answer) else answer


@asynccontextmanager
async def serving(scripted: Scripted) -> AsyncIterator[str]:
    """Address of the server, with the methods that the tests call."""

    def method(request: Any, response: Any) -> grpc.RpcMethodHandler[Any, Any]:
        return grpc.unary_unary_rpc_method_handler(
            scripted.handle,
            request_deserializer=request.FromString,
            response_serializer=response.SerializeToString,
        )

    server = grpc.aio.server()
    for service, handlers in {
        SCHEMAS: {"GetSchema": method(schema_service_pb2.GetSchemaRequest, schema_service_pb2.GetSchemaResponse)},
        SUBJECTS: {
            "DeleteSubject": method(
                subject_service_pb2.DeleteSubjectRequest, subject_service_pb2.DeleteSubjectResponse
            ),
            "UpdateVersion": method(
                subject_service_pb2.UpdateVersionRequest, subject_service_pb2.UpdateVersionResponse
            ),
        },
    }.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def unavailable(context: Any) -> None:
    await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")


async def test_a_read_is_repeated_until_it_succeeds() -> None:
    """UNAVAILABLE twice, then the answer: the caller sees the answer."""

    def answer(attempt: int, _: Any, context: Any) -> Any:
        return unavailable(context) if attempt < 3 else schema_service_pb2.GetSchemaResponse()

    scripted = Scripted(answer)
    async with serving(scripted) as target, RegistryClient(target) as client:
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1))

    assert len(scripted.requests) == 3


async def test_repeats_end() -> None:
    """Then the error comes, as the class that fits it."""
    scripted = Scripted(lambda _, __, context: unavailable(context))
    async with serving(scripted) as target, RegistryClient(target) as client:
        with pytest.raises(errors.NotServing, match="not now"):
            await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1))

    assert len(scripted.requests) == ATTEMPTS_MAX


async def test_a_mutation_is_repeated_under_one_request_id() -> None:
    """The helper gives the id, so the server can answer the repeat like the first attempt."""

    def answer(attempt: int, _: Any, context: Any) -> Any:
        return unavailable(context) if attempt == 1 else subject_service_pb2.DeleteSubjectResponse()

    scripted = Scripted(answer)
    request = subject_service_pb2.DeleteSubjectRequest(subject="orders")
    async with serving(scripted) as target, RegistryClient(target) as client:
        await client.call(client.subjects.DeleteSubject, request)
        await client.call(client.subjects.DeleteSubject, request)

    first, repeat, other = (sent.request_id for sent in scripted.requests)
    assert first == repeat != ""
    assert other not in ("", first)
    assert request.request_id == ""


async def test_a_request_id_of_the_caller_is_kept() -> None:
    """Who repeats by hand, after a restart of his own, needs the same id."""
    scripted = Scripted(lambda *_: subject_service_pb2.UpdateVersionResponse())
    request = subject_service_pb2.UpdateVersionRequest(version=version_pb2.Version(subject="a"), request_id="mine")
    async with serving(scripted) as target, RegistryClient(target) as client:
        await client.call(client.subjects.UpdateVersion, request)

    assert scripted.requests[0].request_id == "mine"


async def test_each_call_has_the_deadline_of_its_method() -> None:
    """Five seconds for GetSchema without a word of the caller; his own when he has one, also a longer one."""
    scripted = Scripted(lambda *_: schema_service_pb2.GetSchemaResponse())
    async with serving(scripted) as target, RegistryClient(target) as client:
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1))
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1), timeout_seconds=2)
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1), timeout_seconds=60)

    default, own, longer = scripted.remaining
    assert longer is not None
    assert longer > 50
    assert default is not None
    assert own is not None
    assert default == pytest.approx(5, abs=1)
    assert own == pytest.approx(2, abs=1)


async def test_a_client_may_have_a_timeout_of_its_own() -> None:
    """It holds for calls without one, instead of each method's default."""
    scripted = Scripted(lambda *_: schema_service_pb2.GetSchemaResponse())
    async with serving(scripted) as target, RegistryClient(target, timeout_seconds=60) as client:
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1))
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1), timeout_seconds=2)

    assert scripted.remaining == [pytest.approx(60, abs=5), pytest.approx(2, abs=1)]


async def test_a_deadline_that_passes_is_an_error_of_ours() -> None:
    """Deadline, not a class of the transport."""

    async def hang() -> None:
        await asyncio.Event().wait()

    scripted = Scripted(lambda *_: hang())
    async with serving(scripted) as target, RegistryClient(target) as client:
        with pytest.raises(errors.Deadline):
            await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1), timeout_seconds=0.2)


async def test_metadata_goes_with_every_call() -> None:
    """For credentials."""
    scripted = Scripted(lambda *_: schema_service_pb2.GetSchemaResponse())
    async with serving(scripted) as target, RegistryClient(target, metadata=[("x-team", "red")]) as client:
        await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1))

    assert scripted.metadata[0]["x-team"] == "red"


async def test_calls_are_spread_over_replicas() -> None:
    """Round robin: both get their share, as soon as both are connected."""
    one, two = (Scripted(lambda *_: schema_service_pb2.GetSchemaResponse()) for _ in range(2))
    async with serving(one) as first, serving(two) as second, RegistryClient([first, second]) as client:
        async with asyncio.timeout(30):
            while not (one.requests and two.requests):
                await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1))
        before = len(one.requests), len(two.requests)
        for _ in range(40):
            await client.call(client.schemas.GetSchema, schema_service_pb2.GetSchemaRequest(id=1))

    assert min(len(one.requests) - before[0], len(two.requests) - before[1]) >= 10


def test_the_service_config_follows_the_policies() -> None:
    """Every method is in it, with repeats exactly where the policy allows them, and without deadlines."""
    config = json.loads(service_config())

    found = {(each["name"][0]["service"], each["name"][0]["method"]): each for each in config["methodConfig"]}
    for service in services():
        for method in service.methods:
            rules = policy(method)
            entry = found.pop((service.full_name, method.name))
            assert ("retryPolicy" in entry) == rules.retryable
            assert "timeout" not in entry
    assert found == {}


def test_only_what_is_safe_is_repeated() -> None:
    """A method that mutates and is retryable carries a request id."""
    for service in services():
        for method in service.methods:
            mutates = len(policy(method).allowed_states) == 1
            if mutates and policy(method).retryable:
                assert "request_id" in method.input_type.fields_by_name, method.full_name
