"""Recipients of data keys: one suite for every kind, and what is particular to each."""

from __future__ import annotations

import base64
import hashlib
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aioboto3
import pytest
import pytest_asyncio
from botocore.exceptions import ClientError, EndpointConnectionError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from deploy.local.child import Child
from llm_schema_registry import errors
from services.backup.adapters import recipients
from services.backup.adapters.kms import KmsClient, KmsRecipient
from services.backup.adapters.recipients import KeyFileRecipient, PrivateKeyRecipient, PublicKeyRecipient
from services.backup.domain import keys
from services.backup.domain.keys import KeyDocument, Wrap
from services.backup.domain.sealing import DataKey
from services.backup.ports import Recipient

KEY = bytes(range(32))
CONTEXT = keys.context_of("cluster-1", "backup/01ARYZ6S410000000000000000")
OTHER_CONTEXT = keys.context_of("cluster-1", "backup/01ARYZ6S420000000000000000")
MINISTACK = Path(sys.executable).parent / "ministack"


class LocalKms:
    """A key service of the test's own that keeps the service's word: it authenticates key, context and wrapped bytes.

    fault: an error code that every call is answered with.
    """

    def __init__(self) -> None:
        self.fault = ""
        self._dice = iter(range(1, 1 << 20))

    async def encrypt(self, **request: Any) -> Mapping[str, Any]:
        """As AWS KMS answers Encrypt."""
        self._may("Encrypt")
        nonce = next(self._dice).to_bytes(12)
        bound = keys.canonical_context(request["EncryptionContext"])
        return {"CiphertextBlob": nonce + self._cipher(request["KeyId"]).encrypt(nonce, request["Plaintext"], bound)}

    async def decrypt(self, **request: Any) -> Mapping[str, Any]:
        """As AWS KMS answers Decrypt."""
        self._may("Decrypt")
        wrapped = request["CiphertextBlob"]
        bound = keys.canonical_context(request["EncryptionContext"])
        try:
            return {"Plaintext": self._cipher(request["KeyId"]).decrypt(wrapped[:12], wrapped[12:], bound)}
        except (InvalidTag, ValueError):
            raise _refusal("InvalidCiphertextException", "Decrypt") from None

    def _may(self, operation: str) -> None:
        if self.fault:
            raise _refusal(self.fault, operation)

    def _cipher(self, key_id: str) -> AESGCM:
        return AESGCM(hashlib.sha256(key_id.encode()).digest())


def _refusal(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "told in the service's words"}}, operation)


