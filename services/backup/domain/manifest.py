"""The manifest as it is stored: a signed document of canonical JSON, `backup/1`, read strictly.

A member that this version does not know is refused: it may change what the others mean; a newer format has a new name.
Digests are in lower-case hexadecimal, times as documents tell them; what is None is null.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from llm_schema_registry.operations.ids import is_id
from services.backup.domain import documents, layout
from services.backup.domain.documents import DocumentInvalid, Fields, Signer, Verifier, time_text
from services.backup.domain.model import (
    DatabaseFacts,
    EncryptionRecord,
    Epoch,
    Head,
    Kind,
    Manifest,
    ObjectRecord,
    PartRecord,
    TableFacts,
)
from services.backup.domain.sealing import CHUNK_BYTES_MAX, CHUNK_BYTES_MIN

FORMAT = "backup/1"
MANIFEST_BYTES_MAX = 16 * 1024 * 1024
PARTS_MAX = 10_000
TABLES_MAX = 10_000
EPOCHS_MAX = 100_000
ROLES_MAX = 1_000
_KIND = "manifest"
_CLUSTER = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_WORD = re.compile(r"[!-~]{1,200}", re.ASCII)
_INT32_MAX = (1 << 31) - 1


class ManifestInvalid(DocumentInvalid):
    """The bytes are no manifest that can be trusted; the message says where and why."""


def encode(manifest: Manifest, signer: Signer) -> bytes:
    """The manifest, signed. The same manifest gives the same bytes.

    Raises ManifestInvalid for one that `decode` would refuse, so that no backup is committed that cannot be read.
    """
    body = _body(manifest)
    try:
        content = documents.encode_signed(_KIND, body, signer)
    except DocumentInvalid as error:
        raise ManifestInvalid(str(error)) from None
    if decode(content, [signer.verifier]) != manifest:
        raise ManifestInvalid("the manifest would not be read as it was written")
    return content


def decode(content: bytes, verifiers: Sequence[Verifier]) -> Manifest:
    """The manifest that one of several keys signed. Raises ManifestInvalid, also for a signature that does not hold."""
    try:
        body = documents.decode_signed(_KIND, content, verifiers, bytes_max=MANIFEST_BYTES_MAX)
        return _manifest(Fields(body, _KIND))
    except DocumentInvalid as error:
        raise ManifestInvalid(str(error)) from None


def _body(manifest: Manifest) -> dict[str, object]:
    encryption = manifest.encryption
    return {
        "format": FORMAT,
        "id": manifest.id,
        "cluster_id": manifest.cluster_id,
        "kind": manifest.kind.value,
        "slot": None if manifest.slot is None else time_text(manifest.slot),
        "start_time": time_text(manifest.start_time),
        "end_time": time_text(manifest.end_time),
        "lease_generation": manifest.lease_generation,
        "previous_sha256": None if manifest.previous_sha256 is None else manifest.previous_sha256.hex(),
        "code_version": manifest.code_version,
        "dump": {
            "version": manifest.dump_version,
            "format": manifest.dump_format,
            "size_bytes": manifest.dump_bytes,
            "sha256": manifest.dump_sha256.hex(),
        },
        "compression": manifest.compression,
        "encryption": None
        if encryption is None
        else {
            "algorithm": encryption.algorithm,
            "key_id": encryption.key_id,
            "chunk_bytes": encryption.chunk_bytes,
        },
        "facts": _facts_body(manifest.facts),
        "objects": [_object_body(each) for each in manifest.objects],
    }


def _facts_body(facts: DatabaseFacts) -> dict[str, object]:
    body: dict[str, object] = {
        "head": _head_body(facts.head),
        "time": time_text(facts.time),
        "server_version": facts.server_version,
        "server_version_num": facts.server_version_num,
        "encoding": facts.encoding,
        "collation": facts.collation,
        "character_type": facts.character_type,
        "extensions": [{"name": name, "version": version} for name, version in facts.extensions],
        "migrations": list(facts.migrations),
        "tables": [{"name": each.name, "rows": each.rows, "sha256": each.sha256.hex()} for each in facts.tables],
        "structure_sha256": facts.structure_sha256.hex(),
        "access_sha256": facts.access_sha256.hex(),
        "database_bytes": facts.database_bytes,
    }
    return body | {"roles": list(facts.roles)} if facts.roles else body


def _head_body(head: Head) -> dict[str, object]:
    return {
        "cluster_id": head.cluster_id,
        "epoch": head.epoch,
        "position": head.position,
        "floor": head.floor,
        "fenced": head.fenced,
        "schema_id_high": head.schema_id_high,
        "epochs": [{"id": each.id, "parent": each.parent, "fork_position": each.fork_position} for each in head.epochs],
    }


def _object_body(stored: ObjectRecord) -> dict[str, object]:
    return {
        "key": stored.key,
        "size_bytes": stored.size_bytes,
        "sha256": stored.sha256.hex(),
        "parts": [{"size_bytes": part.size_bytes, "sha256": part.sha256.hex()} for part in stored.parts],
    }


def _manifest(fields: Fields) -> Manifest:
    if fields.text("format") != FORMAT:
        fields.refuse("format", f"only {FORMAT} is known; a newer version of this program may read it")
    dump = fields.fields("dump")
    manifest = Manifest(
        id=_id(fields),
        cluster_id=fields.text("cluster_id", _CLUSTER),
        kind=_kind(fields),
        slot=_optional_time(fields, "slot"),
        start_time=fields.time("start_time"),
        end_time=fields.time("end_time"),
        lease_generation=fields.integer("lease_generation"),
        previous_sha256=fields.digest("previous_sha256") if fields.present("previous_sha256") else None,
        code_version=fields.text("code_version", longest=200),
        dump_version=dump.text("version", longest=200),
        dump_format=dump.text("format", _WORD),
        dump_bytes=dump.integer("size_bytes", 1),
        dump_sha256=dump.digest("sha256"),
        compression=_compression(fields),
        encryption=_encryption(fields),
        facts=_facts(fields.fields("facts")),
        objects=tuple(_object(each) for each in fields.many("objects", layout.OBJECTS_MAX)),
    )
    dump.done()
    fields.done()
    _check_whole(fields, manifest)
    return manifest


def _check_whole(fields: Fields, manifest: Manifest) -> None:
    """What no member alone can tell."""
    if manifest.facts.head.cluster_id != manifest.cluster_id:
        fields.refuse("facts.head.cluster_id", "is not that of the manifest")
    keys = [each.key for each in manifest.objects]
    if not keys or keys != [layout.data(manifest.id, number) for number in range(1, len(keys) + 1)]:
        fields.refuse("objects", "must be the backup's own data objects, all of them, in order")


def _facts(fields: Fields) -> DatabaseFacts:
    facts = DatabaseFacts(
        head=_head(fields.fields("head")),
        time=fields.time("time"),
        server_version=fields.text("server_version", longest=200),
        server_version_num=fields.integer("server_version_num", 1, _INT32_MAX),
        encoding=fields.text("encoding", longest=200),
        collation=fields.text("collation", longest=200),
        character_type=fields.text("character_type", longest=200),
        extensions=tuple(_extension(each) for each in fields.many("extensions", TABLES_MAX)),
        migrations=fields.texts("migrations", TABLES_MAX),
        tables=tuple(_table(each) for each in fields.many("tables", TABLES_MAX)),
        structure_sha256=fields.digest("structure_sha256"),
        access_sha256=fields.digest("access_sha256"),
        database_bytes=fields.integer("database_bytes"),
        roles=fields.texts("roles", ROLES_MAX) if fields.told("roles") else (),
    )
    names = [table.name for table in facts.tables]
    if names != sorted(set(names)):
        fields.refuse("tables", "must be in the order of their names, each once")
    fields.done()
    return facts


def _head(fields: Fields) -> Head:
    head = Head(
        cluster_id=fields.text("cluster_id", _CLUSTER),
        epoch=fields.integer("epoch", 1, _INT32_MAX),
        position=fields.integer("position"),
        floor=fields.integer("floor"),
        fenced=fields.boolean("fenced"),
        schema_id_high=fields.integer("schema_id_high", 0, _INT32_MAX),
        epochs=tuple(_epoch(each) for each in fields.many("epochs", EPOCHS_MAX)),
    )
    fields.done()
    if head.floor > head.position:
        fields.refuse("floor", "must not be above the position")
    numbers = [each.id for each in head.epochs]
    if numbers != sorted(set(numbers)) or not numbers or numbers[-1] != head.epoch:
        fields.refuse("epochs", "must be in order, each once, and end with the head's own")
    return head


def _epoch(fields: Fields) -> Epoch:
    number = fields.integer("id", 1, _INT32_MAX)
    parent = fields.integer("parent", 1, number - 1) if fields.present("parent") else None
    line = Epoch(number, parent, fields.integer("fork_position"))
    fields.done()
    return line


def _table(fields: Fields) -> TableFacts:
    table = TableFacts(fields.text("name", longest=200), fields.integer("rows"), fields.digest("sha256"))
    fields.done()
    return table


def _extension(fields: Fields) -> tuple[str, str]:
    extension = fields.text("name", longest=200), fields.text("version", longest=200)
    fields.done()
    return extension


def _object(fields: Fields) -> ObjectRecord:
    stored = ObjectRecord(
        key=fields.text("key", _WORD),
        size_bytes=fields.integer("size_bytes", 1),
        sha256=fields.digest("sha256"),
        parts=tuple(_part(each) for each in fields.many("parts", PARTS_MAX)),
    )
    fields.done()
    if sum(part.size_bytes for part in stored.parts) != stored.size_bytes:
        fields.refuse("parts", "their sizes must add up to the object's")
    return stored


def _part(fields: Fields) -> PartRecord:
    part = PartRecord(fields.integer("size_bytes", 1), fields.digest("sha256"))
    fields.done()
    return part


def _encryption(fields: Fields) -> EncryptionRecord | None:
    if not fields.present("encryption"):
        return None
    told = fields.fields("encryption")
    record = EncryptionRecord(
        algorithm=told.text("algorithm", _WORD),
        key_id=told.key_id("key_id"),
        chunk_bytes=told.integer("chunk_bytes", CHUNK_BYTES_MIN, CHUNK_BYTES_MAX),
    )
    told.done()
    return record


def _id(fields: Fields) -> str:
    text = fields.text("id")
    return text if is_id(text) else fields.refuse("id", "must be a ULID")


def _kind(fields: Fields) -> Kind:
    text = fields.text("kind")
    if text not in {kind.value for kind in Kind}:
        fields.refuse("kind", f"must be one of {', '.join(kind.value for kind in Kind)}")
    return Kind(text)


def _compression(fields: Fields) -> str:
    text = fields.text("compression")
    return text if text in {"zstd", "gzip"} else fields.refuse("compression", "must be zstd or gzip")


def _optional_time(fields: Fields, name: str) -> datetime | None:
    return fields.time(name) if fields.present(name) else None
