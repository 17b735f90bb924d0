"""Manifests and signed documents: what is written is read back, and nothing else is believed."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backup.domain import documents, manifest
from services.backup.domain.documents import DocumentInvalid, SignatureInvalid, Signer, canonical
from services.backup.domain.manifest import ManifestInvalid
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

CORPUS = Path(__file__).parents[2] / "corpora" / "backup"
SIGNER = Signer.of(bytes(range(32)))
NEW_SIGNER = Signer.of(bytes(range(1, 33)))
NOON = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
CLUSTER = "0b5c7d4e-3f0a-4c39-9f0e-5a2f6f3c1b7d"
ID = "01ARYZ6S410000000000000000"

HEAD = Head(
    cluster_id=CLUSTER,
    epoch=3,
    position=4711,
    floor=17,
    fenced=False,
    schema_id_high=2048,
    epochs=(Epoch(1, None, 0), Epoch(3, 1, 4000)),
)
FACTS = DatabaseFacts(
    head=HEAD,
    time=NOON,
    server_version="17.10 (Debian)",
    server_version_num=170010,
    encoding="UTF8",
    collation="C.UTF-8",
    character_type="C.UTF-8",
    extensions=(("pg_trgm", "1.6"), ("plpgsql", "1.0")),
    migrations=("0001_registry.sql",),
    tables=(TableFacts("changes", 4711, bytes(32)), TableFacts("schemas", 0, b"\x01" * 32)),
    structure_sha256=b"\x02" * 32,
    access_sha256=b"\x03" * 32,
    database_bytes=12_345_678,
)
SAMPLE = Manifest(
    id=ID,
    cluster_id=CLUSTER,
    kind=Kind.DAILY,
    slot=NOON.replace(microsecond=0),
    start_time=NOON,
    end_time=NOON + timedelta(seconds=4),
    lease_generation=9,
    previous_sha256=b"\x04" * 32,
    code_version="0.1.0",
    dump_version="pg_dump (PostgreSQL) 17.10",
    dump_format="pgc/1",
    dump_bytes=1_000_000,
    dump_sha256=b"\x05" * 32,
    compression="zstd",
    encryption=EncryptionRecord("AES-256-GCM-HKDF-STREAM/1", "0123456789abcdef" * 2, 1024 * 1024),
    facts=FACTS,
    objects=(
        ObjectRecord(
            f"backups/{ID}/data-00001",
            30,
            b"\x06" * 32,
            (PartRecord(20, b"\x07" * 32), PartRecord(10, b"\x08" * 32)),
        ),
    ),
)


def signed_body(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The sample's document after a change to its body, signed anew by the right key."""
    body = json.loads(manifest.encode(SAMPLE, SIGNER))["manifest"]
    change(body)
    return documents.encode_signed("manifest", body, SIGNER)


def test_a_manifest_comes_back() -> None:
    """What is written is read as it was, with and without what may be absent."""
    bare = replace(SAMPLE, slot=None, previous_sha256=None, encryption=None, kind=Kind.MANUAL, compression="gzip")

    for each in (SAMPLE, bare):
        assert manifest.decode(manifest.encode(each, SIGNER), [SIGNER.verifier]) == each


def test_roles_are_told_since_a_later_version() -> None:
    """A manifest tells the roles that a restore needs; one of before has none, and is written as it was."""
    told = replace(SAMPLE, facts=replace(FACTS, roles=("ann", "registry")))

    assert manifest.decode(manifest.encode(told, SIGNER), [SIGNER.verifier]) == told
    assert b"roles" not in manifest.encode(SAMPLE, SIGNER)
    with pytest.raises(ManifestInvalid, match="roles"):
        manifest.decode(signed_body(lambda body: body["facts"].update(roles=[1])), [SIGNER.verifier])


def test_the_same_manifest_gives_the_same_bytes() -> None:
    """Canonical JSON and Ed25519 leave nothing to chance: a repeat after a crash writes the same object."""
    assert manifest.encode(SAMPLE, SIGNER) == manifest.encode(replace(SAMPLE), SIGNER)


def test_several_keys_may_be_trusted() -> None:
    """During a rotation manifests of the old and of the new key are read."""
    trusted = [NEW_SIGNER.verifier, SIGNER.verifier]

    assert manifest.decode(manifest.encode(SAMPLE, SIGNER), trusted) == SAMPLE
    assert manifest.decode(manifest.encode(SAMPLE, NEW_SIGNER), trusted) == SAMPLE


@pytest.mark.parametrize("trusted", [[], [NEW_SIGNER.verifier]])
def test_an_unknown_signer_is_refused(trusted: list[documents.Verifier]) -> None:
    """A manifest signed by nobody who is trusted is refused, naming the key."""
    with pytest.raises(ManifestInvalid, match=f"signed by the key {SIGNER.key_id}, which is not among those trusted"):
        manifest.decode(manifest.encode(SAMPLE, SIGNER), trusted)


