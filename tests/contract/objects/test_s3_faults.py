"""A store behind a line that breaks, lies and stalls: real servers, and a proxy before them."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest

from llm_schema_registry.errors import ObjectStoreDenied, ObjectStoreUnavailable
from llm_schema_registry.objects.s3 import S3Store, open_s3
from llm_schema_registry.objects.s3_upload import QUEUED_PARTS, S3Upload
from llm_schema_registry.objects.store import (
    PART_BYTES_MIN,
    ObjectDamaged,
    ObjectExists,
    Upload,
)
from tests.object_proxy import (
    FOR_EVERY,
    BlackHole,
    EditReply,
    ErrorIn200,
    Fault,
    FaultProxy,
    FlipReply,
    FlipRequest,
    Hold,
    LoseReply,
    Message,
    Reset,
    Status,
    Truncate,
    WholeObject,
)
from tests.object_servers import SECRET_ACCESS_KEY, S3Server

LARGE = random.Random(4).randbytes(PART_BYTES_MIN + 12_345)
CONCURRENCY = 3

Opened = Callable[..., Awaitable[S3Store]]


BOTH = pytest.mark.parametrize("server", ["rclone_server", "s3_server"], indirect=True)
"""Where it matters what the server makes of it."""


@pytest.fixture
def server(request: pytest.FixtureRequest) -> S3Server:
    """The server that can do more; both, one after the other, for tests that ask for it."""
    chosen: S3Server = request.getfixturevalue(getattr(request, "param", "s3_server"))
    return chosen


@pytest.fixture
def bucket(server: S3Server) -> str:
    return server.bucket()


@pytest.fixture
async def proxy(server: S3Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.endpoint) as proxy:
        yield proxy


@pytest.fixture
async def store(server: S3Server, bucket: str, proxy: FaultProxy) -> AsyncIterator[S3Store]:
    """A store behind the proxy, which knows already what the server can do."""
    async with open_s3(server.options(bucket, endpoint=proxy.endpoint)) as store:
        await store.probe()
        yield store


@pytest.fixture
async def hasty_store(server: S3Server, bucket: str, proxy: FaultProxy) -> AsyncIterator[S3Store]:
    """The same with hardly any patience: one failure is enough, and an answer has some time all the same."""
    options = server.options(bucket, endpoint=proxy.endpoint, retry_seconds=0.01, request_seconds=2)
    async with open_s3(options) as store:
        await store.probe()
        yield store


async def content(store: S3Store, key: str, start: int = 0) -> bytes:
    return b"".join([piece async for piece in store.read(key, start=start)])


async def upload(store: S3Store, key: str = "large", text: bytes = LARGE, *, if_absent: bool = True) -> None:
    async with store.upload(key, if_absent=if_absent) as writing:
        await writing.write(text)
        await writing.complete()


async def finish(writing: Upload) -> None:
    await writing.write(LARGE)
    await writing.complete()


ONCE = [
    Reset(),
    LoseReply(),
    Status(500, "InternalError"),
    Status(503, "SlowDown"),
    Status(429, "TooManyRequests"),
    Status(408, "RequestTimeout"),
    Status(400, "ExpiredToken"),
    Status(502, "SomethingNew"),
]


@pytest.mark.parametrize("fault", ONCE, ids=repr)
async def test_repeats(fault: Fault, store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str) -> None:
    """A failure that passes is repeated: an upload and all reads succeed, byte for byte, and nothing stays behind."""
    operations = ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "HeadObject"]
    for operation in [*operations, "PutObject", "GetObject", "ListObjectsV2", "HeadBucket", "DeleteObject"]:
        proxy.plan(operation, fault)

    await upload(store)
    await store.put("small", b"text")

    assert await content(store, "large") == LARGE
    assert (await store.get("small"))[0] == b"text"
    assert [listed.key async for listed in store.list("")] == ["large", "small"]
    assert (await store.now()).tzinfo is UTC
    await store.delete("small")
    assert await store.head("small") is None
    assert proxy.spent
    lost_create = isinstance(fault, LoseReply)  # Whose id nobody knows: that one is for the sweep.
    assert len(server.uploads(bucket)) == int(lost_create)


@BOTH
async def test_share_of_failures(store: S3Store, proxy: FaultProxy, rng: random.Random) -> None:
    """With three of ten requests failing, everything still succeeds."""
    faults: list[Fault | None] = [Status(503, "SlowDown"), Status(500, "InternalError"), Reset(), *([None] * 7)]
    proxy.always(FOR_EVERY, lambda: rng.choice(faults))

    for number in range(3):
        await upload(store, f"large-{number}")
    await asyncio.gather(*(store.put(f"small-{number}", b"%d" % number, if_absent=True) for number in range(20)))

    for number in range(3):
        assert await content(store, f"large-{number}") == LARGE
    assert len([listed async for listed in store.list("small-")]) == 20


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "right"),
        (404, "NoSuchBucket", "create it"),
        (403, "InvalidAccessKeyId", "credentials"),
        (403, "SignatureDoesNotMatch", "credentials"),
        (403, "RequestTimeTooSkewed", "clock"),
        (507, "InsufficientStorage", "full"),
        (403, "QuotaExceeded", "full"),
        (400, "KMS.DisabledException", "KMS"),
        (418, "SomethingElse", "SomethingElse"),
    ],
)
async def test_refusals(store: S3Store, proxy: FaultProxy, status: int, code: str, words: str) -> None:
    """What repeating cannot mend is ObjectStoreDenied after one attempt, and says what to do."""
    before = proxy.requests["PutObject"]
    proxy.plan("PutObject", Status(status, code))

    with pytest.raises(ObjectStoreDenied, match=words) as caught:
        await store.put("key", b"")

    assert proxy.requests["PutObject"] == before + 1
    assert SECRET_ACCESS_KEY not in "".join(traceback.format_exception(caught.value))
    assert "planned by a test" not in str(caught.value)


@pytest.mark.parametrize("fault", [Reset(), BlackHole(), Status(503, "SlowDown")], ids=repr)
async def test_gives_up(fault: Fault, hasty_store: S3Store, proxy: FaultProxy) -> None:
    """A store that does not come back is ObjectStoreUnavailable for every method, in bounded time."""
    proxy.always(FOR_EVERY, lambda: fault)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: hasty_store.put("key", b""),
        lambda: hasty_store.get("key"),
        lambda: content(hasty_store, "key"),
        lambda: hasty_store.head("key"),
        lambda: hasty_store.delete("key"),
        lambda: hasty_store.sweep("", datetime.now(UTC)),
        hasty_store.now,
        hasty_store.check,
        lambda: anext(hasty_store.list("")),
    ]

    outcomes = await asyncio.gather(*(call() for call in calls), return_exceptions=True)

    assert [type(outcome) for outcome in outcomes] == [ObjectStoreUnavailable] * len(calls)


async def test_tokens_that_stay_expired(store: S3Store, proxy: FaultProxy) -> None:
    """Credentials that stay expired are renewed a few times, and then refused."""
    proxy.always("PutObject", lambda: Status(400, "ExpiredToken"))

    with pytest.raises(ObjectStoreDenied, match="ExpiredToken"):
        await store.put("key", b"")


@BOTH
async def test_completion_that_fails_inside(store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str) -> None:
    """A completion answered with 200 and an error is decided by what is there: the object is there once."""
    proxy.plan("CompleteMultipartUpload", ErrorIn200())
    await upload(store, "not-done")
    proxy.plan("CompleteMultipartUpload", ErrorIn200(done=True))
    await upload(store, "done")

    assert proxy.spent
    assert await content(store, "not-done") == await content(store, "done") == LARGE
    assert server.uploads(bucket) == []


@BOTH
async def test_completion_without_answer(store: S3Store, proxy: FaultProxy) -> None:
    """A completion whose answer is lost is not made again: the object tells by whose upload it was written."""
    before = proxy.requests["CompleteMultipartUpload"]
    proxy.plan("CompleteMultipartUpload", LoseReply())

    await upload(store)

    assert proxy.requests["CompleteMultipartUpload"] == before + 1
    assert await content(store, "large") == LARGE


@BOTH
async def test_conditional_put_without_answer(store: S3Store, proxy: FaultProxy) -> None:
    """A conditional write whose answer is lost finds its own bytes and succeeds; so does a chain of them."""
    proxy.plan("PutObject", LoseReply())
    stored = await store.put("key", b"1", if_absent=True)
    proxy.plan("PutObject", LoseReply())
    stored = await store.put("key", b"2", if_match=stored.etag)

    assert (await store.get("key")) == (b"2", (await store.get("key"))[1])
    assert (await store.put("key", b"3", if_match=stored.etag)).size_bytes == 1


async def test_part_that_changed_on_the_way(s3_server: S3Server) -> None:
    """A part in which a bit turned on the way is refused by the store for its SHA-256, and sent again."""
    async with (
        FaultProxy(s3_server.endpoint) as proxy,
        open_s3(s3_server.options(s3_server.bucket(), endpoint=proxy.endpoint)) as store,
    ):
        proxy.plan("UploadPart", FlipRequest(1_000_000))

        await upload(store)

        assert proxy.requests["UploadPart"] == 3
        assert await content(store, "large") == LARGE


@BOTH
async def test_bytes_that_always_change(store: S3Store, proxy: FaultProxy) -> None:
    """When the store says again and again that other bytes arrived, that is ObjectDamaged, and nothing was written."""
    proxy.always("PutObject", lambda: FlipRequest(0))

    with pytest.raises(ObjectDamaged):
        await store.put("key", b"12345")

    proxy.always("PutObject", None)
    assert await store.head("key") is None


@pytest.mark.parametrize("count", [0, 1, 100_000, 5_000_000])
async def test_reply_that_ends_early(store: S3Store, proxy: FaultProxy, count: int) -> None:
    """A read whose connection breaks goes on from where it stood, however often."""
    await upload(store)
    proxy.plan("GetObject", Truncate(count), Reset(), Truncate(count))

    assert await content(store, "large") == LARGE
    assert proxy.spent


async def test_whole_objects_for_ranges(s3_server: S3Server) -> None:
    """A store that answers range requests with the whole object is read right."""
    async with (
        FaultProxy(s3_server.endpoint) as proxy,
        open_s3(s3_server.options(s3_server.bucket(), endpoint=proxy.endpoint)) as store,
    ):
        await upload(store)
        proxy.always("GetObject", WholeObject)
        proxy.plan("GetObject", Truncate(3_000_000), Truncate(1_000_000))

        assert await content(store, "large") == LARGE
        assert await content(store, "large", start=5_000_000) == LARGE[5_000_000:]
        assert b"".join([piece async for piece in store.read("large", start=5, length=7)]) == LARGE[5:12]


async def test_object_that_ends_early(store: S3Store, proxy: FaultProxy) -> None:
    """An object that is shorter than the store says is ObjectDamaged, and the message names the byte."""
    await upload(store)
    proxy.plan("GetObject", Truncate(1_234_567))
    proxy.always("GetObject", lambda: Truncate(0))

    with pytest.raises(ObjectDamaged, match="1234567"):
        await content(store, "large")


@BOTH
async def test_object_that_changes(store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str) -> None:
    """Bytes of two contents are never mixed: an object that is replaced while it is read is ObjectDamaged."""
    await upload(store)
    proxy.plan("GetObject", Truncate(2_000_000))
    reading = store.read("large")
    first = await anext(reading)

    server.client().put_object(Bucket=bucket, Key="large", Body=LARGE[::-1])

    assert LARGE.startswith(first)
    with pytest.raises(ObjectDamaged, match="changed"):
        async for _ in reading:
            pass


async def test_reply_that_changed(s3_server: S3Server) -> None:
    """Where the store tells a checksum, a small object with a bit turned is read again, and never returned."""
    async with (
        FaultProxy(s3_server.endpoint) as proxy,
        open_s3(s3_server.options(s3_server.bucket(), endpoint=proxy.endpoint)) as store,
    ):
        await store.put("key", b"12345")

        proxy.plan("GetObject", FlipReply(2))
        assert (await store.get("key"))[0] == b"12345"
        proxy.always("GetObject", lambda: FlipReply(2))
        with pytest.raises(ObjectDamaged):
            await store.get("key")


@BOTH
async def test_completed_object_that_differs(store: S3Store, proxy: FaultProxy) -> None:
    """An object whose size is not what was written is ObjectDamaged, and removed."""

    def shorten(answer: Message) -> None:
        answer.headers = [
            (name, b"17" if name.lower() == b"content-length" else value) for name, value in answer.headers
        ]

    completed = asyncio.Event()

    def when_completed() -> Fault | None:
        return EditReply(shorten) if completed.is_set() else None

    async with store.upload("large") as writing:
        await writing.write(LARGE)
        proxy.plan("CompleteMultipartUpload", EditReply(lambda _: completed.set()))
        proxy.always("HeadObject", when_completed)
        with pytest.raises(ObjectDamaged, match="17 bytes"):
            await writing.complete()

    proxy.always("HeadObject", None)
    assert await store.head("large") is None


async def test_memory_behind_a_stalled_store(store: S3Store, proxy: FaultProxy) -> None:
    """Behind a store that takes nothing the writer stops: one part fills, three travel, none waits."""
    go = asyncio.Event()
    proxy.always("UploadPart", lambda: Hold(go))
    seen: list[int] = []
    written = 0
    bound = (CONCURRENCY + QUEUED_PARTS + 1) * PART_BYTES_MIN

    async with store.upload("large") as writing:
        assert isinstance(writing, S3Upload)

        async def write() -> None:
            nonlocal written
            for _ in range(36):
                await writing.write(bytes(1024 * 1024))
                written += 1024 * 1024
                seen.append(writing.buffered_bytes)

        writer = asyncio.create_task(write())
        while writing.buffered_bytes < bound or proxy.held < CONCURRENCY:
            assert not writer.done()
            await asyncio.sleep(0.005)
        assert written <= bound
        assert proxy.held == CONCURRENCY
        go.set()
        await writer
        stored, parts = await writing.complete()

    assert max(seen) <= bound
    assert stored.size_bytes == 36 * 1024 * 1024 == sum(part.size_bytes for part in parts)


@BOTH
@pytest.mark.parametrize("operation", ["CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"])
async def test_cancelled(operation: str, store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str) -> None:
    """An upload that is cancelled leaves no multipart upload, whatever was on its way."""
    go = asyncio.Event()
    proxy.plan(operation, Hold(go))

    uploading = asyncio.create_task(upload(store))
    await proxy.until(lambda proxy: proxy.held > 0)
    uploading.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await uploading

    assert await asyncio.to_thread(server.uploads, bucket) == []


@BOTH
async def test_cancelled_twice(store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str) -> None:
    """A second cancellation does not keep the abort from its end."""
    parts, aborts = asyncio.Event(), asyncio.Event()
    proxy.always("UploadPart", lambda: Hold(parts))
    proxy.plan("AbortMultipartUpload", Hold(aborts))
    uploading = asyncio.create_task(upload(store))
    await proxy.until(lambda proxy: proxy.held > 0)

    uploading.cancel()
    await proxy.until(lambda proxy: proxy.requests["AbortMultipartUpload"] > 0)
    uploading.cancel()
    await asyncio.sleep(0)
    aborts.set()
    with pytest.raises(asyncio.CancelledError):
        await uploading

    parts.set()
    assert await asyncio.to_thread(server.uploads, bucket) == []


async def test_abort_is_repeated(store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str) -> None:
    """An abort that the store acknowledges and does not do is repeated until its parts are gone."""
    proxy.plan("AbortMultipartUpload", Status(204, "NotReally"))

    async with store.upload("large") as writing:
        await writing.write(LARGE)

    assert proxy.requests["AbortMultipartUpload"] >= 2
    assert await asyncio.to_thread(server.uploads, bucket) == []


@BOTH
async def test_store_gone_during_upload(hasty_store: S3Store, proxy: FaultProxy, server: S3Server, bucket: str) -> None:
    """When the store goes away the upload fails in bounded time with its own error; a sweep removes the rest later."""
    async with hasty_store.upload("large") as writing:
        proxy.plan("UploadPart", None)
        await writing.write(LARGE[:PART_BYTES_MIN])
        await proxy.until(lambda proxy: proxy.requests["UploadPart"] > 0)
        proxy.always(FOR_EVERY, Reset)
        with pytest.raises(ObjectStoreUnavailable):
            await finish(writing)
    proxy.always(FOR_EVERY, None)

    assert await hasty_store.sweep("", await hasty_store.now() + timedelta(days=1)) == 1
    assert await asyncio.to_thread(server.uploads, bucket) == []


@BOTH
async def test_upload_does_not_overwrite_late(store: S3Store, server: S3Server, bucket: str) -> None:
    """An object that appeared while an upload ran is kept: the completion is ObjectExists."""
    async with store.upload("large") as writing:
        await writing.write(LARGE)
        await asyncio.to_thread(lambda: server.client().put_object(Bucket=bucket, Key="large", Body=b"other"))
        with pytest.raises(ObjectExists):
            await writing.complete()

    assert (await store.get("large"))[0] == b"other"
    assert await asyncio.to_thread(server.uploads, bucket) == []
