"""Requests to one bucket: credentials that are renewed, repeats with a budget, errors of our family."""

from __future__ import annotations

import asyncio
import functools
import io
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aioboto3
from aiobotocore.session import get_session
from botocore import exceptions
from botocore.config import Config

from llm_schema_registry import errors
from llm_schema_registry.objects import s3_refusals as refusals
from llm_schema_registry.objects.finishing import to_the_end
from llm_schema_registry.objects.s3_options import S3Options
from llm_schema_registry.objects.s3_refusals import Kind, Refusal
from llm_schema_registry.objects.store import ObjectDamaged

PAUSE_SECONDS_MAX = 20.0
ATTEMPTS_MAX = 1_000
"""Of one request, whatever its time budget allows."""
SENDS_MAX = 3
"""Of the same bytes, when the store says that other bytes arrived."""
RENEWALS_MAX = 3
"""Of the credentials, for one request."""
RETIRED_MAX = 2
"""Clients that are kept after a renewal for what still uses them; what uses an older one is cut off and repeats."""
BYTES_PER_SECOND_MIN = 64 * 1024
"""Slower transfers of one part or piece count as failed."""
COPIED_BYTES_MAX = 1024 * 1024
DEFAULT_REGION = "us-east-1"

Answer = dict[str, Any]
Landed = Callable[[], Awaitable[bool]]


class Connection:
    """The client, made when it is first needed and made again when its credentials have expired."""

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._lock = asyncio.Lock()
        self._open: list[tuple[Any, Any]] = []
        self._closed = False

    async def client(self) -> Any:
        """The newest client. Raises what its construction raises, one of refusals.FAILURES or ValueError.

        Raises errors.ObjectStoreUnavailable once it is closed: whoever is late must not open what nobody closes.
        """
        async with self._lock:
            if self._closed:
                raise errors.ObjectStoreUnavailable("the object store was closed: the process ends", retry_seconds=1)
            if not self._open:
                # To its end: a client that is half made when its caller is cancelled would stay open.
                await to_the_end(self._add())
            return self._open[-1][1]

    async def renew(self, used: object) -> None:
        """Makes a client that asks the credentials' source again, unless somebody did since `used` was the newest."""
        async with self._lock:
            if self._open and self._open[-1][1] is used:
                await to_the_end(self._add())
            while len(self._open) > 1 + RETIRED_MAX:
                context, _ = self._open.pop(0)
                await context.__aexit__(None, None, None)

    async def close(self) -> None:
        """Closes every client, for good."""
        async with self._lock:
            self._closed = True
            while self._open:
                context, _ = self._open.pop()
                await context.__aexit__(None, None, None)

    async def _add(self) -> None:
        options = self._options
        # A session of its own: it is what remembers credentials.
        core = get_session()
        core.register_component("data_loader", _descriptions())
        session = aioboto3.Session(
            botocore_session=core,
            aws_access_key_id=options.access_key_id,
            aws_secret_access_key=options.secret_access_key,
            region_name=options.region,
        )
        region = options.region or session.region_name or DEFAULT_REGION
        context = session.client("s3", region_name=region, endpoint_url=options.endpoint, config=self._config())
        self._open.append((context, await context.__aenter__()))

    def _config(self) -> Config:
        options = self._options
        return Config(
            signature_version="s3v4",
            s3={"addressing_style": _addressing(options)},
            connect_timeout=options.request_seconds,
            read_timeout=options.request_seconds,
            max_pool_connections=64,
            retries={"total_max_attempts": 1, "mode": "standard"},  # Calls repeats.
            # Checksums of our own choice are sent; others break stores that do not know them.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={} if options.loopback else None,
        )