@pytest.fixture(scope="module")
def kms_endpoint(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    """A running key service that speaks the real protocol."""
    folder, port = tmp_path_factory.mktemp("kms"), free_port()
    child = Child(
        name="ministack",
        command=[str(MINISTACK)],
        log=folder / "ministack.log",
        env={
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "SERVICES": "kms",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(folder),
        },
        cwd=folder,
    )

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    child.start()
    try:
        child.wait_until(listens, limit_seconds=30)
        yield f"http://127.0.0.1:{port}"
    finally:
        child.stop(limit_seconds=10)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def kms_client(kms_endpoint: str) -> AsyncIterator[Any]:
    """aioboto3's own client of it."""
    session = aioboto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-east-1")
    async with session.client("kms", endpoint_url=kms_endpoint) as client:
        yield client


Pair = tuple[Recipient, Recipient]


@pytest.fixture(params=["key-file", "key-pair", "public-key", "local-kms", "kms"])
async def pair(request: pytest.FixtureRequest, kms_client: Any) -> Pair:
    """Two recipients of a kind: who wraps, and who opens. They have the same name."""
    match request.param:
        case "key-file":
            return KeyFileRecipient(bytes(32)), KeyFileRecipient(bytes(32))
        case "key-pair":
            return PrivateKeyRecipient(bytes(32)), PrivateKeyRecipient(bytes(32))
        case "public-key":
            opener = PrivateKeyRecipient(b"\x07" * 32)
            return PublicKeyRecipient(opener.public), opener
        case "local-kms":
            client: KmsClient = LocalKms()
            return KmsRecipient(client, "key-1"), KmsRecipient(client, "key-1")
        case _:
            key_id = (await kms_client.create_key())["KeyMetadata"]["KeyId"]
            return KmsRecipient(kms_client, key_id), KmsRecipient(kms_client, key_id)


@pytest.fixture
async def stranger(request: pytest.FixtureRequest, pair: Pair, kms_client: Any) -> Recipient:
    """A recipient of the same kind with another key."""
    match pair[1]:
        case KeyFileRecipient():
            return KeyFileRecipient(b"\x01" * 32)
        case PrivateKeyRecipient():
            return PrivateKeyRecipient(b"\x02" * 32)
        case KmsRecipient() if "local-kms" in request.node.name:
            return KmsRecipient(LocalKms(), "key-2")
        case _:
            return KmsRecipient(kms_client, (await kms_client.create_key())["KeyMetadata"]["KeyId"])


async def test_what_is_wrapped_is_opened(pair: Pair) -> None:
    """The key comes back, and the wrapped form does not show it."""
    wraps, opens = pair

    wrapped = await wraps.wrap(KEY, CONTEXT)

    assert await opens.unwrap(wrapped, CONTEXT) == KEY
    assert KEY not in wrapped
    assert len(wrapped) <= keys.WRAPPED_BYTES_MAX


async def test_two_wraps_are_not_alike(pair: Pair) -> None:
    """Wrapping twice gives different bytes: nobody sees that two keys are the same."""
    wraps, _ = pair

    assert await wraps.wrap(KEY, CONTEXT) != await wraps.wrap(KEY, CONTEXT)


async def test_another_context_opens_nothing(pair: Pair) -> None:
    """What was wrapped for one backup does not open as another's."""
    wraps, opens = pair
    wrapped = await wraps.wrap(KEY, CONTEXT)

    with pytest.raises(errors.KeyUnavailable):
        await opens.unwrap(wrapped, OTHER_CONTEXT)


async def test_another_key_opens_nothing(pair: Pair, stranger: Recipient) -> None:
    """A wrong key is an error that names the recipient, and no bytes."""
    wraps, _ = pair
    wrapped = await wraps.wrap(KEY, CONTEXT)

    with pytest.raises(errors.KeyUnavailable) as refused:
        await stranger.unwrap(wrapped, CONTEXT)

    assert refused.value.metadata["recipient"] == stranger.name
    assert stranger.name != wraps.name


async def test_damaged_wraps_open_nothing(pair: Pair) -> None:
    """A flipped bit anywhere, a missing byte or one too many opens nothing."""
    wraps, opens = pair
    wrapped = await wraps.wrap(KEY, CONTEXT)
    flipped = [wrapped[:place] + bytes([wrapped[place] ^ 1]) + wrapped[place + 1 :] for place in range(len(wrapped))]

    for damaged in (*flipped, b"", wrapped[:1], wrapped[:-1], wrapped + b"\0"):
        try:
            opened = await opens.unwrap(damaged, CONTEXT)
        except errors.KeyUnavailable:
            continue
        # Another program's key service does not look at all of its own bytes; a false key it must not hand out.
        assert isinstance(opens, KmsRecipient)
        assert opened == KEY


async def test_recipients_say_who_they_are(pair: Pair, stranger: Recipient) -> None:
    """Names are stable, tell the kind, and fit the key document; the opener opens."""
    wraps, opens = pair
    data_key = DataKey.of(KEY)

    document = KeyDocument(
        data_key.id, CONTEXT, tuple(Wrap(each.name, each.algorithm, b"wrapped") for each in (wraps, stranger))
    )

    assert keys.decode(keys.encode(document)) == document
    assert (wraps.name, wraps.algorithm) == (opens.name, opens.algorithm)
    assert opens.opens


async def test_any_one_recipient_is_enough() -> None:
    """A key that was wrapped for three is the same for each of them alone."""
    offline = PrivateKeyRecipient(b"\x07" * 32)
    kms = KmsRecipient(LocalKms(), "key-1")
    everyone: list[Recipient] = [KeyFileRecipient(bytes(32)), PublicKeyRecipient(offline.public), kms]
    wraps = tuple([Wrap(each.name, each.algorithm, await each.wrap(KEY, CONTEXT)) for each in everyone])
    document = keys.decode(keys.encode(KeyDocument(DataKey.of(KEY).id, CONTEXT, wraps)))

    for opener in (KeyFileRecipient(bytes(32)), offline, kms):
        own = next(wrap for wrap in document.wraps if wrap.recipient == opener.name)
        assert keys.opened(document, await opener.unwrap(own.value, document.context)) == DataKey.of(KEY)


async def test_a_public_key_does_not_open() -> None:
    """Who holds the public key alone is told that the private one is needed."""
    public = PublicKeyRecipient(PrivateKeyRecipient(b"\x07" * 32).public)

    assert not public.opens
    with pytest.raises(errors.KeyUnavailable, match="opening needs its private key"):
        await public.unwrap(await public.wrap(KEY, CONTEXT), CONTEXT)


async def test_a_degenerate_public_key_opens_nothing() -> None:
    """A forged wrap under a public key of low order, whose shared secret anyone knows, is refused."""
    opener = PrivateKeyRecipient(b"\x07" * 32)

    with pytest.raises(errors.KeyUnavailable):
        await opener.unwrap(b"\x01" + bytes(32) + bytes(48), CONTEXT)


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("DisabledException", "disabled or about to be deleted"),
        ("KMSInvalidStateException", "disabled or about to be deleted"),
        ("NotFoundException", "does not exist there"),
        ("AccessDeniedException", "grant kms:Encrypt and kms:Decrypt"),
        ("InvalidCiphertextException", "wrapped by another key"),
        ("ThrottlingException", "answered ThrottlingException"),
    ],
)
async def test_the_key_services_refusals_are_told(code: str, told: str) -> None:
    """Every refusal becomes an error that says what to do, without the service's own text."""
    client = LocalKms()
    recipient = KmsRecipient(client, "key-1")
    wrapped = await recipient.wrap(KEY, CONTEXT)
    client.fault = code

    with pytest.raises(errors.KeyUnavailable, match=told) as refused:
        await recipient.unwrap(wrapped, CONTEXT)
    with pytest.raises(errors.KeyUnavailable, match="key-1 of the key service"):
        await recipient.wrap(KEY, CONTEXT)

    assert "told in the service's words" not in refused.value.message


