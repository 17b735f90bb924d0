"""STRICT and LENIENT: the reference registry's rules for JSON Schema, by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from services.registry.domain.evolution.policy import Policy
from services.registry.domain.evolution.report import Finding, Verdict
from services.registry.domain.formats import Parsed
from services.registry.domain.formats.jsonschema.rules import arrays, combined, objects, scalars
from services.registry.domain.formats.jsonschema.rules.comparison import (
    STEPS_MAX,
    Comparison,
    Found,
    Pair,
    Steps,
    TooCostly,
)
from services.registry.domain.formats.jsonschema.rules.names import compatible_under
from services.registry.domain.formats.jsonschema.rules.nodes import Kind, Node, NotResolved, Numbers, Side

__all__ = ["Found", "findings", "found"]


def findings(reader: Parsed, writer: Parsed, policy: Policy) -> Iterator[Finding]:
    """How the reader copes with what the writer writes, by STRICT or LENIENT; what does no harm is among it."""
    yield from (one.finding for one in found(reader, writer, policy))


def found(reader: Parsed, writer: Parsed, policy: Policy) -> Sequence[Found]:
    """The findings with where their parts are. One that says NOT_DECIDED when a limit is reached."""
    numbers = Numbers()
    comparison = Comparison(Side(writer, numbers), Side(reader, numbers), compatible_under(policy), _compare, STEPS_MAX)
    try:
        result = comparison.decide()
    except TooCostly:
        return (_not_decided(f"comparing the schemas takes more than {STEPS_MAX} steps", "make unions smaller"),)
    except NotResolved as error:
        return (_not_decided(str(error), "let the reference lead into `$defs` or `definitions`"),)
    several = _once(result.found())
    assert result.compatible or any(one.finding.verdict is Verdict.INCOMPATIBLE for one in several)
    return several


def _compare(pair: Pair) -> Steps:
    """Everything that the rules say of one pair."""
    writer, reader = pair.writer, pair.reader
    if reader.kind == "combined" != writer.kind and (yield from combined.plain_and_combined(pair)):
        return
    if writer.kind == "combined" != reader.kind and (yield from combined.combined_and_plain(pair)):
        return
    if writer.kind != reader.kind:
        if writer.kind != "nothing" and reader.kind != "anything":
            places = (_type_place(writer), _type_place(reader))
            pair.add("TYPE_CHANGED", *places, old=writer.described(), new=reader.described(), why=_why(writer, reader))
        return
    if writer.whole and reader.whole:
        scalars.remarks(pair)
    if writer.kind in ("string", "number", "array", "object"):
        scalars.typing(pair)
    if writer.kind in _PLAIN_RULES:
        _PLAIN_RULES[writer.kind](pair)
    elif writer.kind in _DEEP_RULES:
        yield from _DEEP_RULES[writer.kind](pair)


_PLAIN_RULES: Final[Mapping[Kind, Callable[[Pair], None]]] = {
    "string": scalars.strings,
    "number": scalars.numbers,
    "enum": scalars.enumerations,
}
_DEEP_RULES: Final[Mapping[Kind, Callable[[Pair], Steps]]] = {
    "object": objects.objects,
    "array": arrays.arrays,
    "combined": combined.combined,
    "not": combined.negations,
}


def _type_place(node: Node) -> str:
    return node.place("type") if node.typed and "type" in node else node.path


def _why(writer: Node, reader: Node) -> str:
    if reader.kind == "combined":
        return ", which asks for more" if reader.criterion == "allOf" else ", none of which accepts all of that"
    return ", not all of which it accepts" if writer.kind == "combined" else ""


def _not_decided(message: str, remedy: str) -> Found:
    return Found(
        Finding(
            rule="NOT_DECIDED",
            verdict=Verdict.UNDECIDED,
            message=message,
            remedy=f"{remedy}, or register under level NONE once you have checked the change yourself",
        )
    )


def _once(several: Iterator[Found]) -> Sequence[Found]:
    """Each rule once at each place: several ways may lead there."""
    kept: dict[tuple[str, str, str], Found] = {}
    for one in several:
        kept.setdefault((one.finding.rule, one.finding.reader_path, one.finding.writer_path), one)
    return tuple(kept.values())
