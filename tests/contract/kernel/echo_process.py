"""A service of the tests as a process of its own: `python -m tests.contract.kernel.echo_process`.

ECHO_BUILD says what its build does: `hang` waits for ever, `fail` raises StartFailed, `defect` another exception,
`unreachable` waits for a dependency that never comes. ECHO_CLOSE=`hang` makes closing the database hang.
SIGUSR1 lets calls that hang be answered.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from llm_schema_registry import errors
from llm_schema_registry.kernel.process import Definition, DependencyCheck, Parts, Runtime, StartFailed, run
from llm_schema_registry.kernel.settings import ServiceSettings
from tests.fix_echo import EchoCode, EchoHandlers, echo_servicer


class Held:
    """Stands for a pool that the service holds."""

    async def aclose(self) -> None:
        """Closes it, or hangs."""
        if os.environ.get("ECHO_CLOSE") == "hang":
            await asyncio.Event().wait()


@asynccontextmanager
async def build(runtime: Runtime[ServiceSettings]) -> AsyncIterator[Parts[ServiceSettings]]:
    """The echo service, with two things to close."""
    runtime.steps.add("close redis", Held().aclose)
    runtime.steps.add("close database", Held().aclose, 0.2)
    match os.environ.get("ECHO_BUILD"):
        case "hang":
            await asyncio.Event().wait()
        case "fail":
            raise StartFailed("The echo has no mountain. Build one.")
        case "defect":
            raise RuntimeError("a defect")
        case "unreachable":
            await runtime.wait_for("mountain", unreachable)
    code = EchoCode(Path(), importlib.import_module("echo_pb2"), importlib.import_module("echo_pb2_grpc"))
    handlers = EchoHandlers(code.pb)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, handlers.release.set)
    yield Parts(
        servicers=[echo_servicer(code, handlers)],
        dependencies=[
            DependencyCheck("postgresql", critical=True, check=flag("ECHO_DATABASE_DOWN")),
            DependencyCheck("redis", critical=False, check=flag("ECHO_REDIS_DOWN")),
        ],
    )


async def unreachable() -> None:
    """An attempt that never succeeds."""
    raise errors.DatabaseUnavailable("The mountain does not answer.")


def flag(variable: str):  # type: ignore[no-untyped-def]
    """A check that fails while the file that the variable names exists."""

    async def check() -> str | None:
        name = os.environ.get(variable)
        return "switched off" if name and Path(name).exists() else None  # noqa: ASYNC240 - a flag of the tests

    return check


DEFINITION = Definition(name="echo", settings=ServiceSettings, build=build)

if __name__ == "__main__":
    sys.exit(run(DEFINITION))
