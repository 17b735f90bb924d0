"""Failpoints from the environment: a test says where a process ends, stops or fails; in service there are none.

`LLMSR_FAILPOINTS=name:kill,name:stop,name:raise,name:pause:SECONDS,name@3:kill`; `@3` means the third time that it is
reached.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from llm_schema_registry import errors

VARIABLE = "LLMSR_FAILPOINTS"
PAUSE_SECONDS_MAX = 600.0


@dataclass(frozen=True, slots=True)
class _Action:
    time: int
    verb: str
    seconds: float


class NoFailpoints:
    """What runs in service: nothing happens."""

    async def reached(self, name: str) -> None:
        """Nothing."""


class EnvironmentFailpoints:
    """Does at each point what the environment said."""

    def __init__(self, text: str) -> None:
        self._actions = dict(_parsed(part) for part in text.split(",") if part)
        self._seen: Counter[str] = Counter()

    async def reached(self, name: str) -> None:
        """Ends the process (`kill`), stops it until SIGCONT (`stop`), raises (`raise`) or waits (`pause`)."""
        action = self._actions.get(name)
        if action is None:
            return
        self._seen[name] += 1
        if self._seen[name] != action.time:
            return
        match action.verb:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "raise":
                raise errors.Internal(f"failpoint {name}")
            case "pause":
                await asyncio.sleep(action.seconds)


def failpoints(environment: Mapping[str, str]) -> NoFailpoints | EnvironmentFailpoints:
    """The failpoints of an environment. Raises ValueError for a text that cannot be read."""
    text = environment.get(VARIABLE, "")
    return EnvironmentFailpoints(text) if text else NoFailpoints()


def _parsed(part: str) -> tuple[str, _Action]:
    where, verb, *rest = part.split(":")
    name, _, time = where.partition("@")
    seconds = float(rest[0]) if rest else 0.0
    if verb not in {"kill", "stop", "raise", "pause"} or not 0 <= seconds <= PAUSE_SECONDS_MAX:
        raise ValueError(f"{VARIABLE}: {part!r} is not name[@time]:kill|stop|raise|pause:SECONDS")
    return name, _Action(int(time or 1), verb, seconds)
