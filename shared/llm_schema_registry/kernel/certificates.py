"""The server's certificates, read again when their files change.

New handshakes get the new certificate; open connections keep theirs (performance.max_connection_age_seconds ends them).
Files that cannot be used are logged once and the certificate in force stays.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from llm_schema_registry.kernel.settings import ServiceSettings


class CertificatesInvalid(Exception):
    """The certificate files cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Files:
    """PEM files: the server's chain and key, and the authority of client certificates when clients need one."""

    chain: Path
    key: Path
    authority: Path | None


class Certificates:
    """Keeps the certificate in force and follows its files."""

    def __init__(self, files: Files, logger: Any) -> None:
        """Reads the files. Raises CertificatesInvalid."""
        self._files = files
        self._logger = logger
        self._seen = self._signature()
        self._initial = self._read()

    @classmethod
    def of(cls, settings: ServiceSettings, logger: Any) -> Certificates | None:
        """The certificates that the settings name; None when TLS is off."""
        server, security = settings.server, settings.security
        if not server.tls_enabled:
            return None
        assert server.tls_cert_path is not None
        assert server.tls_key_path is not None
        authority = security.ca_cert_path if security.mtls_enabled else None
        return cls(Files(server.tls_cert_path, server.tls_key_path, authority), logger)

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials for a gRPC port, which ask for changes at every handshake."""
        return grpc.dynamic_ssl_server_credentials(
            self._initial,
            self._changed,  # type: ignore[arg-type]  # None means no change; the stubs do not know
            require_client_authentication=self._files.authority is not None,
        )

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration when the files changed and can be used, else None. Called by grpc's threads."""
        signature = self._signature()
        if signature == self._seen:
            return None
        self._seen = signature
        try:
            configuration = self._read()
        except CertificatesInvalid as error:
            self._logger.warning("certificates not reloaded, those before stay", cause=str(error))
            return None
        self._logger.info("certificates reloaded", path=str(self._files.chain))
        return configuration

    def _paths(self) -> tuple[Path, ...]:
        files = self._files
        return (files.chain, files.key) if files.authority is None else (files.chain, files.key, files.authority)

    def _signature(self) -> tuple[tuple[int, int, int], ...]:
        """What tells whether the files changed: inode, size and time of each; zeros for one that is missing."""
        found = []
        for path in self._paths():
            try:
                facts = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((facts.st_ino, facts.st_size, facts.st_mtime_ns))
        return tuple(found)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        """A configuration from the files, after OpenSSL has found that they can be used and belong together."""
        files = self._files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(files.chain, files.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise CertificatesInvalid(
                f"{files.chain} and {files.key} are no certificate with its key: {error}"
            ) from None
        root = None
        if files.authority is not None:
            try:
                context.load_verify_locations(files.authority)
                root = files.authority.read_bytes()
            except OSError as error:
                raise CertificatesInvalid(f"{files.authority} holds no certificate: {error}") from None
        pair = (files.key.read_bytes(), files.chain.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=root)


def _no_password() -> str:
    """Refuses an encrypted key instead of asking the terminal for its password."""
    raise ValueError("the key is encrypted; give it without a password")
