"""The registry while its callers misbehave, and while the process itself is ended: nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import (
    change_service_pb2,
    schema_service_pb2,
    subject_service_pb2,
    validation_service_pb2,
)
from tests.fix_calls import Registry
from tests.fix_faults import Once, assert_history_whole, eventually, head_locked, once, registrations, waits_for_head
from tests.fix_service import MakeService, Service

Name = Callable[..., str]
MEBIBYTE = 1 << 20
PACKAGE = "/llm_schema_registry.registry.v1"
STOP_SECONDS_MAX = 15
"""Less than the grace below: whoever takes longer has waited for somebody who does not answer."""
LONG_GRACE = {"server__grace_seconds": 60, "server__shutdown_timeout_seconds": 70}
TEXT_BYTES = 200_000
WATCHERS = 8
SHARE_BYTES_MAX = 8 * MEBIBYTE
"""What a watcher that does not read may cost: what one connection's flow control holds, and the message behind it."""


@pytest.fixture
async def calls(registry: Service) -> AsyncIterator[Once]:
    """Calls to the registry of the run, tried once. The process is the same one afterwards."""
    pid = registry.pid
    async with once(registry) as calls:
        yield calls
        assert (await calls.register("faults/alive", {"title": "alive"})).version.number == 1
    assert registry.pid == pid


@pytest.mark.parametrize("size", [11 * MEBIBYTE, 20 * MEBIBYTE], ids=["refused by us", "refused by the engine"])
async def test_a_request_that_is_too_large(calls: Once, size: int) -> None:
    """It is refused with its size and the limit, and the connection goes on."""
    request = validation_service_pb2.ValidateDataRequest(schema_id=1, data=bytes(size))

    with pytest.raises(errors.MessageTooLarge) as caught:
        await calls.call(calls.validation.ValidateData, request)

    if size < 14 * MEBIBYTE:
        assert caught.value.metadata["limit_bytes"] == str(10 * MEBIBYTE)
        assert int(caught.value.metadata["size_bytes"]) > size


@pytest.mark.parametrize(
    ("method", "payload", "field"),
    [
        ("SchemaService/RegisterSchema", b"\x0a\x02\xff\xfe", "subject"),
        ("SchemaService/RegisterSchema", b"\x0a\x01s\x1a\x03{\xc3\x28", "text"),
        ("SubjectService/UpdateVersion", b"\x0a\x05\x0a\x01s\x32\x00\x0a\x04\x32\x02\xed\xa0", "version.owner"),
        ("SubjectService/GetVersion", b"\x0a\x7fcut", "request"),
    ],
    ids=["name", "text", "nested", "cut off"],
)
async def test_bytes_that_are_no_message(calls: Once, method: str, payload: bytes, field: str) -> None:
    """Malformed UTF-8 is refused naming the field; what is no message at all, as the request."""
    with pytest.raises(errors.InvalidField) as caught:
        await calls.raw(f"{PACKAGE}.{method}", payload)

    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("depth", [10_000, 100_000])
async def test_json_that_is_nested_too_deep(calls: Once, name: Name, depth: int) -> None:
    """A schema and data of absurd depth are refused as invalid, fast, and nothing is written."""
    subject, text = name(), '{"not":' * depth + "{}" + "}" * depth
    made = await calls.register(name(), {"type": "array"})
    data = b"[" * depth + b"]" * depth
    deep = validation_service_pb2.ValidateDataRequest(schema_id=made.schema.id, data=data)

    with pytest.raises(errors.InvalidSchema):
        await calls.register(subject, text)
    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(calls.validation.ValidateData, deep)

    assert caught.value.violations[0].field == "data"
    with pytest.raises(errors.SubjectNotFound):
        await calls.call(calls.subjects.ListVersions, subject_service_pb2.ListVersionsRequest(subject=subject))


async def test_a_deadline_that_leaves_no_time_is_refused_early(registry: Service, calls: Once) -> None:
    """Under the 20 ms that the answer needs, the work is not begun."""
    request = schema_service_pb2.GetSchemaRequest(id=1)

    async def refused_early() -> bool:
        """A call whose deadline passed on the way is no proof."""
        with pytest.raises(errors.Deadline):
            await calls.call(calls.schemas.GetSchema, request, timeout_seconds=0.018)
        return "leaves no time for the work" in await asyncio.to_thread(lambda: registry.log)

    await eventually(refused_early)


