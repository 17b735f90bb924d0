"""Backups without the service: the recovery path of last resort, from a bucket and keys alone.

    python -m services.backup list                      every backup, newest first
    python -m services.backup verify ID [--level V3]    V1 to V3 need no database; V4 restores into a scratch one
    python -m services.backup rebuild-catalog           read every manifest anew, compare with the store
    python -m services.backup restore --latest | --backup ID | --time TIME | --place EPOCH/POSITION [--confirm TEXT]
    python -m services.backup keygen FOLDER             a signing key, a key file and an offline key pair

`restore` onto a live database that has changes which the target has not asks for `--confirm` and names the text. What
was prepared by then is kept, so the command with `--confirm` goes on from there. Run it again after whatever ended it:
what an earlier run, or the service, had begun to swap is ended first.

It needs the bucket, a key that opens the backups, and the public key that signed them, in `backup.trusted_key_paths`;
the signing key itself may be lost. `restore` signs its journal, for which a new signing key will do; the other commands
sign nothing without one, and the record of a verification is not kept then.

Options are the service's: the same file, secrets and environment. One JSON object a line on standard output, notes on
standard error. Exit status: 0 done, 1 failed, or damage was found, 2 wrong settings, keys or arguments, 3 unreachable,
128 + the signal's number when interrupted: what had begun was undone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from llm_schema_registry import errors
from llm_schema_registry.kernel.clock import SystemClock
from llm_schema_registry.kernel.settings import Problem
from llm_schema_registry.kernel.settings_sources import SettingsInvalid, load
from llm_schema_registry.operations import ids
from llm_schema_registry.operations.operation import OperationKind, Subject
from llm_schema_registry.operations.operations import Running, Work
from services.backup.adapters.recipients import (
    generate_key_file,
    generate_key_pair,
    generate_signing_key,
    system_dice,
    write_public_key,
)
from services.backup.assembly import Assembly, Setting, assemble
from services.backup.domain.model import Level, Place, Verification
from services.backup.domain.restore import Restore, RestoreState
from services.backup.domain.targets import AtBackup, AtPlace, AtTime, Latest, Target
from services.backup.settings import BackupServiceSettings, BackupSettings
from services.backup.usecases.catalog import Entry
from services.backup.usecases.prepare import Aim

COMMANDS = ("list", "verify", "rebuild-catalog", "restore", "keygen")
EXIT_FAILED, EXIT_SETTINGS, EXIT_UNREACHABLE, EXIT_SIGNAL = 1, 2, 3, 128
WATCH_SECONDS = 0.2
"""Between two looks at the steps of an operation."""
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/none"
URL = "SCHEMA_REGISTRY__DATABASE__URL"
ACTOR = "offline"
NO_SIGNING_KEY = (
    "a restore signs its journal: name a key in backup.signing_key_path; a new one will do, which"
    " `python -m services.backup keygen FOLDER` makes, with the old public key in backup.trusted_key_paths"
)
TAKE_AWAY = (
    "offline.pem and signing.pub.pem: keep them where no server is, and name offline.pub.pem in backup.key_paths. With"
    " the bucket they restore everything; without the public key that signed nothing in the bucket is trusted"
)
UNFINISHED = ".keygen-"
"""Begins the name of the folder in which keys are made."""


class OfflineBackupSettings(BackupSettings):
    """The service's options, of which the public key that signed can stand for the signing key."""

    def signing(self) -> Iterator[Problem]:
        """There is a signing key, or a public one that is trusted."""
        if self.signing_key_path is not None or not self.trusted_key_paths:
            yield from super().signing()


class OfflineSettings(BackupServiceSettings):
    """The service's options. A command serves nobody, so it needs no authenticator."""

    backup: OfflineBackupSettings = Field(default_factory=OfflineBackupSettings)

    def rules(self) -> Iterator[Problem]:
        """As the service's, of places."""
        yield from self.places()


def main(arguments: Sequence[str]) -> int:
    """Runs one command and returns the exit status."""
    given = _parser().parse_args(arguments)
    if given.command == "keygen":
        return _keygen(Path(given.folder))
    environment = _with_database(os.environ, needed=given.command == "restore" or getattr(given, "level", "") == "V4")
    try:
        settings = load(OfflineSettings, environment).settings
    except SettingsInvalid as invalid:
        problems = "".join(f"  {problem}\n" for problem in invalid.problems)
        sys.stderr.write(f"backup: the settings have {len(invalid.problems)} error(s):\n{problems}")
        return EXIT_SETTINGS
    if given.command == "restore" and settings.backup.signing_key_path is None:
        _note(NO_SIGNING_KEY)
        return EXIT_SETTINGS
    try:
        return asyncio.run(_until_signalled(given, settings))
    except errors.Error as error:
        _say({"error": error.message, "reason": error.reason, "metadata": error.metadata})
        return EXIT_UNREACHABLE if error.code is errors.Code.UNAVAILABLE else EXIT_FAILED
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not try again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED


