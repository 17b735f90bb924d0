"""Who calls: certificates, tokens, roles; and how much time the work gets."""

from __future__ import annotations

from typing import Any

import pytest

from llm_schema_registry import errors
from llm_schema_registry.kernel.calls import Call, current_call, current_caller, remaining_seconds
from llm_schema_registry.kernel.identity import (
    Caller,
    ClientCertificate,
    ControlCredential,
    OpenLocal,
    Role,
    require,
)


class Context:
    """A servicer context that knows the peer's certificate."""

    def __init__(self, **facts: list[bytes]) -> None:
        self._facts = facts

    def auth_context(self) -> dict[str, list[bytes]]:
        """What TLS knows."""
        return self._facts


def test_local_mode_trusts_everyone() -> None:
    """In local mode every caller is the local administrator."""
    assert OpenLocal().authenticate(Context(), {}) == Caller("local", Role.ADMIN)


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"peer_spiffe_id": [b"spiffe://x/a"], "peer_dns": [b"a.x"]}, "spiffe://x/a"),
        ({"x509_subject_alternative_name": [b"a.x", b"b.x"]}, "a.x"),
    ],
)
def test_certificates_name_the_caller(facts: dict[str, list[bytes]], name: str) -> None:
    """The SPIFFE id comes before other names."""
    assert ClientCertificate().authenticate(Context(**facts), {}).name == name


def test_common_name_is_no_identity() -> None:
    """A certificate with a common name alone names nobody."""
    with pytest.raises(errors.CredentialInvalid):
        ClientCertificate().authenticate(Context(x509_common_name=[b"admin"]), {})


@pytest.mark.parametrize("header", ["Bearer right-token", "bearer right-token"])
def test_control_token(header: str) -> None:
    """The token gives the control role."""
    credential = ControlCredential("right-token", ())

    assert credential.authenticate(Context(), {"authorization": header}).role is Role.CONTROL


@pytest.mark.parametrize(
    "header", ["Bearer right-toke", "right-token", "Basic right-token", "Bearer ", "Bearer ünï", b"x"]
)
def test_other_credentials_are_refused(header: str | bytes) -> None:
    """Anything but the token is refused, whatever its form."""
    with pytest.raises(errors.CredentialInvalid):
        ControlCredential("right-token", ()).authenticate(Context(), {"authorization": header})


def test_without_a_credential_nobody_controls() -> None:
    """With neither token nor names an empty token is refused like any other."""
    with pytest.raises(errors.CredentialInvalid):
        ControlCredential(None, ()).authenticate(Context(), {"authorization": "Bearer "})


def test_replaced_token_counts_at_once() -> None:
    """After a replacement the old token is refused."""
    credential = ControlCredential("old-token", ())
    credential.replace("new-token", ())

    assert credential.authenticate(Context(), {"authorization": "Bearer new-token"})
    with pytest.raises(errors.CredentialInvalid):
        credential.authenticate(Context(), {"authorization": "Bearer old-token"})


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("needed", Role)
def test_roles_include_lower_ones(role: Role, needed: Role) -> None:
    """A role below the one needed is refused with both names."""
    if role >= needed:
        require(Caller("x", role), needed)
    else:
        with pytest.raises(errors.RoleRequired) as caught:
            require(Caller("x", role), needed)
        assert caught.value.metadata == {"role": role.name, "required_role": needed.name}


def test_outside_of_a_call() -> None:
    """Outside of a call there is no call, no caller, and no deadline but the one given."""
    assert current_call() is None
    assert remaining_seconds(3) == 3
    with pytest.raises(LookupError):
        current_caller()


@pytest.mark.parametrize("sent", ["", "x" * 129, "a b", "ü", b"raw"])
def test_malformed_request_ids_are_replaced(sent: Any) -> None:
    """A request id that could forge a log line is replaced; the new one stays the same."""
    call = Call("m", {"x-request-id": sent}, 0.0)

    assert call.request_id != sent
    assert call.request_id == call.request_id
