"""What S3 has and folders have not: locks, encryption, checksums, many pages; degrading where a store lacks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from llm_schema_registry.errors import ObjectStoreDenied
from llm_schema_registry.objects.s3 import S3Store, open_s3
from llm_schema_registry.objects.store import (
    PART_BYTES_MIN,
    Capabilities,
    Lock,
    ObjectExists,
    ObjectLocked,
    ObjectNotFound,
    Placement,
)
from tests.object_proxy import FaultProxy, Status
from tests.object_servers import S3Server

KMS_KEY = "arn:aws:kms:us-east-1:000000000000:key/00000000-0000-0000-0000-000000000001"
DAY = timedelta(days=1)


@pytest.fixture
async def locking(s3_server: S3Server) -> AsyncIterator[S3Store]:
    """A store in a bucket that locks objects."""
    async with open_s3(s3_server.options(s3_server.bucket(lock=True))) as store:
        yield store


def moment(after: timedelta) -> datetime:
    return (datetime.now(UTC) + after).replace(microsecond=0)


@pytest.mark.parametrize("mode", ["GOVERNANCE", "COMPLIANCE"])
@pytest.mark.parametrize("size", [10, 2 * PART_BYTES_MIN])
async def test_locked_from_the_start(locking: S3Store, mode: str, size: int) -> None:
    """An object that is written with a lock tells it, cannot be removed, and is still there."""
    lock = Lock("COMPLIANCE" if mode == "COMPLIANCE" else "GOVERNANCE", moment(DAY))
    async with locking.upload("key", placement=Placement(lock=lock)) as upload:
        await upload.write(bytes(size))
        stored, _ = await upload.complete()

    with pytest.raises(ObjectLocked):
        await locking.delete("key")

    head = await locking.head("key")
    assert head is not None
    assert head.lock == stored.lock == lock


async def test_extend(locking: S3Store) -> None:
    """A lock can be set and made longer or stricter, and neither shorter nor weaker."""
    await locking.put("key", b"")
    await locking.extend_lock("key", Lock("GOVERNANCE", moment(DAY)))
    longest = Lock("COMPLIANCE", moment(3 * DAY))
    await locking.extend_lock("key", longest)
    await locking.extend_lock("key", longest)

    with pytest.raises(ObjectLocked):
        await locking.extend_lock("key", Lock("COMPLIANCE", moment(2 * DAY)))
    with pytest.raises(ObjectLocked):
        await locking.extend_lock("key", Lock("GOVERNANCE", moment(4 * DAY)))

    head = await locking.head("key")
    assert head is not None
    assert head.lock == longest


async def test_extend_missing(locking: S3Store) -> None:
    """What is not there cannot be locked."""
    with pytest.raises(ObjectNotFound):
        await locking.extend_lock("key", Lock("GOVERNANCE", moment(DAY)))


async def test_lock_that_is_over(locking: S3Store) -> None:
    """A lock that has ended locks nothing."""
    await locking.put("key", b"", placement=Placement(lock=Lock("GOVERNANCE", moment(-DAY))))

    await locking.delete("key")

    assert await locking.head("key") is None


async def test_capabilities(s3_server: S3Server, rclone_server: S3Server) -> None:
    """The probe finds what each server really does."""
    found = []
    for server, bucket in (
        (s3_server, s3_server.bucket(lock=True)),
        (s3_server, s3_server.bucket()),
        (rclone_server, rclone_server.bucket()),
    ):
        async with open_s3(server.options(bucket)) as store:
            found.append(await store.probe())

    assert found == [
        Capabilities(True, True, True, encryption="AES256", storage_classes=True),
        Capabilities(True, True, False, encryption="AES256", storage_classes=True),
        Capabilities(False, False, False, encryption="AES256", storage_classes=True),
    ]


async def test_kms(s3_server: S3Server) -> None:
    """With a KMS key objects of every size are encrypted with it."""
    bucket = s3_server.bucket()
    async with open_s3(s3_server.options(bucket, kms_key_id=KMS_KEY)) as store:
        await store.put("small", b"x")
        async with store.upload("large") as upload:
            await upload.write(bytes(2 * PART_BYTES_MIN))
            await upload.complete()

        assert (await store.probe()).encryption == "aws:kms"
    for key in ("small", "large"):
        answer = await asyncio.to_thread(partial(s3_server.client().head_object, Bucket=bucket, Key=key))
        assert (answer["ServerSideEncryption"], answer["SSEKMSKeyId"]) == ("aws:kms", KMS_KEY)


async def test_store_without_encryption(s3_server: S3Server) -> None:
    """A store that refuses to hear of encryption is used without it, and the probe says so."""
    async with (
        FaultProxy(s3_server.endpoint) as proxy,
        open_s3(s3_server.options(s3_server.bucket(), endpoint=proxy.endpoint)) as store,
    ):
        proxy.plan("PutObject", Status(501, "NotImplemented"))

        assert (await store.probe()).encryption is None
        await store.put("key", b"1")
        assert (await store.get("key"))[1].encryption is None


async def test_kms_key_that_is_refused(s3_server: S3Server) -> None:
    """When a KMS key was chosen and is refused, nothing is written without it."""
    async with FaultProxy(s3_server.endpoint) as proxy:
        options = s3_server.options(s3_server.bucket(), endpoint=proxy.endpoint, kms_key_id=KMS_KEY)
        async with open_s3(options) as store:
            proxy.plan("PutObject", Status(400, "InvalidArgument"))

            with pytest.raises(ObjectStoreDenied, match="InvalidArgument"):
                await store.put("key", b"1")
            assert await store.head("key") is None


@pytest.mark.slow
async def test_more_than_a_page_of_s3(s3_server: S3Server) -> None:
    """More than 1,000 objects are all listed, with pages of S3's own size."""
    bucket = s3_server.bucket()
    names = [f"k{number:04}" for number in range(1_005)]

    def fill() -> None:
        for name in names:
            s3_server.client().put_object(Bucket=bucket, Key=name, Body=b"")

    await asyncio.to_thread(fill)
    async with open_s3(s3_server.options(bucket)) as store:
        assert [listed.key async for listed in store.list("")] == names


