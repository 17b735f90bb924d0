"""A recipient whose key never leaves a key service: AWS KMS, or what speaks its protocol.

Source: AWS KMS API reference, Encrypt and Decrypt. The context is the encryption context, which the service binds and
logs. What is wrapped is the key and a proof of it, so that a service which speaks the protocol but does not
authenticate what it opens, as test doubles do, cannot hand out another key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from llm_schema_registry import errors
from services.backup.domain.keys import WRAPPED_BYTES_MAX, canonical_context

PROOF_BYTES = 16
_PROOF_LABEL = b"llm-schema-registry kms/1\0"
_NOT_OPENED = "does not open the data key: it was wrapped by another key or for another backup"
_REFUSED = frozenset({"InvalidCiphertextException", "IncorrectKeyException"})
_MISSING = frozenset({"NotFoundException"})
_OFF = frozenset({"DisabledException", "KMSInvalidStateException"})
_DENIED = frozenset({"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException"})


class KmsClient(Protocol):
    """The two calls of aioboto3's `kms` client that are used."""

    def encrypt(self, **request: Any) -> Awaitable[Mapping[str, Any]]: ...

    def decrypt(self, **request: Any) -> Awaitable[Mapping[str, Any]]: ...


class KmsRecipient:
    """Wraps and opens by asking the key service. key: the id or ARN of a symmetric key, not an alias: those move."""

    algorithm = "AWS-KMS"
    opens = True

    def __init__(self, client: KmsClient, key: str) -> None:
        if key.startswith("alias/") or ":alias/" in key:
            raise ValueError("name the key by its id or ARN: an alias can be moved to another key")
        self._client = client
        self._key = key
        self.name = f"kms:{key}"

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> bytes:
        """The data key as the service wrapped it. Raises errors.KeyUnavailable, also when there is no answer."""
        told = key + _proof(key, context)
        try:
            answer = await self._client.encrypt(KeyId=self._key, Plaintext=told, EncryptionContext=dict(context))
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._translated(error, "wrap") from None
        wrapped = answer.get("CiphertextBlob")
        if not isinstance(wrapped, bytes) or not 0 < len(wrapped) <= WRAPPED_BYTES_MAX:
            raise self._unavailable("answered without a wrapped key")
        return wrapped

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key. Raises errors.KeyUnavailable, also when the service cannot be reached."""
        try:
            answer = await self._client.decrypt(
                KeyId=self._key, CiphertextBlob=wrapped, EncryptionContext=dict(context)
            )
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._translated(error, "open") from None
        told = answer.get("Plaintext")
        if not isinstance(told, bytes) or len(told) <= PROOF_BYTES:
            raise self._unavailable("answered without a key")
        key, proof = told[:-PROOF_BYTES], told[-PROOF_BYTES:]
        if not hmac.compare_digest(proof, _proof(key, context)):
            raise self._unavailable(_NOT_OPENED)
        return key

    def _translated(self, error: ClientError | BotoCoreError | OSError, verb: str) -> errors.KeyUnavailable:
        code = str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""
        if code in _REFUSED:
            return self._unavailable(_NOT_OPENED)
        if code in _MISSING:
            return self._unavailable("does not exist there: check its id, the region and the account")
        if code in _OFF:
            return self._unavailable("is disabled or about to be deleted: enable it, or cancel the deletion")
        if code in _DENIED:
            return self._unavailable(
                f"may not be used by these credentials: grant kms:Encrypt and kms:Decrypt to {verb}"
            )
        if code:
            return self._unavailable(f"did not {verb} the data key; the key service answered {code}")
        return self._unavailable("cannot be asked: the key service does not answer, or there are no credentials")

    def _unavailable(self, why: str) -> errors.KeyUnavailable:
        return errors.KeyUnavailable(
            f"The key {self._key} of the key service {why}.", metadata={"recipient": self.name}
        )


def _proof(key: bytes, context: Mapping[str, str]) -> bytes:
    return hmac.digest(key, _PROOF_LABEL + canonical_context(context), hashlib.sha256)[:PROOF_BYTES]