async def test_a_disabled_key_is_told_by_the_real_protocol(kms_client: Any) -> None:
    """A key that was disabled after the backup is named as such."""
    key_id = (await kms_client.create_key())["KeyMetadata"]["KeyId"]
    recipient = KmsRecipient(kms_client, key_id)
    wrapped = await recipient.wrap(KEY, CONTEXT)
    await kms_client.disable_key(KeyId=key_id)

    with pytest.raises(errors.KeyUnavailable, match=f"{key_id} of the key service is disabled"):
        await recipient.unwrap(wrapped, CONTEXT)


async def test_a_key_service_that_is_not_there_is_told() -> None:
    """No answer is an error about the key service, in our words."""

    class Gone(LocalKms):
        async def encrypt(self, **_: Any) -> Mapping[str, Any]:
            raise EndpointConnectionError(endpoint_url="http://10.0.0.1/")

    with pytest.raises(errors.KeyUnavailable, match="cannot be asked"):
        await KmsRecipient(Gone(), "key-1").wrap(KEY, CONTEXT)


async def test_answers_without_a_key_are_refused() -> None:
    """An answer that is empty, or holds another key than was wrapped, is an error and no bytes."""

    class Odd(LocalKms):
        answer: bytes = b""

        async def encrypt(self, **_: Any) -> Mapping[str, Any]:
            return {"CiphertextBlob": self.answer}

        async def decrypt(self, **_: Any) -> Mapping[str, Any]:
            return {"Plaintext": self.answer}

    client = Odd()
    for answer in (b"", bytes(16), bytes(48)):
        client.answer = answer
        with pytest.raises(errors.KeyUnavailable):
            await KmsRecipient(client, "key-1").unwrap(b"wrapped", CONTEXT)
    client.answer = b""
    with pytest.raises(errors.KeyUnavailable, match="without a wrapped key"):
        await KmsRecipient(client, "key-1").wrap(KEY, CONTEXT)


@pytest.mark.parametrize("key", ["alias/backup", "arn:aws:kms:eu-central-1:111122223333:alias/backup"])
def test_aliases_are_refused(key: str) -> None:
    """An alias can be moved, and would no longer name who can open."""
    with pytest.raises(ValueError, match="an alias can be moved"):
        KmsRecipient(LocalKms(), key)


async def test_generated_keys_work(tmp_path: Path) -> None:
    """What is generated is read again, and only its owner may read the secrets."""
    recipients.generate_key_file(tmp_path / "key")
    recipients.generate_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    recipients.generate_signing_key(tmp_path / "sign.pem", tmp_path / "verify.pem")

    public = recipients.load_public_key(tmp_path / "public.pem")
    private = recipients.load_private_key(tmp_path / "private.pem")
    file = recipients.load_key_file(tmp_path / "key")
    signing = recipients.load_signing_key(tmp_path / "sign.pem")

    assert await private.recipient.unwrap(await public.recipient.wrap(KEY, CONTEXT), CONTEXT) == KEY
    assert await file.recipient.unwrap(await file.recipient.wrap(KEY, CONTEXT), CONTEXT) == KEY
    assert recipients.load_verifier(tmp_path / "verify.pem") == signing.signer.verifier
    assert (public.problems, private.problems, file.problems, signing.problems) == ((), (), (), ())
    for secret in ("key", "private.pem", "sign.pem"):
        assert stat.S_IMODE((tmp_path / secret).stat().st_mode) == 0o600


