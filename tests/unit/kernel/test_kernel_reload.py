"""Reload: everything that may change, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.kernel import status
from llm_schema_registry.kernel.control import Reloaded
from llm_schema_registry.kernel.reload import Reloader, ReloadHook
from llm_schema_registry.kernel.settings import ServiceSettings
from llm_schema_registry.kernel.settings_sources import CONFIG_FILE, load

LEVEL = "observability.log_level"
RATE = "observability.trace_sampling_rate"


class Process:
    """A process with two hooks that remember what they were given."""

    def __init__(self, path: Path, *, breaks: bool = False) -> None:
        self.path = path
        self.levels: list[str] = []
        self.rates: list[float] = []
        self._breaks = breaks
        self.write("info", 0.1)
        environment = {"SCHEMA_REGISTRY__SERVER__LOCAL_MODE": "true", CONFIG_FILE: str(path)}
        self.reloader = Reloader(load(ServiceSettings, environment), environment)
        self.reloader.add([ReloadHook(frozenset({LEVEL}), self._level), ReloadHook(frozenset({RATE}), self._rate)])

    def write(self, level: str, rate: float, more: str = "") -> None:
        """Writes the settings file."""
        self.path.write_text(f"[observability]\nlog_level = '{level}'\ntrace_sampling_rate = {rate}\n{more}")

    async def _level(self, settings: ServiceSettings) -> None:
        self.levels.append(settings.observability.log_level)

    async def _rate(self, settings: ServiceSettings) -> None:
        self.rates.append(settings.observability.trace_sampling_rate)
        if self._breaks and settings.observability.trace_sampling_rate > 0.1:
            raise errors.Conflict("not now")


async def test_changed_options_are_applied(tmp_path: Path) -> None:
    """Only hooks whose options changed are called, with the new settings; others need a restart."""
    process = Process(tmp_path / "settings.toml")
    process.write("debug", 0.1, "[server]\ndrain_seconds = 1\n")

    assert await process.reloader.reload() == Reloaded((LEVEL,), ("server.drain_seconds",))
    assert (process.levels, process.rates) == (["debug"], [])


async def test_repeated_reload_changes_nothing(tmp_path: Path) -> None:
    """A second reload of the same sources calls no hook."""
    process = Process(tmp_path / "settings.toml")
    process.write("debug", 0.1)
    await process.reloader.reload()

    assert await process.reloader.reload() == Reloaded((), ())
    assert process.levels == ["debug"]


async def test_wrong_settings_change_nothing(tmp_path: Path) -> None:
    """Settings with an error are refused as a whole; every option at fault is named."""
    process = Process(tmp_path / "settings.toml")
    process.write("loud", 7, "[server]\ndrain_seconds = 1\n")

    with pytest.raises(errors.InvalidField) as caught:
        await process.reloader.reload()

    assert {violation.field for violation in caught.value.violations} == {LEVEL, RATE}
    assert (process.levels, process.rates) == ([], [])


@pytest.mark.parametrize("content", ["control: {token: hunter2", "control: {token: *hunter2 }", "a: !!int hunter2"])
async def test_content_of_a_broken_file_is_not_told(tmp_path: Path, content: str) -> None:
    """The caller of a reload learns that the file is malformed, and nothing of what is in it."""
    path = tmp_path / "settings.yaml"
    path.write_text("{}")
    environment = {"SCHEMA_REGISTRY__SERVER__LOCAL_MODE": "true", CONFIG_FILE: str(path)}
    reloader = Reloader(load(ServiceSettings, environment), environment)
    path.write_text(content)

    with pytest.raises(errors.InvalidField) as caught:
        await reloader.reload()

    told = status.encode(caught.value).SerializeToString() + str(caught.value).encode()
    assert [violation.field for violation in caught.value.violations] == [CONFIG_FILE]
    assert b"hunter2" not in told


async def test_failed_hook_undoes_the_others(tmp_path: Path) -> None:
    """When a hook fails, those that were called get the settings before again."""
    process = Process(tmp_path / "settings.toml", breaks=True)
    process.write("debug", 0.5)

    with pytest.raises(errors.Conflict):
        await process.reloader.reload()

    assert (process.levels, process.rates) == (["debug", "info"], [0.5, 0.1])


def test_hooks_are_for_marked_options(tmp_path: Path) -> None:
    """A hook for an option that is not marked is a defect, told at start."""
    process = Process(tmp_path / "settings.toml")

    with pytest.raises(ValueError, match=r"server\.grpc_port"):
        process.reloader.add([ReloadHook(frozenset({"server.grpc_port"}), process._level)])
