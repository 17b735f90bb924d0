"""The command line of the registry's tools.

Standard output, one JSON object a line, the last one the result:

    replay        {"epoch", "position", "applied", "unread"}; before it, about every second, {"progress": {the same}}
    check         {"schemas", "changes", "problems": [words, at most 100]}
    begin-epoch   {"epoch", "position"}
    any failure   {"error": words, "reason": of error_reason.proto or CANNOT_FOLLOW, "position": of the change or null}

Exit status: 0 when the result is printed, also when `check` found problems; 1 for a failure; 2 for wrong settings or
arguments, which are named on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.postgres import PostgresOptions
from llm_schema_registry.kernel.settings import Problem
from llm_schema_registry.kernel.settings_sources import SettingsInvalid, load
from services.registry.app import postgres_options
from services.registry.domain.events import EpochStarted
from services.registry.settings import RegistrySettings
from services.registry.tools import TOOLS
from services.registry.tools.check import check
from services.registry.tools.epoch import begin_epoch
from services.registry.tools.place import NAME, SCHEMA
from services.registry.tools.replay import CannotFollow, Replayed, replay
from services.registry.tools.stored import NotAChange

EXIT_FAILED = 1
EXIT_SETTINGS = 2
CANNOT_FOLLOW = "CANNOT_FOLLOW"


class ToolSettings(RegistrySettings):
    """The registry's options, of which the database's count. A tool serves nobody, so it needs no authenticator."""

    def rules(self) -> Iterator[Problem]:
        """None between sections."""
        return iter(())


def main(arguments: Sequence[str]) -> int:
    """Runs one tool and returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        settings = load(ToolSettings, os.environ).settings
    except SettingsInvalid as invalid:
        problems = "".join(f"  {problem}\n" for problem in invalid.problems)
        sys.stderr.write(f"registry: the settings have {len(invalid.problems)} error(s):\n{problems}")
        return EXIT_SETTINGS
    try:
        result = asyncio.run(_run(given, postgres_options(settings)))
    except CannotFollow as error:
        return _fail(str(error), CANNOT_FOLLOW, error.position)
    except NotAChange as error:
        return _fail(str(error), CANNOT_FOLLOW)
    except errors.Error as error:
        return _fail(error.message, error.reason)
    _print(result)
    return 0


async def _run(given: argparse.Namespace, options: PostgresOptions) -> Mapping[str, object]:
    clock = SystemClock()
    if given.tool == "check":
        return asdict(await check(options, given.schema))
    if given.tool == "begin-epoch":
        event = EpochStarted(given.epoch, given.parent, given.fork)
        begun = await begin_epoch(
            options, given.schema, event, next_schema_id=given.next_schema_id, actor=given.actor, clock=clock
        )
        return asdict(begun)
    return asdict(await replay(options, given.schema, sys.stdin.buffer, clock=clock, progress=_progress))


def _progress(so_far: Replayed) -> None:
    _print({"progress": asdict(so_far)})


def _fail(message: str, reason: str, position: int | None = None) -> int:
    _print({"error": message, "reason": reason, "position": position})
    return EXIT_FAILED


def _print(value: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.registry")
    tools = parser.add_subparsers(dest="tool", required=True)
    for name in TOOLS:
        tool = tools.add_parser(name)
        tool.add_argument("--schema", type=_schema, default=SCHEMA, help="the PostgreSQL schema of the tables")
        if name == "begin-epoch":
            tool.add_argument("--epoch", type=_positive, required=True, help="the new epoch")
            tool.add_argument("--parent", type=_positive, required=True, help="the epoch it is restored from")
            tool.add_argument("--fork", type=_natural, required=True, help="the last position that both share")
            tool.add_argument("--next-schema-id", type=_positive, required=True, help="no smaller id is given again")
            tool.add_argument("--actor", required=True, help="who does it")
    return parser


def _schema(text: str) -> str:
    if NAME.fullmatch(text) is None:
        raise argparse.ArgumentTypeError("must be lower-case letters, digits and underscores")
    return text


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a number of 0 or more")
    return int(text)


def _positive(text: str) -> int:
    if _natural(text) < 1:
        raise argparse.ArgumentTypeError("must be a number of 1 or more")
    return int(text)
