"""Reload: settings read again in a running process; all that may change without a restart changes, or nothing does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from llm_schema_registry import errors
from llm_schema_registry.kernel.control import EffectiveOption, Reloaded
from llm_schema_registry.kernel.settings import ServiceSettings
from llm_schema_registry.kernel.settings_pages import effective
from llm_schema_registry.kernel.settings_sources import Loaded, SettingsInvalid, load, options

S = TypeVar("S", bound=ServiceSettings)

DEFAULT = "default"
"""The source of an option that nothing sets."""


@dataclass(frozen=True, slots=True)
class ReloadHook(Generic[S]):
    """Puts options in force that changed in a running process.

    options: names as `section.option`; each is marked with RELOADS in its model.
    apply: called with the new settings when one of the options changed. When it raises, every hook that was called is
    called again with the settings before, and the reload has failed as a whole.
    """

    options: frozenset[str]
    apply: Callable[[S], Awaitable[None]]


class Reloader(Generic[S]):
    """Holds the settings in force and replaces them."""

    def __init__(self, loaded: Loaded[S], environment: Mapping[str, str]) -> None:
        self._settings = loaded.settings
        self._sources = dict(loaded.sources)
        self._environment = environment
        self._hooks: list[ReloadHook[S]] = []

    def add(self, hooks: Sequence[ReloadHook[S]]) -> None:
        """Adds hooks. Raises ValueError for an option that is not marked with RELOADS: a defect of the service."""
        marked = reloadable(type(self._settings))
        for hook in hooks:
            if not hook.options <= marked:
                raise ValueError(f"not marked with RELOADS: {sorted(hook.options - marked)}")
            self._hooks.append(hook)

    async def reload(self) -> Reloaded:
        """Reads all sources and applies what changed. Raises InvalidField naming every option at fault."""
        model = type(self._settings)
        try:
            found = load(model, self._environment)
        except SettingsInvalid as invalid:
            violations = [errors.Violation(found.option, str(found)) for found in invalid.problems]
            raise errors.InvalidField(
                "The settings have errors; those before stay in force.", violations=violations
            ) from None
        fresh = found.settings
        different = {option for option in options(model) if _of(fresh, option) != _of(self._settings, option)}
        hooked = {option for hook in self._hooks for option in hook.options}
        changed = different & hooked
        if changed:
            await self._apply(_with(self._settings, fresh, changed), changed)
            self._sources |= {option: found.sources.get(option, DEFAULT) for option in changed}
        return Reloaded(tuple(sorted(changed)), tuple(sorted(different - changed)))

    def options(self) -> list[EffectiveOption]:
        """Every option as it is in force."""
        return effective(Loaded(self._settings, self._sources))

    async def _apply(self, settings: S, changed: set[str]) -> None:
        done: list[ReloadHook[S]] = []
        try:
            for hook in self._hooks:
                if hook.options & changed:
                    done.append(hook)
                    await hook.apply(settings)
        except BaseException:
            for hook in reversed(done):
                await hook.apply(self._settings)
            raise
        self._settings = settings


def reloadable(model: type[ServiceSettings]) -> frozenset[str]:
    """Options that are marked with RELOADS."""
    return frozenset(
        option
        for option, known in options(model).items()
        if isinstance(known.json_schema_extra, dict) and known.json_schema_extra.get("reloads")
    )


def _of(settings: ServiceSettings, option: str) -> object:
    section, _, name = option.partition(".")
    return getattr(getattr(settings, section), name)


def _with(settings: S, fresh: S, changed: set[str]) -> S:
    """The settings with the changed options of the fresh ones."""
    sections = {}
    for section, current in settings.sections():
        update = {
            option.partition(".")[2]: _of(fresh, option) for option in changed if option.startswith(f"{section}.")
        }
        sections[section] = current.model_copy(update=update) if update else current
    return settings.model_copy(update=sections)
