"""Which settings are in force: a subject's own before the global ones before the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from services.registry.domain.evolution.levels import LEVELS
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Terms
from services.registry.domain.model import Format, Settings

NOTHING_SET = Settings()

DEFAULTS = Settings(level="BACKWARD", declared_properties_only=True, reader_fills_defaults=False, assert_formats=False)

POLICY_DEFAULTS: Mapping[Format, Policy] = {
    Format.JSON: Policy.EXACT,
    Format.AVRO: Policy.STRICT,
    Format.PROTOBUF: Policy.STRICT,
}
"""In force where nobody names a policy."""

NAMES = tuple(field.name for field in fields(Settings))


def over(first: Settings, second: Settings) -> Settings:
    """The values of `first`, and of `second` where `first` has none."""
    values = {name: getattr(first, name) for name in NAMES}
    return Settings(**{name: getattr(second, name) if value is None else value for name, value in values.items()})


def without(settings: Settings, names: frozenset[str]) -> Settings:
    """The settings with some of them unset."""
    return Settings(**{name: None if name in names else getattr(settings, name) for name in NAMES})


def in_force(own: Settings, general: Settings) -> Settings:
    """The settings that count for a subject. Only `policy` may be None: then it is each format's own."""
    return over(own, over(general, DEFAULTS))


def is_empty(settings: Settings) -> bool:
    """Whether nothing is set."""
    return settings == NOTHING_SET


def inherits(own: Settings) -> bool:
    """Whether the global settings count for a subject."""
    return None in (getattr(own, name) for name in NAMES)


def terms_of(settings: Settings, form: Format) -> Terms:
    """What schemas of a format are checked by under settings in force."""
    assert settings.level is not None, "settings in force have a level"
    rules = Rules(
        policy=settings.policy or POLICY_DEFAULTS[form],
        declared_properties_only=bool(settings.declared_properties_only),
        reader_fills_defaults=bool(settings.reader_fills_defaults),
        assert_formats=bool(settings.assert_formats),
    )
    return Terms(LEVELS[settings.level], rules)
