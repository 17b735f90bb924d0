"""Reading files, references and metadata from a command line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_schema_registry import errors
from llm_schema_registry.cli import reading, schema_inputs
from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.messages import as_document, label
from llm_schema_registry.cli.paging import listed
from llm_schema_registry.registry.v1 import change_pb2, schema_pb2, subject_service_pb2, version_pb2


async def lines_of(data: bytes) -> list[tuple[int, bytes]]:
    """Numbers and bytes of the lines that a pipe with the data gives."""
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    found = [(line.number, line.data) async for line in reading.read_lines(f"/dev/fd/{read_end}")]
    os.close(read_end)
    return found


@given(st.lists(st.sampled_from([b"", b" ", b"a", b'{"b": 1}', b"\r", "é".encode()]), max_size=30), st.integers(1, 9))
@settings(max_examples=60)
async def test_lines_are_those_of_the_file(lines: list[bytes], chunk: int) -> None:
    """However the bytes arrive, every line that is not blank comes once, with its number."""
    original, reading.CHUNK_BYTES = reading.CHUNK_BYTES, chunk
    try:
        found = await lines_of(b"\n".join(lines))
    finally:
        reading.CHUNK_BYTES = original

    assert found == [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


async def test_a_document_above_the_limit_is_refused(tmp_path: Path) -> None:
    """A file that is too large is named with the limit, before all of it is read."""
    file = tmp_path / "large.json"
    with file.open("wb") as opened:
        os.ftruncate(opened.fileno(), 1 << 40)

    with pytest.raises(errors.LimitExceeded, match="is larger than 15 MiB"):
        await reading.read_document(str(file))


async def test_text_must_be_utf8(tmp_path: Path) -> None:
    """The first byte that is not UTF-8 is named; a byte order mark is passed over."""
    bad, marked = tmp_path / "bad.json", tmp_path / "marked.json"
    bad.write_bytes(b'{"a": "\xff"}')
    marked.write_bytes(b"\xef\xbb\xbf{}")

    with pytest.raises(UsageFault, match="byte 8"):
        await reading.read_text(str(bad))
    assert await reading.read_text(str(marked)) == "{}"


@given(
    st.text(st.characters(exclude_characters="=", exclude_categories=["Cs"]), min_size=1, max_size=10),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10),
    st.integers(1, 2**31 - 1),
)
@settings(max_examples=100)
def test_references_hold_any_subject(name: str, subject: str, version: int) -> None:
    """Names end at the first `=`, versions begin after the last `:`, so subjects may hold both."""
    [reference] = schema_inputs.references([f"{name}={subject}:{version}"])

    assert reference == schema_pb2.Reference(name=name, subject=subject, version=version)


NO_REFERENCES = ["", "a", "a=b", "a=b:", "a=:1", "=b:1", "a=b:latest", "a=b:0", "a=b:-1", "a=b:2147483648", "a=b:٣"]


@pytest.mark.parametrize("text", NO_REFERENCES)
def test_a_reference_that_is_none_is_refused(text: str) -> None:
    """Everything else is a fault of usage that says how to write one."""
    with pytest.raises(UsageFault, match="--reference"):
        list(schema_inputs.references([text]))


@pytest.mark.parametrize("given_metadata", [["novalue"], ["=x"], ["a=1", "a=2"]])
def test_metadata_that_is_none_is_refused(given_metadata: list[str]) -> None:
    """A fact needs a key of its own."""
    with pytest.raises(UsageFault, match="--metadata"):
        schema_inputs.metadata(given_metadata)


def test_labels_are_without_prefix() -> None:
    """Enum values are told as people say them, unknown ones by their number."""
    assert label(version_pb2.Version(state=version_pb2.VERSION_STATE_ACTIVE), "state") == "ACTIVE"
    assert label(schema_pb2.Schema(format=schema_pb2.SCHEMA_FORMAT_AVRO), "format") == "AVRO"
    assert label(version_pb2.Version(state=99), "state") == "99"  # type: ignore[arg-type]  # A newer service's.


def test_documents_hold_every_field() -> None:
    """Fields are named as in the protos; defaults are there, unset messages are not, 64 bits are text."""
    document = as_document(change_pb2.Change(position=2**40, epoch=1))

    assert document == {"epoch": 1, "position": str(2**40), "actor": "", "resume_token": ""}


@given(st.integers(0, 40), st.integers(1, 50), st.integers(1, 7))
@settings(max_examples=100)
async def test_pages_are_read_up_to_the_limit(total: int, limit: int, page_max: int) -> None:
    """Whatever the sizes, entries come in order, none twice, at most the limit, and the token goes on after them."""
    sizes: list[int] = []

    async def read(size: int, token: str) -> subject_service_pb2.ListVersionsResponse:
        sizes.append(size)
        start = int(token or 0)
        end = min(start + size, total)
        versions = [version_pb2.Version(number=number) for number in range(start, end)]
        return subject_service_pb2.ListVersionsResponse(
            versions=versions, next_page_token=str(end) if end < total else ""
        )

    found = await listed(read, lambda page: page.versions, limit=limit, token="", page_size_max=page_max)

    assert [one.number for one in found.entries] == list(range(min(total, limit)))
    assert found.next_page_token == (str(limit) if total > limit else "")
    assert max(sizes) <= page_max
