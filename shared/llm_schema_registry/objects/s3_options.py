"""What a bucket is and how to talk to it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from llm_schema_registry.objects.keys import check_key
from llm_schema_registry.objects.store import PART_BYTES, PART_BYTES_MIN, SMALL_BYTES_MAX


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket, or what is below a prefix in it. Raises ValueError for options that contradict themselves.

    prefix: of all keys, with or without a slash at the end; empty for the whole bucket.
    endpoint: URL of a store that is not AWS; None for AWS. path_style: the bucket in the path, not in the host name.
    access_key_id, secret_access_key: both or none; without them AWS's chain finds credentials (environment, files,
        web identity, instance) and renews them.
    kms_key_id: objects are encrypted with this KMS key; None for keys of the store's own (AES256).
    request_seconds: for connecting, and for each silence of the store; transfers get more time by their size.
    part_bytes, concurrency: an upload holds part_bytes times (concurrency + 1) at most, while parts have their first
        size. retry_seconds: after this long no further attempt of one request is made.
    retry_pause_seconds: before the first repeat; doubles up to a limit, and is drawn between zero and that.
    list_page: objects of one page of a listing; 1,000 is S3's own limit.
    """

    bucket: str
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    path_style: bool = False
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    kms_key_id: str | None = None
    request_seconds: float = 30.0
    retry_seconds: float = 120.0
    retry_pause_seconds: float = 0.2
    part_bytes: int = PART_BYTES
    concurrency: int = 3
    list_page: int = 1_000

    def __post_init__(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key belong together: set both or none")
        if self.prefix.strip("/"):
            check_key(self.prefix.strip("/"))
        if not PART_BYTES_MIN <= self.part_bytes <= SMALL_BYTES_MAX:
            raise ValueError(f"part_bytes is {PART_BYTES_MIN} to {SMALL_BYTES_MAX}")
        if not 1 <= self.concurrency <= 32:
            raise ValueError("concurrency is 1 to 32")
        if not 1 <= self.list_page <= 1_000:
            raise ValueError("list_page is 1 to 1000")
        if min(self.request_seconds, self.retry_seconds, self.retry_pause_seconds) <= 0:
            raise ValueError("request_seconds, retry_seconds and retry_pause_seconds are above 0")
        self._check_endpoint()

    def _check_endpoint(self) -> None:
        if self.endpoint is None:
            return
        url = urlsplit(self.endpoint)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("endpoint is a URL that begins with http:// or https:// and names a host")
        if url.username is not None or url.password is not None:
            raise ValueError("endpoint holds no credentials: set access_key_id and secret_access_key")

    @property
    def key_prefix(self) -> str:
        """What stands before every key in the bucket."""
        prefix = self.prefix.strip("/")
        return f"{prefix}/" if prefix else ""

    @property
    def loopback(self) -> bool:
        """Whether the endpoint is this machine, which no proxy leads to."""
        host = urlsplit(self.endpoint).hostname if self.endpoint else None
        if host is None:
            return False
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"

    @property
    def place(self) -> str:
        """Name of the bucket for messages."""
        host = urlsplit(self.endpoint).netloc if self.endpoint else "AWS S3"
        return f"the bucket {self.bucket} at {host}"


class Secret(Protocol):
    """A text that is not shown."""

    def get_secret_value(self) -> str: ...


class BucketSettings(Protocol):
    """The options of a bucket, as every section with one has them."""

    @property
    def bucket(self) -> str | None: ...

    @property
    def prefix(self) -> str: ...

    @property
    def region(self) -> str: ...

    @property
    def endpoint(self) -> str | None: ...

    @property
    def path_style(self) -> bool: ...

    @property
    def access_key_id(self) -> Secret | None: ...

    @property
    def secret_access_key(self) -> Secret | None: ...

    @property
    def kms_key_id(self) -> str | None: ...


def s3_options(settings: BucketSettings, *, below: str = "") -> S3Options:
    """How the settings say to reach the bucket. below: what the keys begin with after the settings' own prefix."""
    assert settings.bucket is not None, "the settings were checked"
    return S3Options(
        bucket=settings.bucket,
        prefix=settings.prefix + below,
        region=settings.region,
        endpoint=settings.endpoint,
        path_style=settings.path_style,
        access_key_id=settings.access_key_id.get_secret_value() if settings.access_key_id else None,
        secret_access_key=settings.secret_access_key.get_secret_value() if settings.secret_access_key else None,
        kms_key_id=settings.kms_key_id,
    )
