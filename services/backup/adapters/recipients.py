"""Recipients whose keys are files on this machine, and the key that signs manifests.

Key file: 32 random bytes in base 64, in one line. Public and private keys: PEM (X25519, RFC 8410). Signing key: PEM
(Ed25519), or its 32 bytes in base 64. A key that has another length is refused: none is cut or filled up.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from llm_schema_registry import errors
from llm_schema_registry.operations.ports import Dice
from services.backup.domain.documents import SEED_BYTES, Signer, Verifier
from services.backup.domain.keys import canonical_context
from services.backup.domain.sealing import KEY_BYTES
from services.backup.ports import Recipient

FILE_BYTES_MAX = 64 * 1024
NONCE_BYTES = 12
PUBLIC_BYTES = 32
_FINGERPRINT_LABEL = b"llm-schema-registry key file"
_INFO_LABEL = b"llm-schema-registry wrap/1\0"
_VERSION = b"\x01"


def system_dice(count: int) -> bytes:
    """So many bytes of the operating system's."""
    return os.urandom(count)


class KeyFileRecipient:
    """Wraps with a secret that both sides hold. It opens what it wraps."""

    algorithm = "AES-256-GCM"
    opens = True

    def __init__(self, key: bytes, dice: Dice = system_dice) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"the key has {len(key)} bytes, not {KEY_BYTES}")
        self._key = key
        self._dice = dice
        self.name = f"file:{hmac.digest(key, _FINGERPRINT_LABEL, hashlib.sha256)[:8].hex()}"

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> bytes:
        """The data key, sealed under the file's key."""
        nonce = self._dice(NONCE_BYTES)
        return _VERSION + nonce + AESGCM(self._key).encrypt(nonce, key, canonical_context(context))

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key. Raises errors.KeyUnavailable."""
        nonce, rest = wrapped[1 : 1 + NONCE_BYTES], wrapped[1 + NONCE_BYTES :]
        if wrapped[:1] != _VERSION or len(nonce) != NONCE_BYTES:
            raise _not_opened(self.name)
        try:
            return AESGCM(self._key).decrypt(nonce, rest, canonical_context(context))
        except InvalidTag:
            raise _not_opened(self.name) from None


class PublicKeyRecipient:
    """Wraps for the owner of a private key that need not be on any machine. It cannot open.

    Source: ECIES with a key pair for each wrap, X25519 (RFC 7748) and HKDF-SHA256 (RFC 5869) over both public keys.
    """

    algorithm = "X25519-HKDF-SHA256-AES-256-GCM"
    opens = False

    def __init__(self, public: bytes, dice: Dice = system_dice) -> None:
        self._public = X25519PublicKey.from_public_bytes(public)
        self._dice = dice
        self.name = f"x25519:{hashlib.sha256(public).hexdigest()[:16]}"

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> bytes:
        """The data key, readable to the private key's owner alone."""
        ephemeral = X25519PrivateKey.from_private_bytes(self._dice(KEY_BYTES))
        ours = ephemeral.public_key().public_bytes_raw()
        cipher = _agreed(ephemeral, self._public, ours, self._public.public_bytes_raw())
        return _VERSION + ours + cipher.encrypt(bytes(NONCE_BYTES), key, canonical_context(context))

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:  # noqa: ARG002 - The port's names.
        """Raises errors.KeyUnavailable: the private key is elsewhere."""
        raise errors.KeyUnavailable(
            f"The recipient {self.name} is a public key: opening needs its private key. Name the file that holds it.",
            metadata={"recipient": self.name},
        )


