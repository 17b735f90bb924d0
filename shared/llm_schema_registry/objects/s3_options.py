"""What a bucket is and how to talk to it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from llm_schema_registry.objects.keys import check_key
from llm_schema_registry.objects.parts import PART_BYTES
from llm_schema_registry.objects.store import PART_BYTES_MIN, SMALL_BYTES_MAX


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