async def test_missing_bucket(s3_server: S3Server, rclone_server: S3Server) -> None:
    """A bucket that is missing is ObjectStoreDenied for every method, and never looks like an empty one."""
    for server in (s3_server, rclone_server):
        async with open_s3(server.options("no-such-bucket")) as store:
            for call in (
                store.head("key"),
                store.get("key"),
                store.put("key", b""),
                store.check(),
                store.delete("key"),
            ):
                with pytest.raises(ObjectStoreDenied, match="create it"):
                    await call
            with pytest.raises(ObjectStoreDenied, match="create it"):
                await anext(store.list(""))


async def test_wrong_credentials(rclone_server: S3Server) -> None:
    """Credentials that the store does not know are ObjectStoreDenied; the message holds none of them."""
    options = rclone_server.options(
        rclone_server.bucket(), access_key_id="stranger", secret_access_key="not-to-be-shown"
    )
    async with open_s3(options) as store:
        with pytest.raises(ObjectStoreDenied) as caught:
            await store.put("key", b"")

    assert "not-to-be-shown" not in f"{caught.value!r} {options!r} {caught.value.metadata}"


async def test_no_credentials(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without any credentials the message says where they are looked for."""
    nowhere = str(tmp_path_factory.mktemp("aws") / "none")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", nowhere)
    monkeypatch.setenv("AWS_CONFIG_FILE", nowhere)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = s3_server.options("bucket", access_key_id=None, secret_access_key=None)

    async with open_s3(options) as store:
        with pytest.raises(ObjectStoreDenied, match="AWS_ACCESS_KEY_ID"):
            await store.check()


async def test_credentials_that_are_renewed(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Credentials that expired are read from their source again."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "first")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with FaultProxy(s3_server.endpoint) as proxy:
        changes = {"endpoint": proxy.endpoint, "access_key_id": None, "secret_access_key": None}
        async with open_s3(s3_server.options(s3_server.bucket(), **changes)) as store:
            await store.check()
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second")
            proxy.plan("HeadBucket", Status(400, "ExpiredToken"))

            await store.check()

    assert proxy.key_ids["HeadBucket"] == ["first", "first", "second"]


async def test_conditions_between_tasks_without_the_store(rclone_server: S3Server) -> None:
    """Where the store ignores conditions, they hold between the tasks of one store, uploads included."""
    async with open_s3(rclone_server.options(rclone_server.bucket())) as store:

        async def attempt(number: int) -> bool:
            try:
                if number % 2:
                    await store.put("key", b"%d" % number, if_absent=True)
                else:
                    async with store.upload("key") as upload:
                        await upload.write(bytes([number]) * (PART_BYTES_MIN + 1))
                        await upload.complete()
            except ObjectExists:
                return False
            return True

        assert sum(await asyncio.gather(*(attempt(number) for number in range(6)))) == 1
