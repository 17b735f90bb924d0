"""By which rules a reader and a writer are compared."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Policy(enum.IntEnum):
    """Numbers are those of the contract.

    EXACT: a verdict is a proof or a witness. STRICT, LENIENT: the reference registry's default and relaxed rules.
    """

    EXACT = 1
    STRICT = 2
    LENIENT = 3


@dataclass(frozen=True, slots=True)
class Rules:
    """A policy, and the assumptions that EXACT makes for JSON Schema. The other policies and formats ignore those.

    declared_properties_only: writers send only properties that their schema declares where it leaves an object open.
    reader_fills_defaults: a reader puts a property's `default` where the property is missing.
    assert_formats: `format` counts.
    """

    policy: Policy
    declared_properties_only: bool = True
    reader_fills_defaults: bool = False
    assert_formats: bool = False
