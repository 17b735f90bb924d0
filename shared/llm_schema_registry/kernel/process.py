"""One process from its command line to its exit status: what every service's `__main__` calls.

    DEFINITION = Definition(name="registry", settings=RegistrySettings, build=build)
    sys.exit(run(DEFINITION))

    python -m services.registry            serve until SIGTERM, SIGINT or the Stop RPC; a second signal forces the end
    python -m services.registry config     print the effective settings with their sources, secrets redacted
    python -m services.registry reference  print the reference page of all options (docs/configuration.md)
    python -m services.registry --version

Exit status: 0 after an orderly shutdown, 1 when the start or a closing step failed, 2 for wrong settings or arguments,
75 after one that the Stop RPC asked for with a wish to be started again, 128 + the signal's number when forced.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llm_schema_registry import errors
from llm_schema_registry.kernel.about import version
from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.control import Cache
from llm_schema_registry.kernel.dependencies import DependencyCheck
from llm_schema_registry.kernel.identity import Authenticator
from llm_schema_registry.kernel.lifecycle import Lifecycle
from llm_schema_registry.kernel.metrics import MetricSource
from llm_schema_registry.kernel.reload import ReloadHook
from llm_schema_registry.kernel.server import Servicer
from llm_schema_registry.kernel.settings import ServiceSettings
from llm_schema_registry.kernel.settings_pages import configuration_page, effective_text
from llm_schema_registry.kernel.settings_sources import SettingsInvalid, load
from llm_schema_registry.kernel.shutdown import Steps

__all__ = [
    "Cache",
    "Definition",
    "DependencyCheck",
    "Parts",
    "ReloadHook",
    "Runtime",
    "Servicer",
    "StartFailed",
    "run",
]

S = TypeVar("S", bound=ServiceSettings)
T = TypeVar("T")

RETRY_SECONDS_MIN = 0.1
RETRY_SECONDS_MAX = 2.0
LOG_EVERY = 10
EXIT_SETTINGS = 2


@dataclass(frozen=True, slots=True)
class Parts(Generic[S]):
    """What a service gives to its process once it is built.

    authenticator: finds out who calls; None for client certificates, and in local mode for everybody.
    """

    servicers: Sequence[Servicer] = ()
    dependencies: Sequence[DependencyCheck] = ()
    reload: Sequence[ReloadHook[S]] = ()
    metrics: Sequence[MetricSource] = ()
    caches: Sequence[Cache] = ()
    authenticator: Authenticator | None = None


@dataclass(frozen=True, slots=True)
class Runtime(Generic[S]):
    """What a process gives to its service while that is built.

    settings: those of the start; a ReloadHook gets newer ones.
    steps: the shutdown stack. Add `close redis` first and `close database` second (newest closes first):
        `pool = await runtime.steps.enter("close database", open_pool(...))`
    logger: structlog's bound logger; `runtime.logger.info("event", key=value)`.
    instance_id: of this process, as its logs and ControlService tell it.
    """

    settings: S
    lifecycle: Lifecycle
    clock: Clock
    logger: Any
    steps: Steps
    instance_id: str

    async def wait_for(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """The result of an attempt, repeated while it raises an errors.Error of code UNAVAILABLE.

        Waits 0.1 s, then twice as long each time up to 2 s; logs the first failure and every tenth. Gives up with
        StartFailed after server.startup_timeout_seconds. Any other error is raised at once.
        """
        limit = self.settings.server.startup_timeout_seconds
        ends = self.clock.monotonic() + limit
        wait, failures = RETRY_SECONDS_MIN, 0
        while True:
            try:
                return await attempt()
            except errors.Error as error:
                if error.code is not errors.Code.UNAVAILABLE:
                    raise
                if self.clock.monotonic() + wait > ends:
                    raise StartFailed(
                        f"{name} was not there within {limit:g} s (server.startup_timeout_seconds): {error.message}"
                    ) from error
                if failures % LOG_EVERY == 0:
                    self.logger.warning("waiting for dependency", dependency=name, message=error.message)
            failures += 1
            await asyncio.sleep(wait)
            wait = min(wait * 2, RETRY_SECONDS_MAX)


@dataclass(frozen=True, slots=True)
class Definition(Generic[S]):
    """A service: its name, its settings, and how it is built.

    build: an async context manager that opens what the service needs, yields its parts, and on leaving stops its own
    background tasks. It is left after the last call has ended and before the steps it added are run. It may raise
    StartFailed with a message for the operator. A stop that is requested meanwhile cancels it.
    """

    name: str
    settings: type[S]
    build: Callable[[Runtime[S]], AbstractAsyncContextManager[Parts[S]]]


class StartFailed(Exception):
    """The process cannot start; the message tells the operator why and what to do."""


def run(definition: Definition[S], arguments: Sequence[str] | None = None) -> int:
    """Runs the service, or one of the commands above, and returns the exit status."""
    # Imported here: the composition imports this module for the types above.
    from llm_schema_registry.kernel.serving import Serving  # noqa: PLC0415

    command = _parser(definition.name).parse_args(arguments).command
    if command == "reference":
        sys.stdout.write(configuration_page(definition.settings))
        return 0
    try:
        loaded = load(definition.settings, os.environ)
    except SettingsInvalid as invalid:
        problems = "".join(f"  {problem}\n" for problem in invalid.problems)
        sys.stderr.write(f"{definition.name}: the settings have {len(invalid.problems)} error(s):\n{problems}")
        return EXIT_SETTINGS
    if command == "config":
        sys.stdout.write(effective_text(loaded))
        return 0

    async def serve() -> int:
        return await Serving(definition, loaded, os.environ).run()

    return asyncio.run(serve())


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m services.{name}",
        description=f"Runs the {name} service. Options are settings: see docs/configuration.md.",
    )
    parser.add_argument("--version", action="version", version=f"{name} {version()}")
    parser.add_argument(
        "command",
        nargs="?",
        choices=("serve", "config", "reference"),
        default="serve",
        help="serve (the default); config: print the effective settings with their sources;"
        " reference: print the page of all options",
    )
    return parser