async def _until_signalled(given: argparse.Namespace, settings: OfflineSettings) -> int:
    """Runs the command. A signal cancels it, and what it had begun is undone before the end."""
    loop, came = asyncio.get_running_loop(), list[signal.Signals]()
    work = asyncio.create_task(_run(given, settings))

    def signalled(number: signal.Signals) -> None:
        came.append(number)
        work.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled, number)
    try:
        return await work
    except asyncio.CancelledError:
        if not came:
            raise
        _note(f"ended by {came[0].name}: what had begun was undone, or is ended by the next run")
        return EXIT_SIGNAL + came[0]


async def _run(given: argparse.Namespace, settings: OfflineSettings) -> int:
    setting = Setting(settings, SystemClock(), f"offline-{system_dice(4).hex()}", _note)
    async with AsyncExitStack() as stack:
        try:
            assembly = await assemble(setting, stack)
        except errors.KeyUnavailable as failed:
            _note(failed.message)
            return EXIT_SETTINGS
        # Before the stores are closed: what an operation undoes needs them.
        stack.push_async_callback(assembly.operations.close, 0)
        match given.command:
            case "list":
                return await _list(assembly)
            case "verify":
                kept = settings.backup.signing_key_path is not None
                return await _verify(assembly, given.backup_id, Level[given.level], kept=kept)
            case "rebuild-catalog":
                return await _rebuild(assembly)
        return await _restore(assembly, given.target, given.confirm)


async def _list(assembly: Assembly) -> int:
    listing = await assembly.repository.catalog.listing()
    for entry in listing.entries:
        _say(_backup(entry))
    for problem in listing.problems:
        _note(problem)
    return EXIT_FAILED if listing.problems else 0


async def _verify(assembly: Assembly, backup_id: str, level: Level, *, kept: bool) -> int:
    """Verifies a backup. kept: whether a record is, which is signed."""
    found: Verification | None = None

    async def look(running: Running) -> Subject:
        nonlocal found
        found = await assembly.verify.verify(backup_id, level, running)
        return Subject("verification", await assembly.repository.catalog.record(found) if kept else "")

    await _operation(assembly, OperationKind.VERIFY, look)
    assert found is not None, "the operation ended well"
    if not kept:
        _note("no signing key is named: the record of the verification is not kept")
    _say({"backup_id": backup_id, "level": level.name, "passed": found.passed, "problems": list(found.problems)})
    return 0 if found.passed else EXIT_FAILED


async def _rebuild(assembly: Assembly) -> int:
    listing, problems = await assembly.repository.catalog.rebuild()
    _say({"backups": len(listing.entries), "problems": problems})
    return EXIT_FAILED if problems else 0


async def _restore(assembly: Assembly, target: Target, confirm: str) -> int:
    """Prepares a restore and swaps it in, through the use cases of the service."""
    for restore in await assembly.swap.unfinished():
        _note(f"restore {restore.id} was {restore.state.name} when its process ended: it is ended first")
        kind = OperationKind.ACTIVATE_RESTORE
        if restore.state is RestoreState.REVERTING:
            kind = OperationKind.REVERT_RESTORE
        await _operation(assembly, kind, partial(assembly.swap.go_on, restore.id))
        ended = await assembly.journal.get(restore.id)
        _say(_shown(ended))
        if (ended.state, ended.target, ended.actor) == (RestoreState.ACTIVE, target, ACTOR):
            return 0
    restore_id = await _prepared(assembly, target)
    if restore_id is None:
        restore_id = assembly.repository.new_id()
        prepare = partial(assembly.prepare.run, restore_id, Aim(target, Level.V0))
        await _operation(assembly, OperationKind.PREPARE_RESTORE, prepare)
    _say(_shown(await assembly.journal.get(restore_id)))
    activate = partial(assembly.swap.activate, restore_id, confirm)
    await _operation(assembly, OperationKind.ACTIVATE_RESTORE, activate)
    _say(_shown(await assembly.journal.get(restore_id)))
    return 0


async def _prepared(assembly: Assembly, target: Target) -> str | None:
    """What an earlier run prepared for the same target; None when there is none.

    One for `latest` is dropped: the history may have gone on since.
    """
    mine = [
        restore
        for restore in await assembly.journal.list()
        if (restore.state, restore.target, restore.actor) == (RestoreState.PREPARED, target, ACTOR)
    ]
    there = await assembly.places.existing() if mine else ()
    for restore in mine:
        if not isinstance(target, Latest) and restore.scratch in there:
            return restore.id
        await assembly.swap.release(restore.id)
    return None


async def _operation(assembly: Assembly, kind: OperationKind, work: Work) -> Subject:
    """What an operation made, its steps told as they happen. Raises the operation's error."""
    told: set[tuple[str, str]] = set()
    begun = await assembly.operations.begin(kind, work, actor=ACTOR)
    async for operation in assembly.operations.watch(begun.name, WATCH_SECONDS):
        for step in operation.steps:
            if (step.name, step.state.value) not in told:
                told.add((step.name, step.state.value))
                _note(f"{step.name}: {step.state.value}", message=step.message)
    ended = await assembly.operations.wait(begun.name)
    if ended.error is not None:
        kind_of_error = errors.by_reason(ended.error.reason) or errors.Internal
        raise kind_of_error(ended.error.message, metadata=ended.error.metadata)
    return ended.subject


