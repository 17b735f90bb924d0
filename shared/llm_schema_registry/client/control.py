"""A thin asyncio client that steers one process: the generated stub on one channel, errors as the server raised them.

async with ControlClient("127.0.0.1:9090", metadata=[("authorization", f"Bearer {token}")]) as process:
    answer = await process.call(process.control.GetState, GetStateRequest())
"""

from __future__ import annotations

from collections.abc import Sequence

from llm_schema_registry.client.calls import Calls
from llm_schema_registry.client.channel import Tls
from llm_schema_registry.control.v1 import control_service_pb2_grpc


class ControlClient(Calls):
    """The stub `control`."""

    def __init__(
        self,
        target: str | Sequence[str],
        *,
        tls: Tls | None = None,
        metadata: Sequence[tuple[str, str]] = (),
        timeout_seconds: float | None = None,
    ) -> None:
        """As client.calls.Calls."""
        super().__init__(target, tls=tls, metadata=metadata, timeout_seconds=timeout_seconds)
        self.control = control_service_pb2_grpc.ControlServiceStub(self.channel)
