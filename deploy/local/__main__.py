"""Runs a whole registry on this machine: PostgreSQL, Valkey and the services, with nothing to install first.

    python -m deploy.local [--home FOLDER]

Options of the services may be set in the environment as usual, for example
SCHEMA_REGISTRY__OBSERVABILITY__LOG_LEVEL=debug; what local mode itself decides (addresses, ports, database) stays.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from deploy.local import postgres, valkey
from deploy.local.home import Home, HomeInUse
from deploy.local.launcher import Launcher, Signals
from deploy.local.services import PLAN, ROOT, Plan

HOME_VARIABLE = "LLMSR_HOME"


def say(line: str) -> None:
    """Tells the person at the terminal; a terminal that is gone must not stop the orderly stop."""
    with suppress(OSError):
        print(line, flush=True)


def main(arguments: Sequence[str] | None = None, *, plan: Plan = PLAN) -> int:
    """Runs until a signal comes; returns the exit code: 0 after an orderly stop, 1 else."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.local",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = os.environ.get(HOME_VARIABLE) or ROOT / ".local"
    parser.add_argument(
        "--home", type=Path, default=default, help=f"data folder (else {HOME_VARIABLE}, else {ROOT.name}/.local)"
    )
    home = Home(Path(parser.parse_args(arguments).home).resolve())
    signals = Signals()
    signals.install()
    try:
        with home.locked():
            return Launcher(home, plan, signals=signals, say=say).run()
    except (HomeInUse, postgres.InstallMissing, valkey.InstallMissing, OSError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