def test_a_file_tells_which_kind_it_is(tmp_path: Path) -> None:
    """One setting takes any of the three kinds of files."""
    recipients.generate_key_file(tmp_path / "key")
    recipients.generate_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")

    found = [recipients.load_recipient(tmp_path / name).recipient for name in ("key", "private.pem", "public.pem")]

    assert [type(each) for each in found] == [KeyFileRecipient, PrivateKeyRecipient, PublicKeyRecipient]


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    """A key that exists stays: without it every backup under it would be lost."""
    recipients.generate_key_file(tmp_path / "key")
    before = (tmp_path / "key").read_bytes()

    with pytest.raises(FileExistsError):
        recipients.generate_key_file(tmp_path / "key")
    with pytest.raises(FileExistsError):
        recipients.generate_key_pair(tmp_path / "new.pem", tmp_path / "key")

    assert (tmp_path / "key").read_bytes() == before
    assert not (tmp_path / "new.pem").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_read_is_a_problem(tmp_path: Path, mode: int) -> None:
    """A file whose mode lets others in is read, and told."""
    path = tmp_path / "key"
    recipients.generate_key_file(path)
    path.chmod(mode)

    (problem,) = recipients.load_key_file(path).problems

    assert problem == f"{path}: others than its owner can use this key (mode {mode:04o}); set it to 0600."


def test_a_signing_key_may_be_raw(tmp_path: Path) -> None:
    """32 bytes in base 64 are a signing key, and a verifier's too."""
    (tmp_path / "sign").write_bytes(base64.b64encode(KEY) + b"\n")
    signing = recipients.load_signing_key(tmp_path / "sign")
    (tmp_path / "verify").write_bytes(base64.b64encode(signing.signer.verifier.public))

    assert recipients.load_verifier(tmp_path / "verify") == signing.signer.verifier


LOADERS: list[Callable[[Path], object]] = [
    recipients.load_key_file,
    recipients.load_public_key,
    recipients.load_private_key,
    recipients.load_signing_key,
    recipients.load_verifier,
]
ED25519 = Ed25519PrivateKey.from_private_bytes(KEY)


@pytest.mark.parametrize("length", [0, 31, 33])
@pytest.mark.parametrize("make", [KeyFileRecipient, PrivateKeyRecipient, PublicKeyRecipient])
def test_keys_have_their_length(make: Callable[[bytes], Recipient], length: int) -> None:
    """A key of another length is an error: none is cut or filled up."""
    with pytest.raises(ValueError, match="32"):
        make(bytes(length))


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"not base 64!",
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        bytes(32),
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        b"x" * 70_000,
    ],
)
def test_files_that_hold_no_key_are_refused(
    load: Callable[[Path], object], content: bytes | None, tmp_path: Path
) -> None:
    """A missing file, another length, another encoding: an error that names the file, and no key made to fit."""
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(errors.KeyUnavailable, match=f"The key in {path} cannot be used"):
        load(path)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    """A signing key does not open, and a pair of recipients does not sign."""
    recipients.generate_key_pair(tmp_path / "private.pem", tmp_path / "public.pem")
    recipients.generate_signing_key(tmp_path / "sign.pem", tmp_path / "verify.pem")

    for load, name, told in (
        (recipients.load_private_key, "sign.pem", "no X25519 private key"),
        (recipients.load_public_key, "verify.pem", "no X25519 public key"),
        (recipients.load_signing_key, "private.pem", "no Ed25519 private key"),
        (recipients.load_verifier, "public.pem", "no Ed25519 public key"),
    ):
        with pytest.raises(errors.KeyUnavailable, match=told):
            load(tmp_path / name)


def test_a_pem_signing_key_is_the_raw_one(tmp_path: Path) -> None:
    """PEM made by other programs holds the same key."""
    pem = ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "sign.pem").write_bytes(pem)

    assert recipients.load_signing_key(tmp_path / "sign.pem").signer.seed == KEY
