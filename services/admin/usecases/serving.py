"""The least that can be tried of the registry: whether its replicas serve."""

from __future__ import annotations

from collections.abc import Sequence

from services.admin.domain.system import REGISTRY, SmokeCheck
from services.admin.usecases.steer import Steer


class Serving:
    """See SmokeTest."""

    def __init__(self, steer: Steer) -> None:
        self._steer = steer

    async def run(self) -> Sequence[SmokeCheck]:
        """See SmokeTest."""
        found = await self._steer.look(REGISTRY)
        serving = [each for each in found if each.process and each.process.serves]
        return [SmokeCheck("serving", bool(serving), 0.0, f"{len(serving)} of {len(found)} replicas serve")]
