"""Sealed bytes: authenticated encryption of streams, chunk by chunk.

The STREAM construction: AES-256-GCM for each chunk, under a key that is derived for each object, with a nonce that
holds the chunk's number and whether it is the last. So a byte that was changed, a chunk that was moved, dropped,
repeated or taken from elsewhere, and an end that came too early, even between two chunks, are all noticed; and each
chunk can be checked alone. Source: Hoang, Reyhanitabar, Rogaway, Vizár, "Online Authenticated-Encryption and its
Nonce-Reuse Misuse-Resistance" (2015), STREAM; the layout of nonces is that of Tink's AES-GCM-HKDF streaming encryption.

    sealed  = header, chunk*
    header  = "LSRSEAL", version 1, chunk_bytes (4), key id (16), salt (32), prefix (7), zero       68 bytes, big-endian
    chunk   = AES-256-GCM(subkey, nonce, header ‖ context, plain chunk), its tag of 16 bytes at the end
    subkey  = HKDF-SHA256(data key, salt, "llm-schema-registry sealed/1" ‖ 0 ‖ context)
    nonce   = prefix ‖ number of the chunk (4) ‖ 1 for the last one, else 0

Every chunk but the last is full; the last one is empty only when all is.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

ALGORITHM = "AES-256-GCM-HKDF-STREAM/1"
KEY_BYTES = 32
SALT_BYTES = 32
PREFIX_BYTES = 7
TAG_BYTES = 16
CHUNK_BYTES = 1024 * 1024
CHUNK_BYTES_MIN = 16
CHUNK_BYTES_MAX = 16 * 1024 * 1024
"""What one chunk may take in memory, whatever a damaged header says."""
CHUNKS_MAX = 1 << 32
"""Of one object: the nonce's counter has 32 bits."""
KEY_ID_LABEL = b"llm-schema-registry data key id"
_INFO_LABEL = b"llm-schema-registry sealed/1\0"
_MAGIC = b"LSRSEAL"
_VERSION = 1
_LAYOUT = struct.Struct(">7sBI16s32s7sB")
HEADER_BYTES = _LAYOUT.size


class Tampered(Exception):
    """Sealed bytes are not what was sealed, or not under this context.

    chunk: number from 0 of the one at fault, None for the header. offset: where it begins in the sealed bytes.
    """

    def __init__(self, message: str, *, chunk: int | None, offset: int) -> None:
        super().__init__(message)
        self.chunk = chunk
        self.offset = offset