class PrivateKeyRecipient:
    """Opens what was wrapped for its public key, and wraps for it too."""

    algorithm = PublicKeyRecipient.algorithm
    opens = True

    def __init__(self, private: bytes, dice: Dice = system_dice) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()
        self._wrapping = PublicKeyRecipient(self.public, dice)
        self.name = self._wrapping.name

    async def wrap(self, key: bytes, context: Mapping[str, str]) -> bytes:
        """The data key, as PublicKeyRecipient wraps it."""
        return await self._wrapping.wrap(key, context)

    async def unwrap(self, wrapped: bytes, context: Mapping[str, str]) -> bytes:
        """The data key. Raises errors.KeyUnavailable."""
        theirs, rest = wrapped[1 : 1 + PUBLIC_BYTES], wrapped[1 + PUBLIC_BYTES :]
        if wrapped[:1] != _VERSION or len(theirs) != PUBLIC_BYTES:
            raise _not_opened(self.name)
        try:
            cipher = _agreed(self._private, X25519PublicKey.from_public_bytes(theirs), theirs, self.public)
            # The key is used once, so the nonce may stand still.
            return cipher.decrypt(bytes(NONCE_BYTES), rest, canonical_context(context))
        except (InvalidTag, ValueError):
            raise _not_opened(self.name) from None


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Signs manifests and journals. problems: what is unsafe about where it was found, in words."""

    signer: Signer
    problems: tuple[str, ...] = ()


class NoSigner(Signer):
    """Stands where there is no signing key: what only reads needs none."""

    def sign(self, content: bytes) -> bytes:
        """Raises errors.KeyUnavailable."""
        del content
        raise errors.KeyUnavailable("nothing can be signed: name a key in backup.signing_key_path, a new one will do")


@dataclass(frozen=True, slots=True)
class LoadedRecipient:
    """A recipient that a file was read for. problems: what is unsafe about the file, in words."""

    recipient: Recipient
    problems: tuple[str, ...] = ()


def load_key_file(path: Path) -> LoadedRecipient:
    """The recipient of a key file. Raises errors.KeyUnavailable, saying what is wrong with the file."""
    content, problems = _read_secret(path)
    return LoadedRecipient(KeyFileRecipient(_raw(content, path, "a key file holds 32 bytes in base 64")), problems)


def load_public_key(path: Path) -> LoadedRecipient:
    """The recipient of an X25519 public key in PEM. Raises errors.KeyUnavailable."""
    public = _public_pem(_read(path), path)
    if not isinstance(public, X25519PublicKey):
        raise _unfit(path, "it holds no X25519 public key")
    return LoadedRecipient(PublicKeyRecipient(public.public_bytes_raw()))


def load_private_key(path: Path) -> LoadedRecipient:
    """The recipient of an X25519 private key in PEM, without a password. Raises errors.KeyUnavailable."""
    content, problems = _read_secret(path)
    private = _private_pem(content, path)
    if not isinstance(private, X25519PrivateKey):
        raise _unfit(path, "it holds no X25519 private key")
    return LoadedRecipient(PrivateKeyRecipient(private.private_bytes_raw()), problems)


def load_signing_key(path: Path) -> SigningKey:
    """The signing key in a file: Ed25519 in PEM, or its 32 bytes in base 64. Raises errors.KeyUnavailable."""
    content, problems = _read_secret(path)
    if not content.lstrip().startswith(b"-----BEGIN"):
        seed = _raw(content, path, "a signing key is PEM, or 32 bytes in base 64")
        return SigningKey(Signer.of(seed), problems)
    private = _private_pem(content, path)
    if not isinstance(private, Ed25519PrivateKey):
        raise _unfit(path, "it holds no Ed25519 private key")
    return SigningKey(Signer.of(private.private_bytes_raw()), problems)


def no_signing_key(dice: Dice = system_dice) -> SigningKey:
    """Signs nothing; nobody trusts its verifier."""
    return SigningKey(NoSigner.of(dice(SEED_BYTES)))


def load_verifier(path: Path) -> Verifier:
    """The verifier of an Ed25519 public key in PEM, or of its 32 bytes in base 64. Raises errors.KeyUnavailable."""
    content = _read(path)
    if not content.lstrip().startswith(b"-----BEGIN"):
        return Verifier.of(_raw(content, path, "a public key is PEM, or 32 bytes in base 64"))
    public = _public_pem(content, path)
    if not isinstance(public, Ed25519PublicKey):
        raise _unfit(path, "it holds no Ed25519 public key")
    return Verifier.of(public.public_bytes_raw())


def generate_key_file(path: Path, dice: Dice = system_dice) -> None:
    """Writes a new key file that its owner alone can read. Raises FileExistsError: no key is ever overwritten."""
    _write_secret(path, base64.b64encode(dice(KEY_BYTES)) + b"\n")


def generate_key_pair(private_path: Path, public_path: Path, dice: Dice = system_dice) -> None:
    """Writes a new X25519 pair in PEM, as `generate_key_file` writes; take the private key to a safe place."""
    private = X25519PrivateKey.from_private_bytes(dice(KEY_BYTES))
    _write_pair(private, private_path, public_path)


def generate_signing_key(private_path: Path, public_path: Path, dice: Dice = system_dice) -> None:
    """Writes a new Ed25519 pair in PEM; whoever reads backups needs the public key alone."""
    private = Ed25519PrivateKey.from_private_bytes(dice(SEED_BYTES))
    _write_pair(private, private_path, public_path)


def write_public_key(private_path: Path, public_path: Path) -> None:
    """Writes the public key of a pair anew from its private one. Raises errors.KeyUnavailable, FileExistsError."""
    private = _private_pem(_read(private_path), private_path)
    if not isinstance(private, X25519PrivateKey | Ed25519PrivateKey):
        raise _unfit(private_path, "it is neither an X25519 nor an Ed25519 private key")
    _write(public_path, _public_pem_of(private), 0o644)


def _public_pem_of(private: X25519PrivateKey | Ed25519PrivateKey) -> bytes:
    public = private.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _agreed(ours: X25519PrivateKey, theirs: X25519PublicKey, ephemeral: bytes, recipient: bytes) -> AESGCM:
    secret = ours.exchange(theirs)
    derived = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=ephemeral + recipient, info=_INFO_LABEL).derive(secret)
    return AESGCM(derived)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise _unfit(path, f"it cannot be read: {error.strerror}") from None
    if len(content) > FILE_BYTES_MAX:
        raise _unfit(path, f"it is larger than {FILE_BYTES_MAX} bytes, so it is no key")
    return content


def _read_secret(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """A secret, and what is unsafe about its file."""
    content = _read(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return content, (f"{path}: others than its owner can use this key (mode {mode:04o}); set it to 0600.",)
    return content, ()


def _raw(content: bytes, path: Path, rule: str) -> bytes:
    try:
        key = base64.b64decode(content.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise _unfit(path, f"it is not base 64; {rule}") from None
    if len(key) != KEY_BYTES:
        raise _unfit(path, f"it holds {len(key)} bytes; {rule}")
    return key


def _private_pem(content: bytes, path: Path) -> object:
    try:
        return serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _unfit(path, "it is no private key in PEM, or one with a password") from None


def _public_pem(content: bytes, path: Path) -> object:
    try:
        return serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        raise _unfit(path, "it is no public key in PEM") from None


def _write_pair(private: X25519PrivateKey | Ed25519PrivateKey, private_path: Path, public_path: Path) -> None:
    pem = serialization.Encoding.PEM
    secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _write_secret(private_path, secret)
    try:
        _write(public_path, _public_pem_of(private), 0o644)
    except BaseException:
        # Half a pair is of no use, and would keep the next try from its place.
        private_path.unlink()
        raise


def _write_secret(path: Path, content: bytes) -> None:
    _write(path, content, 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _not_opened(name: str) -> errors.KeyUnavailable:
    return errors.KeyUnavailable(
        f"The key of the recipient {name} does not open the data key: it was wrapped for another key or another "
        "backup, or it was changed.",
        metadata={"recipient": name},
    )


def _unfit(path: Path, why: str) -> errors.KeyUnavailable:
    return errors.KeyUnavailable(f"The key in {path} cannot be used: {why}.", metadata={"file": str(path)})


def load_recipient(path: Path) -> LoadedRecipient:
    """The recipient of a file of any of the three kinds. Raises errors.KeyUnavailable."""
    content = _read(path)
    if not content.lstrip().startswith(b"-----BEGIN"):
        return load_key_file(path)
    return load_public_key(path) if b"PUBLIC KEY" in content else load_private_key(path)