class Calls:
    """Requests to the bucket of the options. Keys are the port's; the prefix is added here."""

    def __init__(self, options: S3Options) -> None:
        self.options = options
        self._connection = Connection(options)
        self._rng = random.SystemRandom()

    async def close(self) -> None:
        """Closes the connections."""
        await self._connection.close()

    async def call(
        self,
        operation: str,
        *,
        key: str | None = None,
        expected: frozenset[str] = frozenset(),
        landed: Landed | None = None,
        body: bytes | None = None,
        **parameters: Any,
    ) -> Answer:
        """The answer to an operation of the client, by its Python name.

        expected: codes that are raised as Refusal instead of an error. landed: asked after an attempt without a clear
        answer whether it took effect; the answer is empty then. Raises ObjectStoreUnavailable, ObjectStoreDenied,
        ObjectDamaged when the store says again and again that other bytes arrived than were sent.
        """
        parameters["Bucket"] = self.options.bucket
        if key is not None:
            parameters["Key"] = self.options.key_prefix + key
        attempt = Attempts(self, expected, key or "")
        while True:
            client = None
            try:
                client = await self._connection.client()
                async with asyncio.timeout(self._limit(body)):
                    answer: Answer = await getattr(client, operation)(**parameters, **_body(body))
            except (*refusals.FAILURES, ValueError) as error:
                if landed is not None and refusals.kind_of(error) is Kind.AGAIN and await landed():
                    return {}
                attempt.failed(error)
                if refusals.kind_of(error) is Kind.RENEW:
                    await self._connection.renew(client)
            else:
                return answer
            await attempt.pause()

    async def pause(self, attempt: int) -> None:
        """Waits before a repeat: up to twice as long each time. Source: AWS, "Exponential Backoff And Jitter", full."""
        longest = min(PAUSE_SECONDS_MAX, self.options.retry_pause_seconds * 2 ** min(attempt - 1, 20))
        await asyncio.sleep(self._rng.uniform(0, longest))

    def _limit(self, body: bytes | None) -> float:
        return 2 * self.options.request_seconds + len(body or b"") / BYTES_PER_SECOND_MIN


class Attempts:
    """The attempts of one request."""

    def __init__(self, calls: Calls, expected: frozenset[str], key: str) -> None:
        self._calls = calls
        self._expected = expected
        self._key = key
        self._began = time.monotonic()
        self._made = 0
        self._renewed = 0
        self._sent = 0

    def failed(self, error: Exception) -> None:
        """Returns when another attempt is worth making; else raises."""
        options = self._calls.options
        if isinstance(error, exceptions.ClientError) and refusals.code_of(error) in self._expected:
            raise Refusal(refusals.code_of(error)) from None
        self._made += 1
        match refusals.kind_of(error):
            case Kind.REFUSED:
                raise refusals.refused(error, options.place) from None
            case Kind.RENEW:
                self._renewed += 1
                if self._renewed > RENEWALS_MAX:
                    raise refusals.refused(error, options.place) from None
            case Kind.WRONG_BYTES:
                self._sent += 1
                if self._sent >= SENDS_MAX:
                    raise ObjectDamaged(
                        f"{options.place} says of {self._key}, {SENDS_MAX} times, that other bytes arrived than were "
                        "sent: check the network and the memory of this machine"
                    ) from None
        if self._made >= ATTEMPTS_MAX or time.monotonic() - self._began >= options.retry_seconds:
            raise refusals.unavailable(error, options.place, self._made) from None

    async def pause(self) -> None:
        """Waits before the next attempt."""
        await self._calls.pause(self._made)


def _addressing(options: S3Options) -> str:
    """How a request names the bucket. Of another store than AWS `auto` would always be the path."""
    if options.path_style:
        return "path"
    return "auto" if options.endpoint is None else "virtual"


@functools.cache
def _descriptions() -> Any:
    """Botocore's descriptions of S3, read from its files once: that takes ten times as long as making a client."""
    return get_session().get_component("data_loader")


def _body(content: bytes | None) -> dict[str, Any]:
    """The body as a stream, which is sent in pieces; bytes at once would hold up the event loop.

    Large ones not as BytesIO, of which aiohttp 3.14 makes a copy to learn its length; others it reads in a thread.
    """
    if content is None:
        return {}
    small = len(content) <= COPIED_BYTES_MAX
    return {"Body": io.BytesIO(content) if small else io.BufferedReader(_Raw(content))}


class _Raw(io.RawIOBase):
    """Bytes to be read, not copied."""

    def __init__(self, content: bytes) -> None:
        self._stream = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._stream.readinto(buffer)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()