async def test_a_crash_of_the_process_loses_nothing(make_service: MakeService, database_url: str, name: Name) -> None:
    """kill -9 under load: after the restart every acknowledged registration is there, and nothing is half done."""
    service = make_service(database_url)
    await service.start_async()
    acknowledged: dict[str, int] = {}
    codes: set[errors.Code] = set()
    for _ in range(2):
        async with once(service) as calls, registrations(calls, name()) as load:
            await load.grow(50)
            await asyncio.to_thread(service.kill)
            await service.start_async()
            await load.grow()
        acknowledged |= load.acknowledged
        codes |= {error.code for error in load.refused}

    assert codes == {errors.Code.UNAVAILABLE}
    await assert_history_whole(database_url, acknowledged)


async def test_calls_in_flight_finish_before_the_process_ends(
    make_service: MakeService, database_url: str, name: Name
) -> None:
    """SIGTERM: a call in work is answered, then the process ends with 0, every step logged."""
    service = make_service(database_url, **LONG_GRACE)
    await service.start_async()
    subject = name()
    async with once(service) as calls:
        async with head_locked(database_url):
            in_flight = asyncio.create_task(calls.register(subject, {"title": subject}))
            await waits_for_head(database_url)
            stopping = asyncio.create_task(service.stop_async())
            await logged(service, "shutdown begins")
        made = await in_flight

        assert await stopping == 0
    assert made.created
    steps = [line["step"] for line in service.log_lines() if line["event"] == "shutdown step"]
    assert steps[:2] == ["become not ready", "drain calls in flight"]
    assert steps.index("drain calls in flight") < steps.index("stop background work") < steps.index("close database")
    assert not any(line.get("outcome") not in (None, "done") for line in service.log_lines())
    await assert_history_whole(database_url, {subject: made.schema.id})


async def test_a_second_signal_forces_the_end(make_service: MakeService, database_url: str, name: Name) -> None:
    """Whoever sends it does not want to wait: the call in work is cut off and leaves nothing behind."""
    service = make_service(database_url, **LONG_GRACE)
    await service.start_async()
    async with once(service) as calls, head_locked(database_url):
        in_flight = asyncio.create_task(calls.register(name(), {"title": "cut off"}))
        await waits_for_head(database_url)
        stopping = asyncio.create_task(service.stop_async())
        await logged(service, "shutdown begins")
        began = time.monotonic()
        forced = await service.stop_async(signal.SIGINT)

        with pytest.raises(errors.NotServing):
            await in_flight
    await asyncio.gather(stopping, return_exceptions=True)
    assert forced == 128 + signal.SIGINT
    assert time.monotonic() - began < STOP_SECONDS_MAX
    await assert_history_whole(database_url, {})


async def logged(service: Service, event: str) -> None:
    """Waits until a process has logged an event."""

    async def found() -> bool:
        return any(line["event"] == event for line in service.log_lines())

    await eventually(found)


async def test_watchers_that_never_read(make_service: MakeService, database_url: str, name: Name) -> None:
    """They cost a bounded amount of memory, hold nobody else up, and not the end of the process either."""
    service = make_service(database_url, features__compression_enabled=False, **LONG_GRACE)
    await service.start_async()
    async with RegistryClient(service.target) as client, RegistryClient(service.target) as deaf:
        registry = Registry(client)
        request = change_service_pb2.WatchChangesRequest(now=True)
        unread = [deaf.changes.WatchChanges(request) for _ in range(WATCHERS)]
        for watch in unread:
            await watch.read()
        reader = client.stream(client.changes.WatchChanges, request)
        await anext(reader)
        before = resident_bytes(service.pid)

        names = [name() for _ in range(60)]
        for subject in names:
            await registry.register(subject, {"title": subject, "description": "x" * TEXT_BYTES})
        seen: list[str] = []
        while len(seen) < len(names):
            seen += [change.event.version_registered.version.subject for change in (await anext(reader)).changes]
        grown = resident_bytes(service.pid) - before
        began = time.monotonic()
        status = await service.stop_async()
        stopped = time.monotonic() - began
        with pytest.raises(errors.NotServing):
            await anext(reader)
        for watch in unread:
            watch.cancel()

    assert seen == names
    assert status == 0
    assert stopped < STOP_SECONDS_MAX
    kept = 2 * len(names) * TEXT_BYTES
    assert grown < kept + WATCHERS * SHARE_BYTES_MAX, f"{grown / MEBIBYTE:.0f} MiB"


def resident_bytes(pid: int) -> int:
    """Memory of a process."""
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
