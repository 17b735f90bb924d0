"""Documents of the repository: canonical JSON, read strictly, and signed where others must not be able to write them.

Canonical means: UTF-8, members sorted by name, no white space, no fractions, no member twice, text escaped only where
JSON demands it. For integers up to 2^53 this is RFC 8785. A document that is not written so is refused, so what was
signed is what is read.

A signed document is `{"<kind>": {...}, "signature": {"algorithm": "Ed25519", "key_id": ..., "value": ...}}`. The
signature is over the canonical bytes of `{"<kind>": {...}}`: the kind is signed too, so one kind cannot be passed off
as another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

DOCUMENT_BYTES_MAX = 16 * 1024 * 1024
TEXT_CHARACTERS_MAX = 4096
ITEMS_MAX = 100_000
INTEGER_MAX = (1 << 63) - 1
SEED_BYTES = 32
_ALGORITHM = "Ed25519"
_SIGNATURE = "signature"
_KIND = re.compile(r"[a-z][a-z_]{0,31}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
_HEX = re.compile(r"(?:[0-9a-f]{2})*", re.ASCII)
_KEY_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)


class DocumentInvalid(Exception):
    """Bytes are not such a document; the message says where in it and why."""


class SignatureInvalid(DocumentInvalid):
    """Nobody who is trusted signed the document as it stands."""


def canonical(value: object) -> bytes:
    """The canonical JSON of a value. Raises DocumentInvalid for what JSON, or these rules, cannot tell."""
    _check(value, "")
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def parse(content: bytes, *, bytes_max: int = DOCUMENT_BYTES_MAX) -> dict[str, object]:
    """The object that canonical JSON tells. Raises DocumentInvalid, also for JSON that is not canonical."""
    if len(content) > bytes_max:
        raise DocumentInvalid(f"the document has {len(content)} bytes, more than {bytes_max}")
    try:
        value = json.loads(
            content.decode(), object_pairs_hook=_members, parse_float=_fraction, parse_constant=_fraction
        )
    except DocumentInvalid:
        raise
    except UnicodeDecodeError as error:
        raise DocumentInvalid(f"the document is not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise DocumentInvalid(f"the document is not JSON: {error.msg} at character {error.pos}") from None
    except (RecursionError, ValueError):
        raise DocumentInvalid("the document is nested too deeply, or holds too large a number") from None
    if not isinstance(value, dict):
        raise DocumentInvalid("the document is not a JSON object")
    if canonical(value) != content:
        raise DocumentInvalid("the document is JSON, but not canonical: it was not written by this program")
    return value


@dataclass(frozen=True, slots=True)
class Verifier:
    """Checks signatures of one key. key_id: 32 hexadecimal digits, the beginning of the public key's SHA-256."""

    key_id: str
    public: bytes

    @classmethod
    def of(cls, public: bytes) -> Verifier:
        """The verifier of a public key of 32 bytes. Raises ValueError for what is none."""
        Ed25519PublicKey.from_public_bytes(public)
        return cls(hashlib.sha256(public).hexdigest()[:32], public)

    def accepts(self, signature: bytes, content: bytes) -> bool:
        """Whether the key's owner signed the content."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, content)
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with one key. seed: the private key's SEED_BYTES bytes (RFC 8032)."""

    verifier: Verifier
    seed: bytes = field(repr=False)

    @classmethod
    def of(cls, seed: bytes) -> Signer:
        """The signer of a private key. Raises ValueError for another number of bytes."""
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
        return cls(Verifier.of(public.public_bytes_raw()), bytes(seed))

    @property
    def key_id(self) -> str:
        """The same as of the verifier."""
        return self.verifier.key_id

    def sign(self, content: bytes) -> bytes:
        """64 bytes, the same for the same content."""
        return Ed25519PrivateKey.from_private_bytes(self.seed).sign(content)


def encode_signed(kind: str, body: Mapping[str, object], signer: Signer) -> bytes:
    """A signed document. kind: lower-case letters and underscores, not `signature`."""
    if not _KIND.fullmatch(kind) or kind == _SIGNATURE:
        raise ValueError(f"no kind of document: {kind!r}")
    value = base64.b64encode(signer.sign(canonical({kind: body}))).decode()
    return canonical({kind: body, _SIGNATURE: {"algorithm": _ALGORITHM, "key_id": signer.key_id, "value": value}})


def decode_signed(
    kind: str, content: bytes, verifiers: Sequence[Verifier], *, bytes_max: int = DOCUMENT_BYTES_MAX
) -> dict[str, object]:
    """The body of a signed document of a kind, signed by one of several keys.

    Raises DocumentInvalid, and SignatureInvalid when all but the signature is in order.
    """
    document = Fields(parse(content, bytes_max=bytes_max), "")
    body = document.mapping(kind)
    signature = document.fields(_SIGNATURE)
    document.done()
    algorithm, key_id = signature.text("algorithm"), signature.text("key_id")
    value = signature.base64("value", 64)
    signature.done()
    if algorithm != _ALGORITHM:
        raise DocumentInvalid(f"signature.algorithm: only {_ALGORITHM} is known")
    verifier = next((each for each in verifiers if each.key_id == key_id), None)
    if verifier is None:
        raise SignatureInvalid(f"the {kind} is signed by the key {key_id[:40]}, which is not among those trusted here")
    if not verifier.accepts(value, canonical({kind: body})):
        raise SignatureInvalid(f"the {kind} was changed after the key {key_id} signed it")
    return body


