"""Policies of the methods, read from the `policy` option of their descriptors."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import MethodDescriptor

from llm_schema_registry.common.v1 import method_policy_pb2 as pb

EXEMPT_SERVICES = frozenset(
    {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
)
"""Services that need no identity and are served in every state."""


class PolicyMissing(Exception):
    """A method of a service has no complete policy: a defect of the contract, found at start."""


@dataclass(frozen=True, slots=True)
class Method:
    """One method as the server treats it.

    name: full name without a leading slash. seconds: the policy's default deadline; 0 for streams without one.
    states: numbers of the states in which it is served. exempt: health and reflection.
    """

    name: str
    role: int
    seconds: float
    states: frozenset[int]
    exempt: bool = False

    @property
    def is_control(self) -> bool:
        """Whether the method steers the process."""
        return self.role == pb.ROLE_CONTROL


def methods(service: str) -> dict[str, Method]:
    """Policies of a service's methods, by method name. Raises PolicyMissing, naming every method at fault."""
    try:
        descriptor = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise PolicyMissing(f"{service}: its generated module is not imported.") from None
    found, missing = {}, []
    for method in descriptor.methods:
        name = f"{service}/{method.name}"
        if service in EXEMPT_SERVICES:
            found[method.name] = Method(name, 0, 0.0, frozenset(), exempt=True)
        elif (policy := _policy(method)) is None:
            missing.append(name)
        else:
            seconds = policy.default_deadline.ToNanoseconds() / 1e9
            states = frozenset(int(state) for state in policy.allowed_states)
            found[method.name] = Method(name, int(policy.role), seconds, states)
    if missing:
        raise PolicyMissing("no `policy` option with a role and states: " + ", ".join(missing))
    return found


def _policy(method: MethodDescriptor) -> pb.MethodPolicy | None:
    policy = method.GetOptions().Extensions[pb.policy]
    complete = policy.role != pb.ROLE_UNSPECIFIED and policy.allowed_states
    return policy if complete else None
