"""The document that keeps a data key."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llm_schema_registry import errors
from services.backup.domain import keys
from services.backup.domain.documents import DocumentInvalid, canonical
from services.backup.domain.keys import KeyDocument, Wrap
from services.backup.domain.sealing import DataKey

CORPUS = Path(__file__).parents[2] / "corpora" / "backup"
KEY = DataKey.of(bytes(range(32)))
DOCUMENT = KeyDocument(
    KEY.id,
    keys.context_of("0b5c7d4e-3f0a-4c39-9f0e-5a2f6f3c1b7d", "backup/01ARYZ6S410000000000000000"),
    (
        Wrap("file:0011223344556677", "AES-256-GCM", bytes(61)),
        Wrap("x25519:8899aabbccddeeff", "X25519-HKDF-SHA256-AES-256-GCM", b"\x01" * 81),
        Wrap("kms:arn:aws:kms:eu-central-1:111122223333:key/1234abcd", "AWS-KMS", b"\x02" * 200),
    ),
)


def test_a_document_comes_back() -> None:
    """What is written is read as it was."""
    assert keys.decode(keys.encode(DOCUMENT)) == DOCUMENT


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("format", lambda body: body.update(format="key/2")),
        ("key_id", lambda body: body.update(key_id="0")),
        ("extra", lambda body: body.update(extra=1)),
        ("wraps", lambda body: body.update(wraps=[])),
        ("wraps", lambda body: body["wraps"].append(body["wraps"][0])),
        ("wraps", lambda body: body.update(wraps=body["wraps"] * 20)),
        ("wraps[0].value", lambda body: body["wraps"][0].update(value="*")),
        ("wraps[0].value", lambda body: body["wraps"][0].update(value="QQ")),
        ("wraps[0].value", lambda body: body["wraps"][0].update(value="QR==")),
        ("wraps[0].value", lambda body: body["wraps"][0].update(value="A" * 10_000)),
        ("wraps[0].recipient", lambda body: body["wraps"][0].update(recipient="a b")),
        ("wraps[0].more", lambda body: body["wraps"][0].update(more="")),
        ("context.purpose", lambda body: body["context"].pop("purpose")),
        ("context.purpose", lambda body: body["context"].update(purpose="")),
        ("context.more", lambda body: body["context"].update(more="x")),
    ],
)
def test_wrong_members_are_refused(where: str, change: Callable[[dict[str, Any]], object]) -> None:
    """A document whose member is missing, unknown or out of bounds is refused by its path."""
    body = json.loads(keys.encode(DOCUMENT))
    change(body)

    with pytest.raises(DocumentInvalid) as refused:
        keys.decode(canonical(body))

    assert str(refused.value).startswith(f"{where}: ")


def test_a_key_for_nobody_is_not_written() -> None:
    """A document without a recipient would lose the key: it cannot be written."""
    with pytest.raises(DocumentInvalid, match="without a recipient"):
        keys.encode(replace(DOCUMENT, wraps=()))


@pytest.mark.parametrize(("cluster", "purpose"), [("", "backup"), ("a b", "backup"), ("a", "x" * 201), ("a", "b\n")])
def test_contexts_are_checked(cluster: str, purpose: str) -> None:
    """A context has two short texts that every key service takes."""
    with pytest.raises(ValueError, match="ASCII letters"):
        keys.context_of(cluster, purpose)


def test_the_order_of_a_context_does_not_matter() -> None:
    """Recipients bind the same bytes however the context was made."""
    context = dict(DOCUMENT.context)

    assert keys.canonical_context(context) == keys.canonical_context(dict(reversed(context.items())))


def test_the_right_key_is_recognised() -> None:
    """What a recipient unwrapped is the document's key."""
    assert keys.opened(DOCUMENT, KEY.key) == KEY


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(32), bytes(33)])
def test_another_key_is_not(key: bytes) -> None:
    """Another key, or a number of bytes that is none, is refused, whoever unwrapped it."""
    with pytest.raises(errors.KeyUnavailable, match=f"not the key {KEY.id}"):
        keys.opened(DOCUMENT, key)


def test_the_first_version_is_read_for_ever() -> None:
    """The key document of version 1 in the corpus is read as it was written then, and is still written so."""
    stored = (CORPUS / "key-v1.json").read_bytes()

    assert keys.decode(stored) == DOCUMENT
    assert keys.encode(DOCUMENT) == stored
