"""The document that keeps a data key: wrapped for each of its recipients, any one of whom can open it.

It is not signed: a manifest names the key by an id that only the true key gives, so a false document opens nothing.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass

from llm_schema_registry import errors
from services.backup.domain import documents
from services.backup.domain.documents import DocumentInvalid, Fields
from services.backup.domain.sealing import KEY_BYTES, DataKey, key_id

FORMAT = "key/1"
WRAPS_MAX = 32
WRAPPED_BYTES_MAX = 6 * 1024
"""Source: AWS KMS, Encrypt: a CiphertextBlob has at most 6144 bytes."""
DOCUMENT_BYTES_MAX = 512 * 1024
_CONTEXT = ("cluster_id", "purpose")
_CONTEXT_VALUE = re.compile(r"[A-Za-z0-9._:/-]{1,200}", re.ASCII)
_RECIPIENT = re.compile(r"[!-~]{1,400}", re.ASCII)
_ALGORITHM = re.compile(r"[A-Za-z0-9-]{1,80}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Wrap:
    """A data key as one recipient can read it. recipient, algorithm: the recipient's own words for itself."""

    recipient: str
    algorithm: str
    value: bytes


@dataclass(frozen=True, slots=True)
class KeyDocument:
    """The wrapped forms of the data key with an id. context: what `context_of` gave; every wrap is bound to it."""

    key_id: str
    context: Mapping[str, str]
    wraps: tuple[Wrap, ...]


def context_of(cluster_id: str, purpose: str) -> dict[str, str]:
    """What a data key is for. purpose: such as `backup/<id>`. Not secret: key services log it."""
    context = {"cluster_id": cluster_id, "purpose": purpose}
    for name, value in context.items():
        if not _CONTEXT_VALUE.fullmatch(value):
            raise ValueError(f"{name}: 1 to 200 ASCII letters, digits and `._:/-`, not {value[:80]!r}")
    return context


def canonical_context(context: Mapping[str, str]) -> bytes:
    """A context as recipients bind it to what they wrap: its canonical JSON."""
    return documents.canonical(dict(context))


def encode(document: KeyDocument) -> bytes:
    """The document's canonical JSON. Raises DocumentInvalid for one that could not be read again."""
    content = documents.canonical(
        {
            "format": FORMAT,
            "key_id": document.key_id,
            "context": dict(document.context),
            "wraps": [
                {
                    "recipient": wrap.recipient,
                    "algorithm": wrap.algorithm,
                    "value": base64.b64encode(wrap.value).decode(),
                }
                for wrap in document.wraps
            ],
        }
    )
    decode(content)
    return content


def decode(content: bytes) -> KeyDocument:
    """Reads a document, strictly. Raises DocumentInvalid, saying which member is wrong."""
    fields = Fields(documents.parse(content, bytes_max=DOCUMENT_BYTES_MAX), "")
    if fields.text("format") != FORMAT:
        fields.refuse("format", f"only {FORMAT} is known")
    identity = fields.key_id("key_id")
    told = fields.fields("context")
    context = {name: told.text(name, _CONTEXT_VALUE) for name in _CONTEXT}
    told.done()
    wraps = tuple(_wrap(each) for each in fields.many("wraps", WRAPS_MAX))
    fields.done()
    if not wraps:
        raise DocumentInvalid("wraps: a key without a recipient is lost")
    if len({wrap.recipient for wrap in wraps}) != len(wraps):
        raise DocumentInvalid("wraps: a recipient is named twice")
    return KeyDocument(identity, context, wraps)


def opened(document: KeyDocument, key: bytes) -> DataKey:
    """The data key, once a recipient unwrapped it. Raises errors.KeyUnavailable when it is another key."""
    if len(key) != KEY_BYTES or not hmac.compare_digest(key_id(key), document.key_id):
        raise errors.KeyUnavailable(
            f"What was unwrapped is not the key {document.key_id}: its document was changed, or belongs to another "
            "key. Try another of its recipients, or an earlier document of the same key.",
            metadata={"key_id": document.key_id},
        )
    return DataKey.of(key)


def _wrap(fields: Fields) -> Wrap:
    wrap = Wrap(
        fields.text("recipient", _RECIPIENT),
        fields.text("algorithm", _ALGORITHM),
        fields.base64("value", WRAPPED_BYTES_MAX),
    )
    fields.done()
    return wrap