@given(bit=st.integers(0, len(manifest.encode(SAMPLE, SIGNER)) * 8 - 1))
@settings(max_examples=300)
def test_every_flipped_bit_is_noticed(bit: int) -> None:
    """A single changed bit anywhere in a manifest makes it invalid."""
    content = bytearray(manifest.encode(SAMPLE, SIGNER))
    content[bit // 8] ^= 1 << bit % 8

    with pytest.raises(ManifestInvalid):
        manifest.decode(bytes(content), [SIGNER.verifier])


def test_every_truncation_is_noticed() -> None:
    """A manifest that ends too early is invalid wherever it ends."""
    content = manifest.encode(SAMPLE, SIGNER)

    for length in range(0, len(content), 7):
        with pytest.raises(ManifestInvalid):
            manifest.decode(content[:length], [SIGNER.verifier])


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("manifest.format", lambda body: body.update(format="backup/2")),
        ("manifest.extra", lambda body: body.update(extra=1)),
        ("manifest.id", lambda body: body.update(id="x")),
        ("manifest.id", lambda body: body.pop("id")),
        ("manifest.cluster_id", lambda body: body.update(cluster_id="a b")),
        ("manifest.kind", lambda body: body.update(kind="weekly")),
        ("manifest.slot", lambda body: body.update(slot="2026-03-01T12:00:00Z")),
        ("manifest.end_time", lambda body: body.update(end_time="2026-02-30T12:00:00.000000Z")),
        ("manifest.end_time", lambda body: body.update(end_time=None)),
        ("manifest.lease_generation", lambda body: body.update(lease_generation=-1)),
        ("manifest.lease_generation", lambda body: body.update(lease_generation=True)),
        ("manifest.previous_sha256", lambda body: body.update(previous_sha256="00")),
        ("manifest.previous_sha256", lambda body: body.update(previous_sha256="AA" * 32)),
        ("manifest.dump.size_bytes", lambda body: body["dump"].update(size_bytes=0)),
        ("manifest.dump.extra", lambda body: body["dump"].update(extra=None)),
        ("manifest.compression", lambda body: body.update(compression="lz4")),
        ("manifest.encryption.chunk_bytes", lambda body: body["encryption"].update(chunk_bytes=1 << 30)),
        ("manifest.encryption.key_id", lambda body: body["encryption"].update(key_id="../" * 10)),
        ("manifest.facts.head.cluster_id", lambda body: body["facts"]["head"].update(cluster_id="other")),
        ("manifest.facts.head.epochs", lambda body: body["facts"]["head"].update(epochs=[])),
        ("manifest.facts.head.epochs", lambda body: body["facts"]["head"].update(epoch=4)),
        ("manifest.facts.head.epochs", lambda body: body["facts"]["head"]["epochs"].reverse()),
        ("manifest.facts.head.epochs[1].parent", lambda body: body["facts"]["head"]["epochs"][1].update(parent=3)),
        ("manifest.facts.head.floor", lambda body: body["facts"]["head"].update(floor=5000)),
        ("manifest.facts.head.fenced", lambda body: body["facts"]["head"].update(fenced=0)),
        ("manifest.facts.tables", lambda body: body["facts"]["tables"].reverse()),
        ("manifest.facts.tables[0].rows", lambda body: body["facts"]["tables"][0].update(rows="1")),
        ("manifest.facts.tables[0]", lambda body: body["facts"].update(tables=[1])),
        ("manifest.facts.migrations[0]", lambda body: body["facts"].update(migrations=[1])),
        ("manifest.facts.extensions", lambda body: body["facts"].update(extensions={})),
        ("manifest.facts", lambda body: body.update(facts=[])),
        ("manifest.objects", lambda body: body.update(objects=[])),
        ("manifest.objects", lambda body: body["objects"][0].update(key=f"backups/{ID}/data-00002")),
        (
            "manifest.objects",
            lambda body: body["objects"][0].update(key="backups/01ARYZ6S420000000000000000/data-00001"),
        ),
        ("manifest.objects[0].parts", lambda body: body["objects"][0].update(size_bytes=31)),
        ("manifest.objects[0].parts", lambda body: body["objects"][0].update(parts=[])),
    ],
)
def test_wrong_members_are_refused(where: str, change: Callable[[dict[str, Any]], object]) -> None:
    """A signed manifest whose member is missing, unknown, of another kind or out of bounds is refused by its path."""
    with pytest.raises(ManifestInvalid) as refused:
        manifest.decode(signed_body(change), [SIGNER.verifier])

    assert str(refused.value).startswith(f"{where}: ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{",
        b'{"a":1.5}',
        b'{"a":1e3}',
        b'{"a":NaN}',
        b'{"a":1,"a":1}',
        b'{"a": 1}',
        b'{"b":1,"a":1}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\ud800"}',
        b'{"\xc3\xa9":1}',
        b'{"a":9223372036854775808}',
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":1}\n',
    ],
)
def test_other_json_is_refused(content: bytes) -> None:
    """What is not canonical JSON, or no object, is refused without a crash, whatever it is."""
    with pytest.raises(DocumentInvalid):
        documents.parse(content)


