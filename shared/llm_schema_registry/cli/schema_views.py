"""Versions, schemas and findings as people read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from llm_schema_registry.cli.messages import label, moment
from llm_schema_registry.cli.output import Output, paragraph
from llm_schema_registry.registry.v1 import compatibility_pb2, schema_pb2, version_pb2

VERSION_COLUMNS = ("version", "id", "state", "created", "owner", "tags", "description")
TEXT_WIDTH = 100
LABEL_WIDTH = 10


def state(version: version_pb2.Version) -> str:
    """The version's state; DELETED for one that was deleted."""
    if version.HasField("delete_time"):
        return "DELETED"
    return label(version, "state")


def version_rows(versions: Iterable[version_pb2.Version]) -> Iterator[Sequence[object]]:
    """Rows under VERSION_COLUMNS."""
    for one in versions:
        created = moment(one.create_time)
        tags = ",".join(one.tags)
        yield one.number or "", one.schema_id or "", state(one), created, one.owner, tags, one.description


def version_record(version: version_pb2.Version) -> Iterator[tuple[str, object]]:
    """A version's facts; those that are empty are left out."""
    yield "subject", version.subject
    yield "version", version.number or "not given yet"
    yield "id", version.schema_id or "not given yet"
    yield "state", state(version)
    facts = [
        ("description", version.description),
        ("owner", version.owner),
        ("tags", ", ".join(version.tags)),
        *((f"metadata {key}", value) for key, value in sorted(version.metadata.items())),
        ("created", moment(version.create_time)),
        ("updated", moment(version.update_time)),
        ("deleted", moment(version.delete_time)),
        ("etag", version.etag),
    ]
    yield from ((name, value) for name, value in facts if value)


def schema_record(schema: schema_pb2.Schema) -> Iterator[tuple[str, object]]:
    """A schema's facts without its text."""
    yield "format", label(schema, "format")
    if schema.dialect:
        yield "dialect", schema.dialect
    for reference in schema.references:
        yield "reference", f"{reference.name} = {reference.subject}:{reference.version}"
    yield "fingerprint", schema.identity_fingerprint.hex()


def report(output: Output, found: compatibility_pb2.CompatibilityReport) -> None:
    """Writes a report: the verdict, then each finding."""
    versions = ", ".join(map(str, found.checked_versions))
    compared = f"compared with version {versions}" if versions else "there was nothing to compare with"
    output.text(
        f"{label(found, 'verdict')}  level {label(found, 'level')}, policy {label(found, 'policy')}, {compared}"
    )
    findings(output, found.findings)
    if found.truncated:
        output.text("\nThere are more findings than the service lists.")


def findings(output: Output, found: Iterable[compatibility_pb2.Finding]) -> None:
    """Writes findings, each with its rule, place, message, remedy and witness."""
    for index, one in enumerate(found, 1):
        roles = "the candidate reads" if one.candidate_reads else "the candidate writes"
        against = f"version {one.version}, {roles}" if one.version else roles
        output.text(f"\n{index}. {one.rule}  {label(one, 'verdict')}  {against}")
        facts = [("problem", one.message), ("remedy", one.remedy)]
        places = [("reader", one.reader_path), ("writer", one.writer_path)]
        facts += [("at", ", ".join(f"{side} {path or '/'}" for side, path in places))]
        if one.HasField("witness"):
            facts += [("witness", one.witness.text), ("read as", one.witness.read_text)]
        for name, text in facts:
            if text:
                output.text(_labelled(name, text))


def _labelled(name: str, text: str) -> str:
    """`   name      text`, folded, its lines under each other."""
    indent = " " * (3 + LABEL_WIDTH)
    return f"   {name:<{LABEL_WIDTH}}" + paragraph(text, width=TEXT_WIDTH, indent=indent)[len(indent) :]
