"""An admin service beside the registry with backups of the run, for commands that need one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.fix_admin import ADMIN_TOKEN, admin_environment
from tests.fix_cli import BackedUp, Ran, run_here
from tests.fix_service import Service


@dataclass(frozen=True, slots=True)
class Maintained:
    """A system with its admin service. settings: of the program."""

    admin: Service
    settings: dict[str, str]

    def run(self, *arguments: str, **settings: str) -> Ran:
        """Runs a command in this process: `run("db", "stats")`."""
        return run_here(*arguments, **{**self.settings, **settings})

    def json(self, *arguments: str) -> Any:
        """The document of a command that must succeed."""
        ran = self.run(*arguments, "--output", "json")
        assert ran.status == 0, ran.stderr
        return ran.document


@pytest.fixture(scope="session")
def maintained(tmp_path_factory: pytest.TempPathFactory, backed_up: BackedUp) -> Iterator[Maintained]:
    """One admin service for the run."""
    options = {
        "admin__directory": tmp_path_factory.mktemp("journals"),
        "admin__sample_seconds": 10,
        "peers__registry": backed_up.registry.target,
        "peers__backup": backed_up.backup.target,
    }
    environment = admin_environment(backed_up.database_url, options)
    admin = Service(tmp_path_factory.mktemp("admin"), environment, "admin")
    try:
        admin.start()
        target = {"LLMSR_ADMIN_TARGET": admin.target, "LLMSR_ADMIN_TOKEN": ADMIN_TOKEN}
        yield Maintained(admin, {**backed_up.settings, **target})
        assert admin.stop() == 0, admin.log[-4000:]
    finally:
        admin.kill()
