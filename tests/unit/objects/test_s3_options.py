"""Options of a bucket, and how failures are judged."""

from __future__ import annotations

from typing import Any

import pytest
from botocore import exceptions

from llm_schema_registry.objects.s3 import S3Options
from llm_schema_registry.objects.s3_refusals import Kind, code_of, kind_of, refused


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"access_key_id": "id"}, "belong together"),
        ({"secret_access_key": "secret"}, "belong together"),
        ({"prefix": "a/../b"}, "key"),
        ({"part_bytes": 1024}, "part_bytes"),
        ({"concurrency": 0}, "concurrency"),
        ({"list_page": 1001}, "list_page"),
        ({"retry_seconds": 0}, "retry_seconds"),
        ({"endpoint": "minio:9000"}, "http"),
        ({"endpoint": "https://user:password@minio"}, "no credentials"),
    ],
)
def test_contradictions(options: dict[str, Any], words: str) -> None:
    """Options that cannot work are refused when they are made, and the message names them."""
    with pytest.raises(ValueError, match=words):
        S3Options(**{"bucket": "bucket"} | options)


def test_no_secret_in_text() -> None:
    """The secret is in no text of the options."""
    options = S3Options("bucket", access_key_id="id", secret_access_key="not-to-be-shown")

    assert "not-to-be-shown" not in f"{options} {options!r} {options.place}"


@pytest.mark.parametrize(("prefix", "expected"), [("", ""), ("/", ""), ("a", "a/"), ("a/b/", "a/b/"), ("/a", "a/")])
def test_key_prefix(prefix: str, expected: str) -> None:
    """Slashes at the ends of a prefix make no difference."""
    assert S3Options("bucket", prefix=prefix).key_prefix == expected


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        (None, False),
        ("http://127.0.0.1:9000", True),
        ("http://[::1]:9000", True),
        ("http://localhost", True),
        ("https://minio.internal", False),
        ("http://10.0.0.1", False),
    ],
)
def test_loopback(endpoint: str | None, loopback: bool) -> None:
    """No proxy is asked for what is on this machine."""
    assert S3Options("bucket", endpoint=endpoint).loopback is loopback


def answer(code: str, status: int) -> Exception:
    error: Exception = exceptions.ClientError(
        {"Error": {"Code": code, "Message": "SECRET"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject"
    )
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answer("SlowDown", 503), Kind.AGAIN),
        (answer("SomethingNew", 500), Kind.AGAIN),
        (answer("RequestTimeout", 400), Kind.AGAIN),
        (answer("503", 503), Kind.AGAIN),
        (answer("ExpiredToken", 400), Kind.RENEW),
        (answer("400", 400), Kind.RENEW),
        (answer("BadDigest", 400), Kind.WRONG_BYTES),
        (answer("AccessDenied", 403), Kind.REFUSED),
        (answer("QuotaExceeded", 503), Kind.REFUSED),
        (answer("", 507), Kind.REFUSED),
        (answer("RequestTimeTooSkewed", 403), Kind.REFUSED),
        (exceptions.EndpointConnectionError(endpoint_url="x"), Kind.AGAIN),
        (exceptions.ReadTimeoutError(endpoint_url="x"), Kind.AGAIN),
        (exceptions.ConnectionClosedError(endpoint_url="x"), Kind.AGAIN),
        (exceptions.NoCredentialsError(), Kind.REFUSED),
        (exceptions.ParamValidationError(report="x"), Kind.REFUSED),
        (TimeoutError(), Kind.AGAIN),
        (ConnectionResetError(), Kind.AGAIN),
        (ValueError("bad endpoint"), Kind.REFUSED),
    ],
    ids=repr,
)
def test_kinds(error: Exception, kind: Kind) -> None:
    """What passes is repeated, what stays is not."""
    assert kind_of(error) is kind


def test_codes_are_words() -> None:
    """A server's code goes into a message only when it is one word; its text never does."""
    assert code_of(answer("Slow<Down>\n", 503)) == "an unknown error"
    assert "SECRET" not in str(refused(answer("Whatever", 418), "the bucket b at c"))
