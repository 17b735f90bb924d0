"""Findings in plain words.

Rules: the keyword of the reader that rejects the witness, in upper snake case, and `_REJECTS`: `required` is
REQUIRED_REJECTS, `additionalProperties` ADDITIONAL_PROPERTIES_REJECTS, a schema `false` FALSE_SCHEMA_REJECTS. What
could be neither proved nor refuted is UNDECIDED.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import jsonschema_rs

from services.registry.domain.evolution.policy import Rules
from services.registry.domain.evolution.report import Finding, Verdict, Witness
from services.registry.domain.formats.json_text import pointer
from services.registry.domain.formats.jsonschema.exact.gaps import Gap
from services.registry.domain.formats.jsonschema.exact.search import Found
from services.registry.domain.formats.jsonschema.keywords import SUBSCHEMA_MAPS

UNDECIDED: Final = "UNDECIDED"
REASON_CHARACTERS_MAX: Final = 300
PATH_CHARACTERS_MAX: Final = 200

_REMEDIES: Final[Mapping[str, str]] = {
    "required": "make the property optional in the reader, or give it a default and let readers fill defaults",
    "type": "keep the type, or widen it to a list that has the old one too",
    "enum": "keep the values that writers may send, and only add to them",
    "const": "keep the value that writers may send, or list both with `enum`",
    "additionalProperties": "declare the property in the reader, or let it accept additional properties",
    "unevaluatedProperties": "declare the property in the reader, or let it accept further properties",
    "unevaluatedItems": "describe the items in the reader, or let it accept further ones",
    "falseSchema": "let the reader accept what it forbids here, or stop writing it in a version before",
    "pattern": "keep the pattern, or replace it by one that accepts all that the old one does",
    "dependentRequired": "drop the demand in the reader, or make writers send both in a version before",
    "contains": "ask for no such items, or demand them of writers in a version before",
    "format": "drop the format in the reader, or demand it of writers in a version before",
    "anyOf": "keep a branch that accepts what writers may send, and only add branches",
    "oneOf": "keep exactly one branch for whatever writers may send; use `anyOf` where branches overlap",
    "not": "narrow what the reader forbids to what writers do not send",
    "propertyNames": "widen what names the reader accepts",
    "uniqueItems": "let the reader accept repeated items, or demand unique items of writers in a version before",
}
_WIDEN: Final = "widen the limit in the reader to what writers may send"
_REASONS: Final[Mapping[str, str]] = {
    "Contains": "too few or too many of the items are as `contains` says",
    "FalseSchema": "nothing is allowed there",
    "AnyOf": "no branch of `anyOf` accepts it",
    "OneOfNotValid": "no branch of `oneOf` accepts it",
    "OneOfMultipleValid": "more than one branch of `oneOf` accepts it",
    "Not": "`not` forbids it",
}
"""By the kind of an error, where the library's own words are hard to read."""
_TOLD_APART: Final = frozenset(
    {"additionalProperties", "dependentRequired", "maxContains", "minContains", "unevaluatedProperties"}
)
"""Keywords that the library counts as another one in some cases."""


def incompatible(found: Found) -> Finding:
    """The finding for a witness. It holds without the assumptions too: they leave out data, and not this."""
    error = found.errors[0]
    keyword = _keyword(error)
    reader_path = pointer(error.schema_path)
    place = f" at `{pointer(error.instance_path)[:PATH_CHARACTERS_MAX]}`" if error.instance_path else ""
    reason = _REASONS.get(type(error.kind).__name__, error.message)
    return Finding(
        rule=_rule(keyword),
        verdict=Verdict.INCOMPATIBLE,
        message=(
            f"the reader's `{reader_path[:PATH_CHARACTERS_MAX]}` rejects data that the writer may send{place}: "
            f"{reason[:1].lower()}{reason[1:REASON_CHARACTERS_MAX]}"
        ),
        remedy=_REMEDIES.get(keyword, _WIDEN),
        reader_path=reader_path,
        writer_path=_writer_path(found.gap),
        witness=Witness(found.text),
    )


def undecided(gap: Gap, rules: Rules) -> Finding:
    """The finding for what could be neither proved nor refuted."""
    keyword = f" in `{gap.part}`" if gap.part else ""
    writer = _writer_path(gap)
    return Finding(
        rule=UNDECIDED,
        verdict=Verdict.UNDECIDED,
        message=(
            f"whether the reader's `{gap.node.path[:PATH_CHARACTERS_MAX]}` accepts{keyword} all that the writer's "
            f"`{writer[:PATH_CHARACTERS_MAX]}` allows could be neither proved nor refuted{_assumed(rules)}"
        ),
        remedy=(
            "write both places alike: the same patterns letter for letter, branches that a `const` or a type tells "
            "apart, one draft for both; or check the change yourself and register with `accept_undecided`, which is "
            "audited"
        ),
        reader_path=gap.node.path,
        writer_path=writer,
    )


def _keyword(error: jsonschema_rs.ValidationError) -> str:
    """The keyword that rejects: a name below a map of schemas, say of properties, is none."""
    path = error.schema_path
    last = str(path[-1]) if path else ""
    is_name = len(path) > 1 and path[-2] in SUBSCHEMA_MAPS
    return last if last in _TOLD_APART and not is_name else error.kind.name


def _rule(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", "_", keyword).upper() + "_REJECTS"


def _writer_path(gap: Gap) -> str:
    """Where the writer describes the place, as well as it can be told."""
    return next(
        (node.path for node in gap.context.nodes if node.raw is not None),
        gap.context.nodes[0].path if gap.context.nodes else "",
    )


def _assumed(rules: Rules) -> str:
    """What is assumed, which matters to who checks it by hand."""
    assumed = []
    if rules.declared_properties_only:
        assumed.append("writers send declared properties only")
    if rules.reader_fills_defaults:
        assumed.append("readers fill defaults")
    return f", assuming that {' and '.join(assumed)}" if assumed else ""
