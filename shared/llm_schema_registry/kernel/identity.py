"""Who calls: authenticators turn what a call carries into a Caller.

This release knows client certificates, the control credential, and local mode, which trusts everyone. A certificate
that the authority signed is an administrator: roles by name come with API keys and tokens.
"""

from __future__ import annotations

import enum
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from llm_schema_registry import errors
from llm_schema_registry.common.v1 import method_policy_pb2 as pb

_BEARER = "bearer "


class Role(enum.IntEnum):
    """Roles of common/v1/method_policy.proto. A higher one includes the lower ones, CONTROL apart."""

    VIEWER = pb.ROLE_VIEWER
    EDITOR = pb.ROLE_EDITOR
    ADMIN = pb.ROLE_ADMIN
    CONTROL = pb.ROLE_CONTROL


@dataclass(frozen=True, slots=True)
class Caller:
    """An identified caller: the name that logs and audits show, and what it may do."""

    name: str
    role: Role


class Authenticator(Protocol):
    """Finds out who calls."""

    def authenticate(self, context: Any, metadata: Mapping[str, str | bytes]) -> Caller:
        """The caller. Raises CredentialInvalid when there is no credential or it is not valid. Must not block.

        context: grpc.aio's servicer context of the call. metadata: the call's metadata, one value a key.
        """
        ...


class OpenLocal:
    """Local mode: whoever reaches the loopback address is its administrator."""

    _CALLER = Caller("local", Role.ADMIN)

    def authenticate(self, context: Any, metadata: Mapping[str, str | bytes]) -> Caller:  # noqa: ARG002 - the protocol
        """The one local caller."""
        return self._CALLER


class ClientCertificate:
    """mTLS: the caller is named by its certificate, which the TLS layer has verified."""

    def authenticate(self, context: Any, metadata: Mapping[str, str | bytes]) -> Caller:  # noqa: ARG002 - the protocol
        """The first SPIFFE id or other subject alternative name. The common name does not count."""
        names = certificate_names(context)
        if not names:
            raise errors.CredentialInvalid(
                "The client certificate names nobody: give it a SPIFFE id or another subject alternative name."
            )
        return Caller(names[0], Role.ADMIN)


class Credential:
    """A token, or a client certificate with one of the names of the settings, in every mode.

    section: of the options `token` and `client_names`. role: of whoever has either.
    """

    def __init__(self, section: str, role: Role, token: str | None, client_names: Iterable[str]) -> None:
        self._section = section
        self._role = role
        self.replace(token, client_names)

    def replace(self, token: str | None, client_names: Iterable[str]) -> None:
        """Puts another token and other names in force."""
        self._token = token.encode() if token else None
        self._names = frozenset(client_names)

    def authenticate(self, context: Any, metadata: Mapping[str, str | bytes]) -> Caller:
        """Whoever has the credential. Compares the token in constant time."""
        if self._names:
            for name in certificate_names(context):
                if name in self._names:
                    return Caller(name, self._role)
        sent = metadata.get("authorization")
        if self._token is not None and isinstance(sent, str) and _is_bearer(sent, self._token):
            return Caller(f"{self._section}-token", self._role)
        raise errors.CredentialInvalid(
            f"This needs the {self._section} token (metadata `authorization: Bearer <token>`, option"
            f" {self._section}.token) or a client certificate named in {self._section}.client_names."
        )


class ControlCredential(Credential):
    """ControlService: the control token, or a client certificate that control.client_names names."""

    def __init__(self, token: str | None, client_names: Iterable[str]) -> None:
        super().__init__("control", Role.CONTROL, token, client_names)


def _is_bearer(sent: str, token: bytes) -> bool:
    """Whether an authorization header carries the token, compared in constant time."""
    return sent[: len(_BEARER)].lower() == _BEARER and hmac.compare_digest(sent[len(_BEARER) :].encode(), token)


def certificate_names(context: Any) -> list[str]:
    """Names of the verified client certificate: the SPIFFE id first, then its subject alternative names."""
    facts: Mapping[str, Iterable[bytes]] = context.auth_context()
    found: list[str] = []
    for key in ("peer_spiffe_id", "peer_uri", "peer_dns", "x509_subject_alternative_name"):
        for value in facts.get(key, ()):
            name = value.decode("utf-8", "replace")
            if name and name not in found:
                found.append(name)
    return found


def require(caller: Caller, role: int) -> None:
    """Raises RoleRequired when the caller's role is below the one required."""
    if caller.role < role:
        needed = Role(role).name
        raise errors.RoleRequired(
            f"{caller.name} has the role {caller.role.name}; the method needs {needed}.",
            metadata={"role": caller.role.name, "required_role": needed},
        )
