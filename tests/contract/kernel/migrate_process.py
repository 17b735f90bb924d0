"""Migrates as a service does at its start: `python migrate_process.py <folder>`, the URL in DATABASE_URL."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from llm_schema_registry.kernel.migrate import migrate
from llm_schema_registry.kernel.postgres import PostgresOptions


def main() -> None:
    """Prints the names of the applied files, one a line."""
    options = PostgresOptions(os.environ["DATABASE_URL"], ssl_enabled=False)
    for name in asyncio.run(migrate(options, Path(sys.argv[1]), schema="kernel_test", code_version="0.1.0")):
        print(name)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    main()
