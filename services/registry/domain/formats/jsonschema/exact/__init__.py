"""The EXACT policy for JSON Schema: a verdict is a proof, a witness, or UNDECIDED.

Meaning: the reader is compatible with the writer when every instance that the writer's schema accepts, as far as the
assumptions in force let it be written, is accepted by the reader's. `closing` and `filling` say what the assumptions
mean. `format` is an annotation unless it is asserted.

COMPATIBLE (no finding) rests on equal texts, on a proof of `proof`, or on the library's `covers`. INCOMPATIBLE rests on
a witness that the library's validators of both original schemas confirm. All else is UNDECIDED. Every search is bounded
by counted steps, so the same pair always gets the same verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from cachetools import LRUCache

from services.registry.domain.evolution.policy import Rules
from services.registry.domain.evolution.report import Finding
from services.registry.domain.formats import Parsed
from services.registry.domain.formats.jsonschema.exact import wording
from services.registry.domain.formats.jsonschema.exact.apart import Apart
from services.registry.domain.formats.jsonschema.exact.check import Checker
from services.registry.domain.formats.jsonschema.exact.closing import Closing
from services.registry.domain.formats.jsonschema.exact.document import Document, Node
from services.registry.domain.formats.jsonschema.exact.facts import Context, Known
from services.registry.domain.formats.jsonschema.exact.filling import Filling
from services.registry.domain.formats.jsonschema.exact.gaps import Gap, Survey
from services.registry.domain.formats.jsonschema.exact.judge import Judge
from services.registry.domain.formats.jsonschema.exact.proof import Proof
from services.registry.domain.formats.jsonschema.exact.prover import Prover
from services.registry.domain.formats.jsonschema.exact.search import Found, Search

FINDINGS_MAX: Final = 20
APART_DEPTH_MAX: Final = 16
"""Claims within one another in a proof that is part of another one."""
ROUNDS_MAX: Final = 4
"""How often a proof is tried again with what the library has shown of its gaps."""

CHARACTERS_KEPT_MAX: Final = 1 << 20
"""Of the texts whose documents a worker keeps: comparing one schema with a hundred versions reads it once."""

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...], str, bool]

_documents: LRUCache[_Key, Document] = LRUCache(CHARACTERS_KEPT_MAX, getsizeof=lambda document: document.characters)

__all__ = ["findings"]


def findings(reader: Parsed, writer: Parsed, rules: Rules) -> Iterator[Finding]:
    """What the reader does not accept of what the writer may write: one finding for each keyword that rejects.

    Nothing when it is proved that it accepts everything. At most FINDINGS_MAX, INCOMPATIBLE with a witness each; or one
    that is UNDECIDED. May take seconds of CPU on hostile schemas, so it is called in a worker process.
    """
    yield from _Comparison(reader, writer, rules).findings()


class _Comparison:
    """One reader and one writer."""

    def __init__(self, reader: Parsed, writer: Parsed, rules: Rules) -> None:
        self._parsed = reader, writer
        self._rules = rules

    def findings(self) -> Iterator[Finding]:
        """See `findings`."""
        one, other = self._parsed
        if one.semantic_body == other.semantic_body and one.sources == other.sources and one.dialect == other.dialect:
            return
        documents = [_taken(parsed, assert_formats=self._rules.assert_formats) for parsed in self._parsed]
        self._prepare(*documents)
        try:
            found = [*self._found()]
        except RecursionError:  # The limits of depth count schemas, not frames, and the caller's stack is not ours.
            found = [wording.undecided(Gap(self._reader, "", self._context, ()), self._rules)]
        for parsed, document in zip(self._parsed, documents, strict=True):
            _put_back(parsed, document)
        yield from found

    def _found(self) -> Iterator[Finding]:
        if self._proof.holds(self._reader, self._context):
            return
        gaps = self._remaining()
        if not gaps:
            return
        found = False
        for finding in self._incompatible(gaps):
            found = True
            yield finding
        if not found and not self._proved_whole(gaps):
            witness = self._search.anywhere(self._reader, self._context)
            if witness is not None:
                yield wording.incompatible(witness)
            else:
                yield wording.undecided(gaps[0], self._rules)

    def _prepare(self, reader: Document, writer: Document) -> None:
        self._judge = Judge(*self._parsed, self._rules, (reader.root, writer.root))
        self._reader = Filling().relaxed(reader.root) if self._rules.reader_fills_defaults else reader.root
        root = Closing(writer).closed(writer.root) if self._rules.declared_properties_only else writer.root
        self._context = Context((root,))
        self._checker = Checker()
        self._prover = Prover()
        knowledge = Known()
        self._apart = Apart(knowledge, self._checker, self._prover)
        self._apart.proof = Proof(knowledge, self._checker, self._apart, depth_max=APART_DEPTH_MAX)
        self._proof = Proof(knowledge, self._checker, self._apart)
        self._search = Search(self._judge, self._checker, self._prover)

    def _remaining(self) -> list[Gap]:
        """The gaps of the proof, after the library was asked about each; none when nothing is missing."""
        gaps: list[Gap] = []
        for _ in range(ROUNDS_MAX):
            gaps = Survey(self._proof, self._apart).gaps(self._reader, self._context)
            learned = False
            for gap in gaps:
                if gap.part and self._prover.covers(gap.claim, gap.context.nodes):
                    self._proof.learn(gap.node, gap.part, gap.context)
                    learned = True
            if not learned:
                break
            self._proof.renew()
            if self._proof.holds(self._reader, self._context):
                return []
        return gaps or [Gap(self._reader, "", self._context, ())]

    def _incompatible(self, gaps: list[Gap]) -> Iterator[Finding]:
        places: set[tuple[str, ...]] = set()
        refuted: set[tuple[Node, str]] = set()
        for gap in gaps:
            if (gap.node, gap.part) in refuted:
                continue
            found: Found | None = self._search.witness(gap)
            if found is None:
                continue
            refuted.add((gap.node, gap.part))
            place = tuple(map(str, found.errors[0].schema_path))
            if place not in places:
                places.add(place)
                yield wording.incompatible(found)
            if len(places) == FINDINGS_MAX:
                return

    def _proved_whole(self, gaps: list[Gap]) -> bool:
        """Whether the library can show what contains a gap, the nearest first, so that nothing is missing."""
        asked: set[tuple[Node, Context]] = set()
        for gap in gaps:
            wholes = [(part.node, part.context) for part in reversed(gap.route)]
            for node, context in [(gap.node, gap.context), *wholes, (self._reader, self._context)]:
                if (node, context) in asked:
                    continue
                asked.add((node, context))
                if self._prover.covers(node, context.nodes):
                    for part in node.parts:
                        self._proof.learn(node, part, context)
                    self._proof.renew()
                    if self._proof.holds(self._reader, self._context):
                        return True
                    break
        return False


def _key(parsed: Parsed, *, assert_formats: bool) -> _Key:
    return parsed.text, tuple(parsed.sources.items()), parsed.dialect, assert_formats


def _taken(parsed: Parsed, *, assert_formats: bool) -> Document:
    """The document of a schema for one comparison alone, which gives it back."""
    document = _documents.pop(_key(parsed, assert_formats=assert_formats), None)
    return Document(parsed, assert_formats=assert_formats) if document is None else document


def _put_back(parsed: Parsed, document: Document) -> None:
    """Keeps a document for the next comparison with the same schema, unless it is very large."""
    key = _key(parsed, assert_formats=document.assert_formats)
    document.forget()
    if document.characters <= CHARACTERS_KEPT_MAX:
        _documents[key] = document
