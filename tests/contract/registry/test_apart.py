"""Contents that are read many at a time in worker processes: each gets its own result, also beside a fatal one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from llm_schema_registry import errors
from services.registry.adapters.workers import WorkerPool
from services.registry.domain.fingerprint import fingerprint
from services.registry.domain.formats.jsonschema import JsonSchema
from services.registry.domain.model import Format
from services.registry.tools.annotations import Annotations
from services.registry.tools.apart import PIECE_BYTES_MAX, PIECE_CONTENTS_MAX, Apart, Content, annotations_of, problems
from tests.doomed_language import ENDS_PROCESS, NEVER_ENDS, DoomedLanguage
from tests.registry_author import schema

WORK_SECONDS = 2.5


@pytest_asyncio.fixture
async def apart() -> AsyncIterator[Apart]:
    """Work in real processes."""
    async with WorkerPool(seconds_max=WORK_SECONDS) as workers:
        yield Apart({Format.JSON: DoomedLanguage()}, workers)


def content(number: int, text: str = "") -> Content:
    """A content; the fingerprints are right for a text that can be read."""
    text = text or f'{{"title": "number {number}"}}'
    parsed = JsonSchema().parse(text, {})
    identity, semantic = (fingerprint(Format.JSON, body, {}) for body in (parsed.identity_body, parsed.semantic_body))
    return Content(number, Format.JSON, text, parsed.dialect, identity, semantic)


async def test_results_are_in_order(apart: Apart) -> None:
    """Results of several pieces are those of the contents, in their order; large texts are a piece of their own."""
    padding = " " * PIECE_BYTES_MAX
    contents = [content(number) for number in range(2 * PIECE_CONTENTS_MAX + 1)]
    contents += [content(number, f'{{"title": "number {number}"}}{padding}') for number in range(len(contents), 104)]

    found = await apart.run(annotations_of, contents)

    assert found == [(f"number {each.id}",) for each in contents]


@pytest.mark.parametrize(("text", "words"), [(ENDS_PROCESS, "ended its process"), (NEVER_ENDS, "longer than 2.5 s")])
async def test_the_one_at_fault_is_known(apart: Apart, text: str, words: str) -> None:
    """A content that ends its process or never ends spoils no other one of its piece."""
    contents = [content(1), content(2, text), content(3)._replace(semantic=b"another"), content(4)._replace(text="no")]

    first, doomed, third, fourth = await apart.run(problems, contents)

    assert first is None
    assert isinstance(doomed, errors.LimitExceeded)
    assert words in doomed.message
    assert third == "content 3: what is stored as its semantic fingerprint is not its text's"
    assert str(fourth).startswith("content 4 cannot be read again: ")


async def test_annotations_begun_before(apart: Apart) -> None:
    """What was begun is found, before and after it is settled; what cannot be read has none, and what was not begun is
    read at once."""
    found = Annotations(apart)
    good, other, bad, fatal = (
        schema(number, text)
        for number, text in enumerate(('{"title": "good"}', '{"title": "other"}', "no schema", ENDS_PROCESS), 1)
    )
    found.begin([good, bad, fatal])

    before = [await found.of(each) for each in (good, other, bad, fatal)]
    await found.settle()

    assert before == [("good",), ("other",), None, None]
    assert [await found.of(each) for each in (good, other, bad, fatal)] == before


async def test_annotations_are_those_of_the_text(apart: Apart) -> None:
    """Two texts of one identity, as after a purge, have each their own."""
    found = Annotations(apart)
    first = schema(1, '{"title": "first"}')
    second = type(first)(1, Format.JSON, '{"title": "second"}', (), first.identity, first.semantic, first.create_time)

    found.begin([first])
    await found.settle()

    assert (await found.of(first), await found.of(second)) == (("first",), ("second",))


async def test_annotations_end_with_their_owner(apart: Apart) -> None:
    """Closing ends work that would take for ever, and leaves no task behind."""
    found = Annotations(apart)
    before = asyncio.all_tasks()
    found.begin([schema(1, NEVER_ENDS)])

    await found.close()

    assert asyncio.all_tasks() == before