def test_documents_have_a_size_limit() -> None:
    """A document beyond the limit is refused before it is parsed."""
    with pytest.raises(DocumentInvalid, match="more than 10"):
        documents.parse(b'{"a":"12345"}', bytes_max=10)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 63) - 1) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(max_codepoint=127)), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(body=st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=5), JSON, max_size=4))
@settings(max_examples=100)
def test_canonical_json_has_one_form(body: dict[str, object]) -> None:
    """What canonical JSON tells, written again, is the same bytes; a signed body comes back as it was."""
    content = canonical(body)

    assert documents.parse(content) == body
    assert canonical(documents.parse(content)) == content
    assert (
        documents.decode_signed("journal", documents.encode_signed("journal", body, SIGNER), [SIGNER.verifier]) == body
    )


@pytest.mark.parametrize("value", [1.5, b"bytes", {1: 2}, {"é": 1}, "\ud800", 1 << 63, datetime.now(UTC), {"a": {1}}])
def test_what_json_cannot_tell_is_refused(value: object) -> None:
    """Fractions, bytes, times and half characters have no canonical form."""
    with pytest.raises(DocumentInvalid):
        canonical({"value": value})


def test_one_kind_does_not_pass_for_another() -> None:
    """The signature covers the kind, so a journal's body cannot be presented as a tombstone."""
    signed = json.loads(documents.encode_signed("journal", {"a": 1}, SIGNER))
    forged = canonical({"tombstone": signed["journal"], "signature": signed["signature"]})

    with pytest.raises(DocumentInvalid, match="tombstone: is missing"):
        documents.decode_signed("tombstone", canonical(signed), [SIGNER.verifier])
    with pytest.raises(SignatureInvalid, match="the tombstone was changed after the key"):
        documents.decode_signed("tombstone", forged, [SIGNER.verifier])


@pytest.mark.parametrize(
    "signature",
    [
        {"algorithm": "none", "key_id": SIGNER.key_id, "value": base64.b64encode(bytes(64)).decode()},
        {"algorithm": "Ed25519", "key_id": SIGNER.key_id, "value": ""},
        {"algorithm": "Ed25519", "key_id": SIGNER.key_id, "value": "!!!!"},
        {"algorithm": "Ed25519", "key_id": SIGNER.key_id},
        {"algorithm": "Ed25519", "key_id": SIGNER.key_id, "value": base64.b64encode(bytes(64)).decode(), "more": 1},
        None,
    ],
)
def test_other_signatures_are_refused(signature: object) -> None:
    """Another algorithm, no value, a false one or more than a signature: refused."""
    with pytest.raises(DocumentInvalid):
        documents.decode_signed("journal", canonical({"journal": {}, "signature": signature}), [SIGNER.verifier])


def test_nothing_may_stand_beside_what_was_signed() -> None:
    """A member beside the body, which the signature does not cover, is refused."""
    signed = json.loads(documents.encode_signed("journal", {}, SIGNER)) | {"more": 1}

    with pytest.raises(DocumentInvalid, match="more: is not known"):
        documents.decode_signed("journal", canonical(signed), [SIGNER.verifier])


@pytest.mark.parametrize("kind", ["", "signature", "Kind", "a" * 33])
def test_kinds_are_checked(kind: str) -> None:
    """A kind that would collide with the signature is no kind."""
    with pytest.raises(ValueError, match="no kind"):
        documents.encode_signed(kind, {}, SIGNER)


def test_what_could_not_be_read_is_not_written() -> None:
    """A manifest that its reader would refuse is refused by its writer: before the commit, not at the restore."""
    local = datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))

    assert manifest.decode(manifest.encode(replace(SAMPLE, slot=local), SIGNER), [SIGNER.verifier]).slot == local
    with pytest.raises(ManifestInvalid, match="objects"):
        manifest.encode(replace(SAMPLE, objects=()), SIGNER)
    with pytest.raises(ManifestInvalid, match="as it was written"):
        manifest.encode(replace(SAMPLE, objects=list(SAMPLE.objects)), SIGNER)  # type: ignore[arg-type]
    with pytest.raises(ManifestInvalid, match="half a character"):
        manifest.encode(replace(SAMPLE, dump_version="\ud800"), SIGNER)


def test_a_signer_is_not_printed() -> None:
    """The representation of a signer does not tell its key."""
    assert repr(SIGNER.seed) not in repr(SIGNER)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_short_and_long_signing_keys_are_refused(length: int) -> None:
    """A signing key of another length is an error."""
    with pytest.raises(ValueError, match="32"):
        Signer.of(bytes(length))


def test_the_first_version_is_read_for_ever() -> None:
    """The manifest of version 1 in the corpus is read as it was written then, and is still written so."""
    stored = (CORPUS / "manifest-v1.json").read_bytes()

    assert manifest.decode(stored, [SIGNER.verifier]) == SAMPLE
    assert manifest.encode(SAMPLE, SIGNER) == stored
