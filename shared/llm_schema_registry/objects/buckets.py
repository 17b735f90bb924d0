"""A bucket, opened by a library that is loaded only then."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from llm_schema_registry.objects.s3_options import S3Options
from llm_schema_registry.objects.store import ObjectStore


def bucket(options: S3Options) -> AbstractAsyncContextManager[ObjectStore]:
    """The bucket, for the block of an `async with`. See s3.open_s3."""
    # Here, because it takes a third of a second and fifteen MiB, which a process with folders alone does not need.
    from llm_schema_registry.objects.s3 import open_s3  # noqa: PLC0415

    return open_s3(options)
