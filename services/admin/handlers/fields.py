"""Reads the fields of requests, and collects everything that is wrong with them before it complains."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from llm_schema_registry.kernel import fields
from services.admin.domain.shutdown import ShutdownMode
from services.admin.domain.system import MODES, REGISTRY, State

CAUSE_CHARACTERS_MAX = 200
REPLICA_SECONDS = 120.0
REPLICA_SECONDS_MAX = 1800.0


class Fields(fields.Fields):
    """The fields of one request to the admin service."""

    def __init__(self, services: Sequence[str]) -> None:
        """services: that are known."""
        super().__init__()
        self._known_services = services

    def services(self, values: Sequence[str], default: Sequence[str] = (REGISTRY,)) -> Sequence[str]:
        """Names of services, each once, in the order in which they depend on each other."""
        wanted = values or default
        for value in wanted:
            self.service(value, "services")
        return [name for name in self._known_services if name in wanted]

    def service(self, value: str, field: str = "service") -> str:
        """The name of a service."""
        if value not in self._known_services:
            self.refuse(field, f"must be one of {', '.join(self._known_services)}, not {value[:64]!r}")
        return value

    def mode(self, value: int) -> State:
        """A mode that a process may be put into."""
        found = next((mode for mode in MODES if mode == value), None)
        return self.known(found, State.SERVING, "mode", [f"SERVICE_STATE_{mode.name}" for mode in MODES])

    def shutdown_mode(self, value: int) -> ShutdownMode:
        """How processes are stopped."""
        found = next((mode for mode in ShutdownMode if mode == value), None)
        return self.known(found, ShutdownMode.ROLLING, "mode", [f"SHUTDOWN_MODE_{mode.name}" for mode in ShutdownMode])

    def cause(self, value: str) -> str:
        """Why, for logs."""
        if len(value) > CAUSE_CHARACTERS_MAX or not (value.isprintable() or not value):
            self.refuse("cause", f"must be at most {CAUSE_CHARACTERS_MAX} characters in one line")
        return value

    def replica_seconds(self, value: Duration, *, given: bool) -> float:
        """How long one replica may take."""
        if not given:
            return REPLICA_SECONDS
        seconds = value.seconds + value.nanos / 1e9
        if not 0 < seconds <= REPLICA_SECONDS_MAX:
            self.refuse("replica_timeout", f"must be above 0 and at most {REPLICA_SECONDS_MAX:g} seconds")
        return seconds

    def seconds(self, value: Duration | None, field: str, bounds: tuple[float, float, float]) -> float:
        """A length of time, or none. bounds: its default, least and most."""
        default, least, most = bounds
        seconds = default if value is None else value.seconds + value.nanos / 1e9
        if not least <= seconds <= most:
            self.refuse(field, f"must be {least:g} to {most:g} seconds, not {seconds:g}")
        return seconds
