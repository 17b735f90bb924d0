"""The options of the backup service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from psycopg import conninfo
from pydantic import BeforeValidator, Field, SecretStr

from llm_schema_registry.kernel.settings import (
    DatabaseSettings,
    Port,
    Problem,
    Section,
    ServerSettings,
    ServiceSettings,
)
from llm_schema_registry.kernel.settings_stores import (
    BUCKET,
    ENDPOINT,
    PREFIX,
    PREFIX_CHARACTERS_MAX,
    S3Settings,
    store_credentials,
)
from llm_schema_registry.kernel.urls import is_postgres
from services.backup.domain.schedules import InvalidSchedule, validate


def _split(value: object) -> object:
    """Paths separated by colons as a list: the form that environment variables and secret files can hold."""
    if isinstance(value, str):
        return [part for part in value.split(":") if part]
    return value


def _on(value: object) -> object:
    """A schedule, empty for none. `off` says so where an empty text counts as not set, as in the environment."""
    return "" if value == "off" else value


Cron = Annotated[str, BeforeValidator(_on)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_split)]


class BackupServerSettings(ServerSettings):
    """Where the process listens, its certificates, and how it starts and stops."""

    http_port: Port = Field(
        default=8180, description="HTTP port of /health/* and the metrics page. 0 picks a free one."
    )
    grpc_port: Port = Field(default=9190, description="gRPC port. 0 picks a free one.")
    health_port: Port = Field(
        default=9191,
        description="Plaintext gRPC port that serves only grpc.health.v1, opened when mTLS is on, because Kubernetes"
        " probes speak no TLS. 0 picks a free one.",
    )


class SecondStoreSettings(Section):
    """A second store that every backup and segment is copied to: another region, another account. Off without one."""

    bucket: str | None = Field(
        default=None, min_length=3, max_length=63, pattern=BUCKET, description="Name of the second bucket."
    )
    region: str = Field(default="us-east-1", min_length=1, description="Region of the second bucket.")
    endpoint: str | None = Field(
        default=None, pattern=ENDPOINT, description="Endpoint of the second store; AWS without."
    )
    path_style: bool = Field(default=False, description="As s3.path_style, for the second store.")
    access_key_id: SecretStr | None = Field(default=None, description="Access key to the second store.")
    secret_access_key: SecretStr | None = Field(default=None, description="Secret of that access key.")
    kms_key_id: str | None = Field(
        default=None, min_length=1, description="Key that the second store encrypts objects with."
    )
    prefix: str = Field(
        default="",
        pattern=PREFIX,
        max_length=PREFIX_CHARACTERS_MAX,
        description="What all keys of the second store begin with.",
    )
    directory: Path | None = Field(default=None, description="Folder of the second store, instead of a bucket.")

    def rules(self) -> Iterator[Problem]:
        """One place at most; the access key has its secret, and the endpoint none."""
        if self.bucket and self.directory:
            yield Problem(
                "second_store.directory",
                "set either second_store.bucket or second_store.directory",
                str(self.directory),
            )
        yield from store_credentials("second_store", self)


class BackupSettings(Section):
    """How backups are made, sealed, signed, scheduled and kept."""

    directory: Path | None = Field(
        default=None,
        description="Folder that backups are kept in when no bucket is set: another disk than the database's.",
    )
    tool_folders: Paths = Field(
        default=(),
        description="Folders with PostgreSQL's client programs, searched before the usual places; separated by colons.",
    )
    compression: Literal["zstd", "gzip"] = Field(default="zstd", description="How dumps are compressed.")
    signing_key_path: Path | None = Field(
        default=None,
        description="File with the Ed25519 key that manifests are signed with: PEM, or 32 bytes in base 64.",
    )
    trusted_key_paths: Paths = Field(
        default=(),
        description="Files with further public keys whose manifests are trusted, such as those before a rotation, or of"
        " a signing key that is lost; separated by colons.",
    )
    key_paths: Paths = Field(
        default=(),
        description="Files with keys that data keys are wrapped for: secrets of 32 bytes in base 64, X25519 private or"
        " public keys in PEM; separated by colons. Any one of them opens a backup: name two at least, one of them kept"
        " offline. Empty: backups are not encrypted by this service.",
    )
    kms_key_id: str | None = Field(
        default=None, min_length=1, description="Key of the AWS key service that data keys are wrapped for as well."
    )
    schedules_enabled: bool = Field(
        default=True,
        description="Make backups by the schedules below, verify them, try restores, and delete what is not kept. Where"
        " it is off cron has to call `llmsr backup run --verify V3`, `prune --apply` and `drill`.",
    )
    hourly_schedule: Cron = Field(default="7 * * * *", description="Cron expression in UTC; `off` for none.")
    daily_schedule: Cron = Field(default="20 1 * * *", description="Cron expression in UTC; `off` for none.")
    monthly_schedule: Cron = Field(default="40 2 1 * *", description="Cron expression in UTC; `off` for none.")
    drill_schedule: Cron = Field(
        default="0 4 * * 0", description="When a restore is tried; cron expression in UTC; `off` for never."
    )
    keep_hourly: int = Field(default=48, ge=0, le=8760, description="Hours of which the last good backup is kept.")
    keep_daily: int = Field(default=30, ge=0, le=3660, description="Days of which the last good backup is kept.")
    keep_monthly: int = Field(default=12, ge=0, le=240, description="Months of which the last good backup is kept.")
    delete_grace_hours: float = Field(
        default=24, ge=0, le=8760, description="Time between the decision to delete a backup and its deletion."
    )
    lock_days: int = Field(
        default=0,
        ge=0,
        le=3650,
        description="Days that daily and monthly backups are locked for, where the store can lock objects; 0 for none.",
    )

    def rules(self) -> Iterator[Problem]:
        """There is a signing key, keys and schedules can be read, and something is kept."""
        yield from self.signing()
        for name in ("key_paths", "trusted_key_paths"):
            for path in getattr(self, name):
                if not path.is_file():
                    yield Problem(f"backup.{name}", "no such file", str(path))
        if self.kms_key_id is not None and (self.kms_key_id.startswith("alias/") or ":alias/" in self.kms_key_id):
            allowed = "name the key by its id or ARN: an alias can be moved to another key"
            yield Problem("backup.kms_key_id", allowed, self.kms_key_id)
        for name in ("hourly_schedule", "daily_schedule", "monthly_schedule", "drill_schedule"):
            cron = getattr(self, name)
            try:
                if cron:
                    validate(cron)
            except InvalidSchedule as invalid:
                yield Problem(f"backup.{name}", str(invalid), repr(cron))
        if self.keep_hourly + self.keep_daily + self.keep_monthly == 0:
            yield Problem("backup.keep_daily", "one of keep_hourly, keep_daily and keep_monthly must be above 0", "0")

    def signing(self) -> Iterator[Problem]:
        """There is a signing key."""
        if self.signing_key_path is None:
            allowed = "required, because every manifest is signed: `python -m services.backup keygen FOLDER` makes one"
            yield Problem("backup.signing_key_path", allowed)
        elif not self.signing_key_path.is_file():
            yield Problem("backup.signing_key_path", "no such file", str(self.signing_key_path))


class ArchiveSettings(Section):
    """The archive of changes."""

    enabled: bool = Field(default=True, description="Ship the history of changes within seconds.")
    seal_seconds: float = Field(
        default=5,
        ge=0.1,
        le=3600,
        description="Time between two segments while changes come: what a disaster may cost.",
    )
    seal_bytes: int = Field(default=1_048_576, ge=1024, le=33_554_432, description="About the largest segment.")
    keep_days: int = Field(
        default=35, ge=1, le=3650, description="Days that segments are kept at least, beside those that a backup needs."
    )


class RestoreSettings(Section):
    """How restores are prepared and swapped in."""

    place: Literal["database", "schema"] = Field(
        default="database",
        description="Where restores are prepared: in databases beside the live one (needs CREATEDB) or in schemas"
        " within it.",
    )
    maintenance_database: str = Field(
        default="postgres", min_length=1, description="Database to connect to while the live one is swapped."
    )
    keep_hours: float = Field(
        default=24, gt=0, le=8760, description="Hours that a replaced database is kept after a swap."
    )
    prepared_keep_hours: float = Field(
        default=72,
        gt=0,
        le=8760,
        description="Hours that a prepared restore waits for its activation; then it is released.",
    )
    schema_id_margin: int = Field(
        default=1000,
        ge=0,
        le=100_000_000,
        description="Schema ids passed over by a swap, beside all that are known to be in use: as many as may have been"
        " given since the archive's last heartbeat.",
    )


class BackupServiceSettings(ServiceSettings):
    """All options of the backup service."""

    service_name: ClassVar[str] = "backup"
    others_sections: ClassVar[frozenset[str]] = frozenset({"redis", "cache", "limits", "formats", "admin", "peers"})

    server: BackupServerSettings = Field(default_factory=BackupServerSettings)
    database: DatabaseSettings
    s3: S3Settings = Field(default_factory=S3Settings)
    second_store: SecondStoreSettings = Field(default_factory=SecondStoreSettings)
    backup: BackupSettings = Field(default_factory=BackupSettings)
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    restore: RestoreSettings = Field(default_factory=RestoreSettings)

    def rules(self) -> Iterator[Problem]:
        """Callers are authenticated, and `places`."""
        yield from super().rules()
        yield from self.places()

    def places(self) -> Iterator[Problem]:
        """Backups have one place, and the second store is another; restores have theirs beside the live database."""
        if (self.s3.bucket is None) == (self.backup.directory is None):
            yield Problem("backup.directory", "set either s3.bucket or backup.directory")
        second = self.second_store
        if second.directory is not None and second.directory == self.backup.directory:
            allowed = "must be another folder than backup.directory"
            yield Problem("second_store.directory", allowed, str(second.directory))
        if second.bucket is not None and _place_of(second) == _place_of(self.s3):
            yield Problem("second_store.bucket", "must be another place than that of section s3", second.bucket)
        database = _database(self.database.url.get_secret_value())
        if database is None:
            yield Problem(
                "database.url", "must name the registry's database: postgresql://user:password@host:5432/name"
            )
        elif self.restore.place == "database" and database == self.restore.maintenance_database:
            allowed = "must be another database than the one of database.url"
            yield Problem("restore.maintenance_database", allowed, database)


def _place_of(settings: S3Settings | SecondStoreSettings) -> tuple[str | None, str | None, str]:
    return settings.endpoint, settings.bucket, settings.prefix


def _database(url: str) -> str | None:
    """The database that a URL names; None for none. One that is no URL is judged by its own section."""
    return str(conninfo.conninfo_to_dict(url).get("dbname") or "") or None if is_postgres(url) else url
