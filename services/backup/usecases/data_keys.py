"""Data keys: made for one backup or one stretch of the archive, wrapped for every recipient, kept beside the data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from llm_schema_registry import errors
from llm_schema_registry.objects.store import (
    ObjectDamaged,
    ObjectExists,
    ObjectNotFound,
    ObjectStore,
    ObjectTooLarge,
)
from llm_schema_registry.operations.ports import Dice
from services.backup.domain import keys, layout
from services.backup.domain.documents import DocumentInvalid
from services.backup.domain.keys import KeyDocument, Wrap
from services.backup.domain.sealing import KEY_BYTES, DataKey
from services.backup.ports import Recipient

CACHED_MAX = 64


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did: keys wrapped anew, keys that had the right recipients, names of those recipients."""

    rewrapped: int
    unchanged: int
    recipients: tuple[str, ...]


class DataKeys:
    """The data keys of one repository. recipients: whom new keys are wrapped for; some may only be able to wrap."""

    def __init__(self, store: ObjectStore, recipients: Sequence[Recipient], dice: Dice) -> None:
        self._store = store
        self._recipients = tuple(recipients)
        self._dice = dice
        self._opened: dict[str, DataKey] = {}

    @property
    def enabled(self) -> bool:
        """Whether data is encrypted at all: it is when there is a recipient."""
        return bool(self._recipients)

    def at(self, store: ObjectStore) -> DataKeys:
        """The data keys of a copy of the repository, for the same recipients."""
        return DataKeys(store, self._recipients, self._dice)

    async def create(self, cluster_id: str, purpose: str) -> DataKey:
        """A new key, wrapped, stored, read back and opened again: who could not restore does not back up.

        Raises errors.KeyUnavailable when no recipient here can open it.
        """
        key = DataKey.of(self._dice(KEY_BYTES))
        await self._store.put(layout.key(key.id, 1), await self._wrapped(key, cluster_id, purpose), if_absent=True)
        return await self.open(key.id, cached=False)

    async def open(self, key_id: str, *, cached: bool = True) -> DataKey:
        """A key by its id.

        Raises errors.KeyUnavailable, naming the recipients it was wrapped for, when none of them is at hand;
        errors.BackupDamaged when what is stored of the key is not there, or cannot be read.
        """
        if cached and key_id in self._opened:
            return self._opened[key_id]
        document, _ = await self._document(key_id)
        names = ", ".join(wrap.recipient for wrap in document.wraps)
        problems = []
        for wrap in document.wraps:
            for recipient in self._recipients:
                if recipient.name != wrap.recipient or not recipient.opens:
                    continue
                if wrap.algorithm != recipient.algorithm:
                    problems.append(f"{recipient.name}: wrapped by {wrap.algorithm}, not by {recipient.algorithm}")
                    continue
                try:
                    key = keys.opened(document, await recipient.unwrap(wrap.value, document.context))
                except errors.KeyUnavailable as failed:
                    problems.append(f"{recipient.name}: {failed.message}")
                else:
                    return self._remember(key)
        told = "; ".join(problems) or "none of those keys is configured here"
        raise errors.KeyUnavailable(
            f"The data key {key_id} cannot be opened. It was wrapped for {names}: {told}.",
            metadata={"key_id": key_id, "recipients": names},
        )

    async def rotate(self, *, dry_run: bool) -> Rotation:
        """Wraps every key anew for the recipients of now, where those differ. The data stays as it is.

        A repeat finishes what one that was ended early began: forms for recipients of before are gone when it is done.
        Raises errors.KeyUnavailable when keys cannot be opened, errors.BackupDamaged when their documents cannot be
        read, and names the first; all others are done.
        """
        wanted = tuple(sorted(recipient.name for recipient in self._recipients))
        if not wanted:
            raise errors.KeyUnavailable("no recipient is configured: a rotation would leave the keys to nobody")
        rewrapped, unchanged, failures = 0, 0, list[errors.Error]()
        for key_id in await self.ids():
            try:
                document, number = await self._document(key_id)
                same = tuple(sorted(wrap.recipient for wrap in document.wraps)) == wanted
                if not dry_run:
                    await self._rotate_one(document, number, wrap=not same)
            except (errors.KeyUnavailable, errors.BackupDamaged) as failed:
                failures.append(failed)
            else:
                unchanged, rewrapped = unchanged + same, rewrapped + (not same)
        if failures:
            raise failures[0]
        return Rotation(rewrapped, unchanged, wanted)

    async def _rotate_one(self, document: KeyDocument, number: int, *, wrap: bool) -> None:
        """Writes the key's next document where it needs one, reads it back, and removes those before the newest."""
        key_id = document.key_id
        if wrap:
            key = await self.open(key_id, cached=False)
            content = await self._wrapped(key, document.context["cluster_id"], document.context["purpose"])
            number += 1
            await self._store.put(layout.key(key_id, number), content, if_absent=True)
            await self.open(key_id, cached=False)
        for name, told in await self._versions(key_id):
            if told < number:
                await self._store.delete(name)

    async def purpose(self, key_id: str) -> str:
        """What a key was made for. Raises errors.BackupDamaged."""
        document, _ = await self._document(key_id)
        return document.context["purpose"]

    async def ids(self) -> Sequence[str]:
        """Ids of all keys in the store."""
        found = {told[0] async for each in self._store.list(layout.KEYS) if (told := layout.key_of(each.key))}
        return sorted(found)

    async def older(self, before: datetime) -> Sequence[str]:
        """Ids of the keys that nobody wrote a document of since a moment, by the store's clock; oldest first."""
        written: dict[str, datetime] = {}
        async for each in self._store.list(layout.KEYS):
            if told := layout.key_of(each.key):
                written[told[0]] = max(each.modify_time, written.get(told[0], each.modify_time))
        return [key_id for time, key_id in sorted((time, key_id) for key_id, time in written.items()) if time < before]

    async def renew(self, key: DataKey, cluster_id: str, purpose: str) -> None:
        """Writes a key down once more, so that it is there and young, whether or not somebody removed it."""
        number = max((told for _, told in await self._versions(key.id)), default=0) + 1
        content = await self._wrapped(key, cluster_id, purpose)
        with suppress(ObjectExists):  # A rotation wrote it down meanwhile.
            await self._store.put(layout.key(key.id, number), content, if_absent=True)

    async def remove(self, key_id: str, before: datetime | None = None) -> None:
        """Removes a key's documents, or those from before a moment: what it sealed can never be read again."""
        for each in [each async for each in self._store.list(layout.key_versions(key_id))]:
            if before is None or each.modify_time < before:
                await self._store.delete(each.key)
        self._opened.pop(key_id, None)

    async def _wrapped(self, key: DataKey, cluster_id: str, purpose: str) -> bytes:
        context = keys.context_of(cluster_id, purpose)
        wraps = [
            Wrap(recipient.name, recipient.algorithm, await recipient.wrap(key.key, context))
            for recipient in self._recipients
        ]
        return keys.encode(KeyDocument(key.id, context, tuple(wraps)))

    async def _document(self, key_id: str) -> tuple[KeyDocument, int]:
        """The newest document of a key, and its number."""
        versions = await self._versions(key_id)
        if not versions:
            raise errors.BackupDamaged(
                f"The data key {key_id} is not in the store: bring the objects below `{layout.key_versions(key_id)}`"
                " back from another store's copy, or take a backup that is sealed under another key.",
                metadata={"key_id": key_id},
            )
        newest, number = max(versions, key=lambda each: each[1])
        try:
            content, _ = await self._store.get(newest)
            document = keys.decode(content)
        except ObjectNotFound:
            raise _damaged(newest, "it vanished while it was read") from None
        except (DocumentInvalid, ObjectDamaged, ObjectTooLarge) as invalid:
            raise _damaged(newest, str(invalid)) from None
        if document.key_id != key_id:
            raise _damaged(newest, "it is the document of another key")
        return document, number

    async def _versions(self, key_id: str) -> list[tuple[str, int]]:
        """The objects with the wrapped forms of a key, and their numbers."""
        listed = [each.key async for each in self._store.list(layout.key_versions(key_id))]
        return [(key, told[1]) for key in listed if (told := layout.key_of(key))]

    def _remember(self, key: DataKey) -> DataKey:
        if len(self._opened) >= CACHED_MAX:
            self._opened.clear()
        self._opened[key.id] = key
        return key


def _damaged(key: str, problem: str) -> errors.BackupDamaged:
    return errors.BackupDamaged(
        f"{key}, which holds the wrapped forms of a data key, cannot be used: {problem}. Bring it back from another"
        " store's copy.",
        metadata={"key": key},
    )