class WrongKey(Tampered):
    """The header names another key. GCM alone would not tell keys apart, since it does not commit to one."""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A key that data is sealed under, and the id that recognises it without telling it: 32 hexadecimal digits."""

    id: str
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES:
            raise ValueError(f"a data key has {KEY_BYTES} bytes, not {len(self.key)}")
        if not hmac.compare_digest(self.id, key_id(self.key)):
            raise ValueError("the id is not this key's")

    @classmethod
    def of(cls, key: bytes) -> DataKey:
        """The data key of KEY_BYTES bytes, with its id."""
        return cls(key_id(key), bytes(key))


def key_id(key: bytes) -> str:
    """Recognises a key: 16 bytes of HMAC-SHA256 under the key, in hexadecimal."""
    return hmac.digest(key, KEY_ID_LABEL, hashlib.sha256)[:16].hex()


@dataclass(frozen=True, slots=True)
class Header:
    """What sealed bytes say of themselves."""

    chunk_bytes: int
    key_id: str
    salt: bytes
    prefix: bytes

    def __post_init__(self) -> None:
        if not CHUNK_BYTES_MIN <= self.chunk_bytes <= CHUNK_BYTES_MAX:
            raise ValueError(f"chunks have {CHUNK_BYTES_MIN} to {CHUNK_BYTES_MAX} bytes, not {self.chunk_bytes}")
        if len(self.salt) != SALT_BYTES or len(self.prefix) != PREFIX_BYTES:
            raise ValueError(f"the salt has {SALT_BYTES} bytes and the prefix {PREFIX_BYTES}")

    @classmethod
    def parse(cls, sealed: bytes) -> Header:
        """The header at the beginning of sealed bytes. Raises Tampered."""
        if len(sealed) < HEADER_BYTES:
            raise Tampered(
                f"the sealed data ends after {len(sealed)} bytes, inside its header", chunk=None, offset=len(sealed)
            )
        magic, version, chunk_bytes, key, salt, prefix, zero = _LAYOUT.unpack_from(sealed)
        if magic != _MAGIC or version != _VERSION or zero:
            raise Tampered("the data does not begin with the header of sealed data, version 1", chunk=None, offset=0)
        try:
            return cls(chunk_bytes, key.hex(), salt, prefix)
        except ValueError as error:
            raise Tampered(f"the header of the sealed data is damaged: {error}", chunk=None, offset=0) from None

    def encode(self) -> bytes:
        """HEADER_BYTES bytes."""
        key = bytes.fromhex(self.key_id)
        return _LAYOUT.pack(_MAGIC, _VERSION, self.chunk_bytes, key, self.salt, self.prefix, 0)

    def chunk_count(self, sealed_bytes: int) -> int:
        """How many chunks so many sealed bytes have, header included. Raises Tampered for a size that none can have."""
        whole = self.chunk_bytes + TAG_BYTES
        full, rest = divmod(sealed_bytes - HEADER_BYTES, whole)
        count = full + (rest > 0)
        # A tag alone stands for nothing sealed, and only in the first place.
        if sealed_bytes < HEADER_BYTES + TAG_BYTES or 0 < rest < TAG_BYTES + (full > 0) or count > CHUNKS_MAX:
            raise Tampered(f"no sealed data has {sealed_bytes} bytes", chunk=max(count - 1, 0), offset=sealed_bytes)
        return count

    def chunk_span(self, sealed_bytes: int, index: int) -> tuple[int, int]:
        """Where a chunk, numbered from 0, begins in the sealed bytes, and its length there."""
        if not 0 <= index < self.chunk_count(sealed_bytes):
            raise IndexError(f"{sealed_bytes} sealed bytes have no chunk {index}")
        start = self.offset(index)
        return start, min(self.chunk_bytes + TAG_BYTES, sealed_bytes - start)

    def offset(self, index: int) -> int:
        """Where a chunk begins in the sealed bytes."""
        return HEADER_BYTES + index * (self.chunk_bytes + TAG_BYTES)


def sealed_size(plain_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> int:
    """Bytes that so many plain ones take when sealed."""
    return HEADER_BYTES + plain_bytes + max(1, -(-plain_bytes // chunk_bytes)) * TAG_BYTES


class Sealer:
    """Seals one object's bytes as they come.

    context: who the object is, such as cluster, backup and key in the store; opening needs the same. salt, prefix:
    random, never used twice together. Holds one chunk at most; gives out what is sealed.
    """

    def __init__(
        self, key: DataKey, context: str, *, salt: bytes, prefix: bytes, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        header = Header(chunk_bytes, key.id, salt, prefix)
        self._cipher = _Cipher(key, context, header)
        self._pieces = _Pieces(chunk_bytes)
        self._waiting = [header.encode()]
        self._index = 0

    def update(self, plain: bytes) -> bytes:
        """Takes the next bytes, of any number, and returns those that are sealed by now, perhaps none."""
        sealed, self._waiting = self._waiting, []
        for piece in self._pieces.cut(plain):
            sealed.append(self._cipher.seal(self._index, piece, last=False))
            self._index += 1
        return _joined(sealed)

    def finish(self) -> bytes:
        """Returns the rest. Nothing can be added after it."""
        return _joined([*self._waiting, self._cipher.seal(self._index, self._pieces.finish(), last=True)])


class Opener:
    """Opens sealed bytes as they come. What it gives out was sealed by a holder of the key, at this place.

    Only `finish` tells that nothing is missing at the end. Raises WrongKey when the header names another key, Tampered
    for all else; it cannot be used after that.
    """

    def __init__(self, key: DataKey, context: str) -> None:
        self._key = key
        self._context = context
        self._head = bytearray()
        self._cipher: _Cipher | None = None
        self._pieces = _Pieces(0)
        self._index = 0

    def update(self, sealed: bytes) -> bytes:
        """Takes the next sealed bytes, of any number, and returns what is opened by now, perhaps nothing."""
        cipher = self._cipher
        if cipher is None:
            missing = HEADER_BYTES - len(self._head)
            self._head += sealed[:missing]
            if len(self._head) < HEADER_BYTES:
                return b""
            cipher = self._begin()
            sealed = sealed[missing:]
        plain = []
        for piece in self._pieces.cut(sealed):
            plain.append(cipher.open(self._index, piece, last=False))
            self._index += 1
        return _joined(plain)

    def finish(self) -> bytes:
        """Returns the rest, once it is certain that it is the end."""
        if self._cipher is None:
            self._begin()  # Says that the header is not whole.
        assert self._cipher is not None
        return self._cipher.open(self._index, self._pieces.finish(), last=True)

    def _begin(self) -> _Cipher:
        header = Header.parse(bytes(self._head))
        self._cipher = _Cipher(self._key, self._context, header)
        self._pieces = _Pieces(header.chunk_bytes + TAG_BYTES)
        return self._cipher


def seal(key: DataKey, context: str, plain: bytes, *, salt: bytes, prefix: bytes) -> bytes:
    """Seals a small object at once, as Sealer does."""
    sealer = Sealer(key, context, salt=salt, prefix=prefix)
    return sealer.update(plain) + sealer.finish()


def open_sealed(key: DataKey, context: str, sealed: bytes) -> bytes:
    """Opens a small object at once, as Opener does. Raises Tampered and WrongKey."""
    opener = Opener(key, context)
    return opener.update(sealed) + opener.finish()


def open_chunk(key: DataKey, context: str, header: Header, index: int, sealed: bytes, *, last: bool) -> bytes:
    """Opens one chunk, read from the place that `Header.chunk_span` names. Raises Tampered and WrongKey."""
    return _Cipher(key, context, header).open(index, sealed, last=last)


class _Cipher:
    """Seals and opens chunks of one object."""

    def __init__(self, key: DataKey, context: str, header: Header) -> None:
        if header.key_id != key.id:
            raise WrongKey(
                f"the data is sealed under the key {header.key_id}, not under {key.id}", chunk=None, offset=0
            )
        told = context.encode()
        subkey = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=header.salt, info=_INFO_LABEL + told)
        self._gcm = AESGCM(subkey.derive(key.key))
        self._header = header
        self._bound = header.encode() + told

    def seal(self, index: int, plain: _Bytes, *, last: bool) -> bytes:
        return self._gcm.encrypt(self._nonce(index, last=last), plain, self._bound)

    def open(self, index: int, sealed: _Bytes, *, last: bool) -> bytes:
        offset = self._header.offset(index)
        shortest = TAG_BYTES + (index > 0)
        if len(sealed) < shortest or index >= CHUNKS_MAX:
            raise Tampered(
                f"the sealed data ends too early, at chunk {index}, byte {offset}", chunk=index, offset=offset
            )
        try:
            return self._gcm.decrypt(self._nonce(index, last=last), sealed, self._bound)
        except InvalidTag:
            raise Tampered(_refusal(index, offset, last=last), chunk=index, offset=offset) from None

    def _nonce(self, index: int, *, last: bool) -> bytes:
        if index >= CHUNKS_MAX:
            raise ValueError(f"one object has at most {CHUNKS_MAX} chunks of {self._header.chunk_bytes} bytes")
        return self._header.prefix + struct.pack(">I?", index, last)


_Bytes = bytes | bytearray | memoryview


class _Pieces:
    """Cuts a stream into pieces of one size and keeps back the last, full or not, until more comes or it ends.

    Whole pieces are passed on without being copied.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: bytes | bytearray = b""

    def cut(self, data: bytes) -> Iterator[_Bytes]:
        rest = memoryview(data)
        if self._kept and rest:
            missing = self._size - len(self._kept)
            if missing:
                self._kept = bytearray(self._kept) if isinstance(self._kept, bytes) else self._kept
                self._kept += rest[:missing]
                rest = rest[missing:]
            if not rest:
                return
            whole, self._kept = self._kept, b""
            yield whole
        while len(rest) > self._size:
            yield rest[: self._size]
            rest = rest[self._size :]
        if rest:
            untouched = isinstance(data, bytes) and len(rest) == len(data)
            self._kept = data if untouched else bytearray(rest)

    def finish(self) -> bytes | bytearray:
        whole, self._kept = self._kept, b""
        return whole


def _joined(pieces: list[bytes]) -> bytes:
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _refusal(index: int, offset: int, *, last: bool) -> str:
    end = ", or the data does not end there" if last else ""
    return f"chunk {index} of the sealed data, at byte {offset}, was changed, moved, or belongs to another object{end}"