def time_text(time: datetime) -> str:
    """A moment as documents tell it: RFC 3339 in UTC, with microseconds and `Z`."""
    return time.astimezone(UTC).strftime(_TIME_FORMAT)


def time_of(text: str) -> datetime | None:
    """The moment that `time_text` wrote; None for any other text."""
    if not _TIME.fullmatch(text):
        return None
    try:
        return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


class Fields:
    """Reads an object's members, each once, and refuses what is missing, of another kind, or left over."""

    def __init__(self, members: Mapping[str, object], path: str) -> None:
        self._members = dict(members)
        self._path = path

    def refuse(self, name: str, why: str) -> NoReturn:
        """Raises DocumentInvalid about a member."""
        raise DocumentInvalid(f"{self._where(name)}: {why}")

    def done(self) -> None:
        """Raises DocumentInvalid when members are left that nobody asked for."""
        for name in sorted(self._members):
            self.refuse(name[:40], "is not known")

    def told(self, name: str) -> bool:
        """Whether there is such a member: documents of before it was told have it not."""
        return name in self._members

    def present(self, name: str) -> bool:
        """False for a member that is null, which is read by this; it must be there."""
        if name in self._members and self._members[name] is None:
            del self._members[name]
            return False
        return True

    def text(self, name: str, pattern: re.Pattern[str] | None = None, *, longest: int = TEXT_CHARACTERS_MAX) -> str:
        """A text that fits a pattern as a whole."""
        value = self._take(name)
        if not isinstance(value, str) or len(value) > longest:
            self.refuse(name, f"must be a text of at most {longest} characters")
        if pattern is not None and not pattern.fullmatch(value):
            self.refuse(name, f"{value[:80]!r} is not of the form that it must have")
        return value

    def integer(self, name: str, low: int = 0, high: int = INTEGER_MAX) -> int:
        """An integer within bounds."""
        value = self._take(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.refuse(name, f"must be an integer from {low} to {high}")
        return value

    def boolean(self, name: str) -> bool:
        """true or false."""
        value = self._take(name)
        if not isinstance(value, bool):
            self.refuse(name, "must be true or false")
        return value

    def time(self, name: str) -> datetime:
        """A moment."""
        text = self.text(name, longest=40)
        time = time_of(text)
        return time if time is not None else self.refuse(name, "must be a time such as 2026-01-31T23:59:59.000000Z")

    def digest(self, name: str) -> bytes:
        """A SHA-256 in lower-case hexadecimal."""
        text = self.text(name, _HEX, longest=64)
        return bytes.fromhex(text) if len(text) == 64 else self.refuse(name, "must have 64 hexadecimal digits")

    def key_id(self, name: str) -> str:
        """The id of a key: 32 lower-case hexadecimal digits."""
        return self.text(name, _KEY_ID)

    def base64(self, name: str, bytes_max: int) -> bytes:
        """Bytes in base 64, with padding and without anything else."""
        text = self.text(name, longest=-(-bytes_max // 3) * 4)
        try:
            value = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            self.refuse(name, "must be base 64")
        return value if base64.b64encode(value).decode() == text else self.refuse(name, "must be base 64")

    def mapping(self, name: str) -> dict[str, object]:
        """An object, unread."""
        value = self._take(name)
        if not isinstance(value, dict):
            self.refuse(name, "must be an object")
        return value

    def fields(self, name: str) -> Fields:
        """An object, to be read."""
        return Fields(self.mapping(name), self._where(name))

    def many(self, name: str, longest: int = ITEMS_MAX) -> list[Fields]:
        """A list of objects, to be read."""
        where = self._where(name)
        found = []
        for index, value in enumerate(self._list(name, longest)):
            if not isinstance(value, dict):
                self.refuse(f"{name}[{index}]", "must be an object")
            found.append(Fields(value, f"{where}[{index}]"))
        return found

    def texts(self, name: str, longest: int = ITEMS_MAX) -> tuple[str, ...]:
        """A list of texts."""
        found = []
        for index, value in enumerate(self._list(name, longest)):
            if not isinstance(value, str) or len(value) > TEXT_CHARACTERS_MAX:
                self.refuse(f"{name}[{index}]", f"must be a text of at most {TEXT_CHARACTERS_MAX} characters")
            found.append(value)
        return tuple(found)

    def _list(self, name: str, longest: int) -> list[object]:
        value = self._take(name)
        if not isinstance(value, list) or len(value) > longest:
            self.refuse(name, f"must be a list of at most {longest}")
        return value

    def _take(self, name: str) -> object:
        if name not in self._members:
            self.refuse(name, "is missing")
        return self._members.pop(name)

    def _where(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name


def _check(value: object, where: str) -> None:
    match value:
        case None | bool():
            return
        case int():
            if not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
                raise DocumentInvalid(f"{where}: a number is larger than 64 bits")
        case str():
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise DocumentInvalid(f"{where}: a text holds half a character")
        case list() | tuple():
            for index, item in enumerate(value):
                _check(item, f"{where}[{index}]")
        case dict():
            for name, item in value.items():
                if not isinstance(name, str) or not name.isascii():
                    raise DocumentInvalid(f"{where}: a member's name is not ASCII")
                _check(item, f"{where}.{name}" if where else name)
        case _:
            raise DocumentInvalid(f"{where}: {type(value).__name__} has no canonical form")


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DocumentInvalid("an object of the document has a member twice")
    return members


def _fraction(text: str) -> NoReturn:
    raise DocumentInvalid(f"the document holds the number {text[:20]}, and only integers have one form")
