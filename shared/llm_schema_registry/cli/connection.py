"""How the program reaches the services: addresses, TLS, and what to say when nobody answers."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llm_schema_registry import errors
from llm_schema_registry.cli.exit_codes import UsageFault

if TYPE_CHECKING:
    from llm_schema_registry.client import AdminClient, BackupClient, ControlClient, RegistryClient, Tls
    from llm_schema_registry.client.calls import Calls

C = TypeVar("C", bound="Calls")

REGISTRY_TARGET = "127.0.0.1:9090"
BACKUP_TARGET = "127.0.0.1:9190"
ADMIN_TARGET = "127.0.0.1:9290"
SEVERAL_TARGETS = "10.0.0.1:9090,10.0.0.2:9090"

_OTHER_NAME = "its certificate is for another name; --server-name says which one to expect"
_MEANINGS = (
    ("Connection refused", "nothing listens there"),
    ("CERTIFICATE_VERIFY_FAILED", "its certificate is not of the authority in --ca-cert, or not valid now"),
    ("Hostname Verification", _OTHER_NAME),
    ("No match found for server name", _OTHER_NAME),
    ("CERTIFICATE_REQUIRED", "it asks for a client certificate: --client-cert and --client-key"),
    ("WRONG_VERSION_NUMBER", "it does not speak TLS; leave out --tls and the certificates"),
    ("DNS resolution failed", "the name has no address"),
    ("Name resolution", "the name has no address"),
)
"""What gRPC's words for a failed connection (grpcio 1.85) mean to whoever typed the command."""
_CLOSED = ("Socket closed", "Connection reset", "Broken pipe", "recvmsg", "Stream removed")


class Unreachable(errors.NotServing):
    """Nobody answered at an address. It does not travel on the wire: the program says it itself."""

    reason = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the services are and how to speak to them.

    target, backup_target, admin_target: `host:port`, or several numeric `address:port` with commas between, which are
    replicas. admin_token: for the admin service; empty where a client certificate does. timeout_seconds: of each call
    that is not a stream; None for the method's own deadline.
    Raises UsageFault for what is no address, and for a certificate without key or a key without certificate.
    """

    target: str = REGISTRY_TARGET
    backup_target: str = BACKUP_TARGET
    admin_target: str = ADMIN_TARGET
    admin_token: str = field(default="", repr=False)
    tls: bool = False
    ca_cert: Path | None = None
    client_cert: Path | None = None
    client_key: Path | None = None
    server_name: str = ""
    timeout_seconds: float | None = None

    def __post_init__(self) -> None:
        if (self.client_cert is None) != (self.client_key is None):
            raise UsageFault("--client-cert and --client-key are given together or not at all.")
        _check_target(self.target, "--target")
        _check_target(self.backup_target, "--backup-target")
        _check_target(self.admin_target, "--admin-target")

    @property
    def encrypted(self) -> bool:
        """Whether TLS is spoken: when it is asked for, or anything of it is given."""
        return self.tls or bool(self.ca_cert or self.client_cert or self.server_name)

    @asynccontextmanager
    async def registry(self) -> AsyncIterator[RegistryClient]:
        """A client of the registry. Inside, an error that no service sent is raised as Unreachable or Deadline with
        the address, and every other error as it came. Raises UsageFault when a PEM file cannot be read.
        """
        from llm_schema_registry.client import RegistryClient  # gRPC takes a while to load.

        with self._telling_where("registry", self.target):
            async with self._open(RegistryClient, self.target) as client:
                yield client

    @asynccontextmanager
    async def backup(self) -> AsyncIterator[BackupClient]:
        """A client of the backup service. Raises as `registry`."""
        from llm_schema_registry.client import BackupClient

        with self._telling_where("backup service", self.backup_target):
            async with self._open(BackupClient, self.backup_target) as client:
                yield client

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[AdminClient]:
        """A client of the admin service. Raises as `registry`."""
        from llm_schema_registry.client import AdminClient

        with self._telling_where("admin service", self.admin_target):
            async with self._open(
                partial(AdminClient, metadata=_bearer(self.admin_token)), self.admin_target
            ) as client:
                yield client

    @asynccontextmanager
    async def control(self, *, of_backup: bool, token: str) -> AsyncIterator[ControlClient]:
        """A client that steers a process of the registry, or of the backup service. Raises as `registry`.

        token: the control token; empty where a client certificate does.
        """
        from llm_schema_registry.client import ControlClient

        target = self.backup_target if of_backup else self.target
        with self._telling_where("backup service" if of_backup else "registry", target):
            async with self._open(partial(ControlClient, metadata=_bearer(token)), target) as client:
                yield client

    def _open(self, kind: Callable[..., C], target: str) -> C:
        try:
            return kind(_addresses(target), tls=self._tls(), timeout_seconds=self.timeout_seconds)
        except OSError as failed:
            raise UsageFault(f"{failed.filename} cannot be read: {failed.strerror}.") from None

    def _tls(self) -> Tls | None:
        from llm_schema_registry.client import Tls

        if not self.encrypted:
            return None
        return Tls(self.ca_cert, self.client_cert, self.client_key, self.server_name or None)

    @contextmanager
    def _telling_where(self, service: str, target: str) -> Iterator[None]:
        """Raises an error that the transport made up as one that names the service and its address."""
        from llm_schema_registry.client import transport_words

        try:
            yield
        except errors.Error as error:
            words = transport_words(error)
            who = f"The {service} at {target}"
            if words is not None and error.code is errors.Code.DEADLINE_EXCEEDED:
                message = f"{who} did not answer in time. --timeout allows more."
                raise errors.Deadline(message, metadata={"target": target}) from None
            if words is not None and error.code is errors.Code.UNAVAILABLE:
                message = f"{who} cannot be reached: {self._reason(words)}."
                raise Unreachable(message, metadata={"target": target}) from None
            raise

    def _reason(self, text: str) -> str:
        """Why nobody answered, from gRPC's words."""
        for words, meaning in _MEANINGS:
            if words in text:
                return meaning
        if not any(words in text for words in _CLOSED):
            return "no connection came about"
        if not self.encrypted:
            return "it closed the connection; if it speaks TLS, say --tls"
        if self.client_cert is None:
            return "it closed the connection; if it asks for a client certificate, say --client-cert and --client-key"
        return "it closed the connection; it may not trust our certificate"


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")] if token else []


def _addresses(target: str) -> str | list[str]:
    parts = [part.strip() for part in target.split(",")]
    return parts[0] if len(parts) == 1 else parts


def _check_target(target: str, option: str) -> None:
    parts = target.split(",")
    for part in parts:
        host, _, port = part.strip().rpartition(":")
        if not host or not port.isdigit() or host.startswith(("http://", "https://")):
            raise UsageFault(f"{option}: {target!r} is no address. Write host:port, for example {REGISTRY_TARGET}.")
        if len(parts) > 1 and not _numeric(host):
            raise UsageFault(f"{option}: several addresses must be numeric ones, for example {SEVERAL_TARGETS}.")


def _numeric(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
