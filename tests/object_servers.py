"""Servers that speak S3, as children of the test run."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.config import Config
from botocore.session import get_session

from deploy.local.child import Child
from llm_schema_registry.objects.s3 import S3Options
from llm_schema_registry.objects.store import PART_BYTES_MIN

ACCESS_KEY_ID = "test-access-key"
SECRET_ACCESS_KEY = "test-secret-key"
START_SECONDS = 60
PROGRAMS = Path(sys.executable).parent


@dataclass(slots=True)
class S3Server:
    """A running server and its credentials. folder: where rclone keeps buckets as folders, objects as files."""

    name: str
    endpoint: str
    folder: Path | None = None
    access_key_id: str = ACCESS_KEY_ID
    secret_access_key: str = SECRET_ACCESS_KEY
    region: str = "us-east-1"
    _made: int = 0
    _client: Any = field(default=None, repr=False)

    def bucket(self, *, lock: bool = False) -> str:
        """Makes an empty bucket and returns its name."""
        self._made += 1
        name = f"bucket-{os.getpid()}-{self._made}"
        self.client().create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
        return name

    def client(self) -> Any:
        """A plain client of the test's own, which blocks: for looking at what a store left behind."""
        if self._client is None:
            self._client = get_session().create_client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=self.region,
                aws_access_key_id=self.access_key_id,
                aws_secret_access_key=self.secret_access_key,
                config=Config(
                    signature_version="s3v4",
                    s3={"addressing_style": "path"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    proxies={},
                ),
            )
        return self._client

    def uploads(self, bucket: str) -> list[str]:
        """Keys of the multipart uploads that are neither completed nor aborted."""
        try:
            page = self.client().list_multipart_uploads(Bucket=bucket)
        except self.client().exceptions.NoSuchUpload:  # rclone, of a bucket that never had one.
            return []
        return [upload["Key"] for upload in page.get("Uploads", ())]

    def stored_parts(self, bucket: str) -> int:
        """How many parts those uploads have."""
        page = self.client().list_multipart_uploads(Bucket=bucket)
        uploads = [{"Key": each["Key"], "UploadId": each["UploadId"]} for each in page.get("Uploads", ())]
        return sum(len(self.client().list_parts(Bucket=bucket, **each).get("Parts", ())) for each in uploads)

    def options(self, bucket: str, **changes: Any) -> S3Options:
        """Options for a bucket: small parts, quick repeats."""
        given: dict[str, Any] = {
            "bucket": bucket,
            "endpoint": self.endpoint,
            "region": self.region,
            "path_style": True,
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "part_bytes": PART_BYTES_MIN,
            "retry_pause_seconds": 0.01,
            "retry_seconds": 30,
            "request_seconds": 20,
        }
        return S3Options(**(given | changes))

    def close(self) -> None:
        """Closes the plain client."""
        if self._client is not None:
            self._client.close()


@contextmanager
def rclone(folder: Path, port: int) -> Iterator[S3Server]:
    """`rclone serve s3`: checks signatures and Content-MD5, keeps files; knows no conditions, checksums and locks."""
    data = folder / "buckets"
    data.mkdir()
    # The credentials go by the environment: a command line is there for all to see.
    child = Child(
        name="rclone",
        command=[
            str(PROGRAMS / "rclone"),
            "serve",
            "s3",
            "--config",
            os.devnull,
            "--addr",
            f"127.0.0.1:{port}",
            str(data),
        ],
        log=folder / "rclone.log",
        env={"RCLONE_AUTH_KEY": f'"{ACCESS_KEY_ID},{SECRET_ACCESS_KEY}"'},
    )
    with _serving(child, port):
        server = S3Server("rclone", f"http://127.0.0.1:{port}", data)
        yield server
        server.close()


@contextmanager
def ministack(folder: Path, port: int, *, services: str = "s3") -> Iterator[S3Server]:
    """ministack's S3: conditions, checksums, versions and locks, all in memory; does not look at credentials.

    services: what it serves, instead of S3, by AWS's names with commas.
    """
    child = Child(
        name="ministack",
        command=[str(PROGRAMS / "ministack")],
        log=folder / "ministack.log",
        env={
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": services,
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "S3_PERSIST": "0",
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(folder),
        },
        cwd=folder,
    )
    with _serving(child, port):
        server = S3Server("ministack", f"http://127.0.0.1:{port}")
        yield server
        server.close()


@contextmanager
def _serving(child: Child, port: int) -> Iterator[None]:
    child.start()
    try:
        child.wait_until(lambda: _listens(port), limit_seconds=START_SECONDS)
        yield
    finally:
        child.stop(limit_seconds=10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