def _backup(entry: Entry) -> dict[str, object]:
    manifest = entry.manifest
    return {
        "id": entry.id,
        "kind": manifest.kind.value,
        "time": manifest.facts.time.isoformat(),
        "place": str(manifest.place),
        "versions": manifest.facts.rows("versions"),
        "stored_bytes": manifest.stored_bytes,
        "server_version": manifest.facts.server_version,
        "key_id": manifest.encryption.key_id if manifest.encryption else None,
        "verified": entry.level.name,
        "pinned": entry.pinned,
    }


def _shown(restore: Restore) -> dict[str, object]:
    return {
        "restore_id": restore.id,
        "state": restore.state.value,
        "backup_id": restore.backup_id,
        "place": str(restore.place),
        "subjects": restore.subjects,
        "versions": restore.versions,
        "schemas": restore.schemas,
        "new_epoch": restore.new_epoch,
        "next_schema_id": restore.next_schema_id,
    }


def _keygen(folder: Path) -> int:
    """Makes new keys in a folder. Keys that are there stay; a key is there whole or not at all."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in folder.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left_over)
        with tempfile.TemporaryDirectory(dir=folder, prefix=UNFINISHED) as unfinished:
            for private, public, generate in _KEYS:
                _make_key(folder, Path(unfinished), private, public, generate)
    except OSError as failed:
        _note(f"no keys can be made in {folder}: {failed.strerror or failed}")
        return EXIT_FAILED
    except errors.KeyUnavailable as failed:
        _note(failed.message)
        return EXIT_FAILED
    _say({"folder": str(folder), "take_away": TAKE_AWAY})
    return 0


_KEYS: tuple[tuple[str, str | None, Callable[[Path, Path], None]], ...] = (
    ("signing.pem", "signing.pub.pem", generate_signing_key),
    ("recipient.key", None, lambda private, _: generate_key_file(private)),
    ("offline.pem", "offline.pub.pem", generate_key_pair),
)
"""Private and public file of each key, and what makes them."""


def _make_key(
    folder: Path, unfinished: Path, private: str, public: str | None, generate: Callable[[Path, Path], None]
) -> None:
    """Makes one key, or the public half that an interrupted run left out. Raises OSError, errors.KeyUnavailable."""
    if (folder / private).exists() or (public and (folder / public).exists()):
        _note(f"{folder / private if (folder / private).exists() else folder / str(public)} is there already and stays")
        if public and not (folder / public).exists():
            write_public_key(folder / private, unfinished / public)
            os.link(unfinished / public, folder / public)
        return
    generate(unfinished / private, unfinished / str(public))
    # The private half first: a public key whose private one is lost would seal for nobody.
    for name in (private, public):
        if name:
            with suppress(FileExistsError):
                os.link(unfinished / name, folder / name)


def _with_database(environment: Mapping[str, str], *, needed: bool) -> Mapping[str, str]:
    """The environment, with a database that nobody asks where a command needs none."""
    return environment if needed or environment.get(URL) else {**environment, URL: NO_DATABASE}


def _say(document: Mapping[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _note(event: str, **facts: Any) -> None:
    told = "".join(f" {name}={value}" for name, value in facts.items() if value not in {"", None})
    sys.stderr.write(f"{event}{told}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m services.backup")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="every backup, newest first")
    verify = commands.add_parser("verify", help="verify a backup")
    verify.add_argument("backup_id", type=_id)
    verify.add_argument("--level", choices=[level.name for level in Level if level], default="V3")
    commands.add_parser("rebuild-catalog", help="compare the store with its manifests, and write catalog.json anew")
    restore = commands.add_parser("restore", help="prepare a restore and swap it in")
    where = restore.add_mutually_exclusive_group(required=True)
    where.add_argument("--latest", dest="target", action="store_const", const=Latest())
    where.add_argument("--backup", dest="target", type=lambda text: AtBackup(_id(text)), metavar="ID")
    where.add_argument("--time", dest="target", type=_time, metavar="TIME", help="such as 2026-11-23T12:00:00Z")
    where.add_argument("--place", dest="target", type=_place, metavar="EPOCH/POSITION")
    restore.add_argument("--confirm", default="", help="confirmation of what a live database would lose")
    keygen = commands.add_parser("keygen", help="make keys for a new repository")
    keygen.add_argument("folder")
    return parser


def _id(text: str) -> str:
    if not ids.is_id(text):
        raise argparse.ArgumentTypeError("must be a backup's id: 26 digits and upper-case letters")
    return text


def _time(text: str) -> AtTime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("must be a time such as 2026-11-23T12:00:00Z") from None
    return AtTime(time if time.tzinfo else time.replace(tzinfo=UTC))


def _place(text: str) -> AtPlace:
    epoch, _, position = text.partition("/")
    if not (epoch.isdecimal() and position.isdecimal()):
        raise argparse.ArgumentTypeError("must be EPOCH/POSITION, such as 1/340")
    place = Place(int(epoch), int(position))
    return AtPlace(place.epoch, place.position)
