"""Findings in plain words.

Rules: the keyword of the reader that rejects the witness, in upper snake case, and `_REJECTS`: `required` is
REQUIRED_REJECTS, `additionalProperties` ADDITIONAL_PROPERTIES_REJECTS, a schema `false` FALSE_SCHEMA_REJECTS. What
could be neither proved nor refuted is UNDECIDED.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from services.registry.domain.evolution.policy import Rules
from services.registry.domain.evolution.report import Finding, Verdict, Witness
from services.registry.domain.formats.json_text import pointer
from services.registry.domain.formats.jsonschema.exact.gaps import Gap
from services.registry.domain.formats.jsonschema.exact.search import Found

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
    "false schema": "let the reader accept what it forbids here, or stop writing it in a version before",
    "pattern": "keep the pattern, or replace it by one that accepts all that the old one does",
    "anyOf": "keep a branch that accepts what writers may send, and only add branches",
    "oneOf": "keep exactly one branch for whatever writers may send; use `anyOf` where branches overlap",
    "not": "narrow what the reader forbids to what writers do not send",
    "propertyNames": "widen what names the reader accepts",
    "uniqueItems": "let the reader accept repeated items, or demand unique items of writers in a version before",
}
_WIDEN: Final = "widen the limit in the reader to what writers may send"
_OTHERWISE: Final = "; or register the schema under another subject"


def incompatible(found: Found, rules: Rules) -> Finding:
    """The finding for a witness."""
    error = found.errors[0]
    keyword = error.kind.name
    reader_path = pointer(error.schema_path)
    place = f"at `{pointer(error.instance_path)[:PATH_CHARACTERS_MAX]}`" if error.instance_path else "at its root"
    return Finding(
        rule=_rule(keyword),
        verdict=Verdict.INCOMPATIBLE,
        message=(
            f"the reader's `{reader_path[:PATH_CHARACTERS_MAX]}` rejects data that the writer may send: data like the "
            f"witness is valid for the writer and rejected by the reader {place}: "
            f"{error.message[:REASON_CHARACTERS_MAX]}{_assumed(rules)}"
        ),
        remedy=_REMEDIES.get(keyword, _WIDEN) + _OTHERWISE,
        reader_path=reader_path,
        writer_path=_writer_path(found.gap),
        witness=Witness(found.text),
    )


def undecided(gap: Gap, rules: Rules) -> Finding:
    """The finding for what could be neither proved nor refuted."""
    keyword = f"`{gap.part}` of " if gap.part else ""
    writer = _writer_path(gap)
    return Finding(
        rule=UNDECIDED,
        verdict=Verdict.UNDECIDED,
        message=(
            "it could be neither proved nor refuted that "
            f"{keyword}the reader's `{gap.node.path[:PATH_CHARACTERS_MAX]}` accepts whatever "
            f"follows the writer's `{writer[:PATH_CHARACTERS_MAX]}`{_assumed(rules)}"
        ),
        remedy=(
            "write both places alike: the same patterns letter for letter, branches that a `const` or a type tells "
            "apart, one draft for both; or check the change yourself and register with `accept_undecided`, which is "
            "audited"
        ),
        reader_path=gap.node.path,
        writer_path=writer,
    )


def _rule(keyword: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|[^A-Za-z]+", "_", keyword).upper() + "_REJECTS"


def _writer_path(gap: Gap) -> str:
    """Where the writer describes the place, as well as it can be told."""
    return next(
        (node.path for node in gap.context.nodes if node.raw is not None),
        gap.context.nodes[0].path if gap.context.nodes else "",
    )


def _assumed(rules: Rules) -> str:
    assumed = []
    if rules.declared_properties_only:
        assumed.append("writers send only declared properties")
    if rules.reader_fills_defaults:
        assumed.append("readers fill defaults")
    return f" (assumed: {'; '.join(assumed)})" if assumed else ""
