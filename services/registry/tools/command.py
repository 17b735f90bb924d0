"""The command line of the registry's tools.

Standard output, one JSON object a line, the last one the result:

    replay        {"epoch", "position", "applied", "unread"}; before it {"ready": true} once the database is reached,
                  and about every second {"progress": {the same}}
    check         {"schemas", "changes", "problems": [words, at most 100]}
    begin-epoch   {"epoch", "position"}; with --ask, {"ready": true} before it, once the database is reached: what to do
                  is then one JSON object on standard input, {"epoch", "parent", "fork", "next_schema_id", "actor"}
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.postgres import PostgresOptions
from llm_schema_registry.kernel.settings import Problem
from llm_schema_registry.kernel.settings_sources import SettingsInvalid, load
from services.registry.domain.events import EpochStarted
from services.registry.settings import RegistrySettings
from services.registry.tools import TOOLS
from services.registry.tools.check import check
from services.registry.tools.epoch import Wish, begin_epoch
from services.registry.tools.place import NAME, SCHEMA
from services.registry.tools.replay import CannotFollow, Replayed, replay
from services.registry.tools.stored import NotAChange

EXIT_FAILED = 1
EXIT_SETTINGS = 2
CANNOT_FOLLOW = "CANNOT_FOLLOW"
LINE_BYTES_MAX = 64 * 1024
WISH = ("epoch", "parent", "fork", "next_schema_id", "actor")


class ToolSettings(RegistrySettings):
    """The registry's options, of which the database's count. A tool serves nobody, so it needs no authenticator."""

    def rules(self) -> Iterator[Problem]:
        """None between sections."""
        return iter(())


def main(arguments: Sequence[str]) -> int:
    """Runs one tool and returns the exit status."""
    parser = _parser()
    given = parser.parse_args(arguments)
    _require_whole(parser, given)
    try:
        settings = load(ToolSettings, os.environ).settings
    except SettingsInvalid as invalid:
        problems = "".join(f"  {problem}\n" for problem in invalid.problems)
        sys.stderr.write(f"registry: the settings have {len(invalid.problems)} error(s):\n{problems}")
        return EXIT_SETTINGS
    try:
        result = asyncio.run(_run(given, PostgresOptions.of(settings.database, settings.service_name)))
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
        return asdict(await begin_epoch(options, given.schema, _asked if given.ask else _given(given), clock=clock))
    return asdict(await replay(options, given.schema, sys.stdin.buffer, clock=clock, ready=_ready, progress=_progress))


def _given(given: argparse.Namespace) -> Callable[[], Wish]:
    """The wish of the command line."""
    event = EpochStarted(given.epoch, given.parent, given.fork)
    return lambda: Wish(event, given.next_schema_id, given.actor)


def _asked() -> Wish:
    """The wish that standard input holds, once it does. Raises NotAChange for anything else."""
    _ready()
    try:
        asked = json.loads(sys.stdin.buffer.readline(LINE_BYTES_MAX))
        event = EpochStarted(int(asked["epoch"]), int(asked["parent"]), int(asked["fork"]))
        return Wish(event, int(asked["next_schema_id"]), str(asked["actor"]))
    except (ValueError, KeyError, TypeError):
        raise NotAChange("standard input does not say which epoch to begin") from None


def _ready() -> None:
    _print({"ready": True})


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
            tool.add_argument("--ask", action="store_true", help="read what follows from standard input")
            tool.add_argument("--epoch", type=_positive, help="the new epoch")
            tool.add_argument("--parent", type=_positive, help="the epoch it is restored from")
            tool.add_argument("--fork", type=_natural, help="the last position that both share")
            tool.add_argument("--next-schema-id", type=_positive, help="no smaller id is given again")
            tool.add_argument("--actor", help="who does it")
    return parser


def _require_whole(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Ends the program when a wish is neither asked for nor given."""
    if given.tool != "begin-epoch" or given.ask:
        return
    missing = [name for name in WISH if getattr(given, name) is None]
    if missing:
        parser.error(f"begin-epoch needs --ask, or {', '.join('--' + name.replace('_', '-') for name in missing)}")


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
