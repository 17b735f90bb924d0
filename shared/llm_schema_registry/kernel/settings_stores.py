"""Options of object stores, of the services that keep something in one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from pydantic import Field, SecretStr

from llm_schema_registry.kernel.settings import Problem, Section

PREFIX = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,199}/)*$"
PREFIX_CHARACTERS_MAX = 500
"""A key has 1,024 bytes at most, of which ours need some hundred."""
BUCKET = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
ENDPOINT = r"^https?://[^\s/]+/?$"


class BucketSettings(Protocol):
    """What any section with a bucket has."""

    @property
    def endpoint(self) -> str | None: ...

    @property
    def access_key_id(self) -> SecretStr | None: ...

    @property
    def secret_access_key(self) -> SecretStr | None: ...


class S3Settings(Section):
    """The bucket that backups and the archive are kept in. Without one, a folder is."""

    bucket: str | None = Field(
        default=None, min_length=3, max_length=63, pattern=BUCKET, description="Name of the bucket."
    )
    region: str = Field(default="us-east-1", min_length=1, description="Region of the bucket.")
    endpoint: str | None = Field(
        default=None, pattern=ENDPOINT, description="Endpoint of an S3-compatible store; AWS without."
    )
    path_style: bool = Field(
        default=False, description="Name the bucket in the path, as many S3-compatible stores need."
    )
    access_key_id: SecretStr | None = Field(
        default=None, description="Access key; without, the usual chain of AWS (environment, profile, role) decides."
    )
    secret_access_key: SecretStr | None = Field(default=None, description="Secret of the access key.")
    kms_key_id: str | None = Field(
        default=None,
        min_length=1,
        description="Key of the key service that the store encrypts objects with; without, it encrypts with AES-256.",
    )
    prefix: str = Field(
        default="",
        pattern=PREFIX,
        max_length=PREFIX_CHARACTERS_MAX,
        description="What all keys begin with: empty, or names that end with `/`.",
    )

    def rules(self) -> Iterator[Problem]:
        """The access key has its secret, and the endpoint none."""
        yield from store_credentials("s3", self)


def store_credentials(section: str, settings: BucketSettings) -> Iterator[Problem]:
    """An access key has its secret, and the endpoint none."""
    if (settings.access_key_id is None) != (settings.secret_access_key is None):
        missing = "access_key_id" if settings.access_key_id is None else "secret_access_key"
        yield Problem(f"{section}.{missing}", "required because the other half of the pair is set")
    if settings.endpoint is not None and "@" in settings.endpoint:
        # Without its value: it holds a secret.
        allowed = f"holds no credentials: set {section}.access_key_id and {section}.secret_access_key"
        yield Problem(f"{section}.endpoint", allowed)
