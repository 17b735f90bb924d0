"""The registry's own tools, run as children: only the registry knows what a change does, and what is in order.

Rows go to their standard input, results come as JSON lines; services/registry/tools/command.py says which.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from psycopg import conninfo

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import PostgresOptions
from llm_schema_registry.registry.v1 import stored_change_pb2
from services.backup.adapters.programs import Command, ProgramFailed, run_program
from services.backup.domain.model import Epoch, Place, StoredChange
from services.backup.ports import RegistryCheck

STALL_SECONDS = 600.0
"""A tool that neither reads nor writes for so long has stopped. `check` asks questions of whole tables in between."""
PIECE_BYTES = 256 * 1024
LINE_BYTES_MAX = 1 << 20
SCHEMA = "registry"
CANNOT_FOLLOW = "CANNOT_FOLLOW"
READY = b'"ready"'
READY_SECONDS = 60.0
REPLAY, BEGIN = "replay", "begin-epoch"


class RegistryTools:
    """The tools, on databases of one server. options: those of the live database; each call names its own."""

    def __init__(self, options: PostgresOptions, *, stall_seconds: float = STALL_SECONDS) -> None:
        self._options = options
        self._stall_seconds = stall_seconds

    async def replay(self, database: str, changes: AsyncIterator[StoredChange], *, schema: str = SCHEMA) -> Place:
        """As Places.replay. Raises errors.RestoreFailed, DatabaseUnavailable, and what `changes` raises."""
        result = await self._run(database, ("replay", "--schema", schema), delimited(changes))
        return Place(result["epoch"], result["position"])

    async def check(self, database: str, *, schema: str = SCHEMA) -> RegistryCheck:
        """As Places.check. Raises errors.RestoreFailed when it could not be checked, DatabaseUnavailable."""
        result = await self._run(database, ("check", "--schema", schema))
        return RegistryCheck(result["schemas"], result["changes"], tuple(result["problems"]))

    @asynccontextmanager
    async def writer(self, database: str, *, schema: str = SCHEMA) -> AsyncIterator[ToolWriter]:
        """As Places.writer. Raises errors.RestoreFailed, DatabaseUnavailable when the tools do not start."""
        writer = ToolWriter()
        try:
            for name, arguments, stdin in (
                (REPLAY, ("replay", "--schema", schema), writer.given_changes()),
                (BEGIN, ("begin-epoch", "--ask", "--schema", schema), writer.given_wish()),
            ):
                ready = writer.ready[name] = asyncio.Event()
                work = self._run(database, arguments, stdin, ready)
                writer.tasks[name] = asyncio.create_task(work, name=f"registry {name}")
            await writer.started()
            yield writer
        finally:
            await writer.end()

    async def _run(
        self,
        database: str,
        arguments: Sequence[str],
        stdin: AsyncGenerator[bytes] | None = None,
        ready: asyncio.Event | None = None,
    ) -> Mapping[str, Any]:
        """What the tool's last line says. ready: set once the tool says that it has reached the database."""
        url = database_url(self._options, database)
        command = Command(
            (sys.executable, "-m", "services.registry", *arguments), self._environment(url), secrets=_secrets(url)
        )
        last = _LastLine()
        try:
            async with aclosing(run_program(command, stdin, stall_seconds=self._stall_seconds)) as output:
                async for piece in output:
                    last.add(piece)
                    if ready is not None and last.holds(READY):
                        ready.set()
        except ProgramFailed as failed:
            raise _failure(last.value(), failed) from failed
        result = last.value()
        if result is None or "error" in result or "progress" in result:
            raise errors.RestoreFailed(f"the registry's tool `{arguments[0]}` ended well but gave no result")
        return result

    def _environment(self, url: str) -> dict[str, str]:
        options = self._options
        chosen: dict[str, object] = {
            "URL": url,
            "CONNECTION_TIMEOUT_SECONDS": options.connection_timeout_seconds,
            "SSL_ENABLED": str(options.ssl_enabled).lower(),
        }
        if options.ssl_root_cert_path is not None:
            chosen["SSL_ROOT_CERT_PATH"] = options.ssl_root_cert_path
        environment = {f"SCHEMA_REGISTRY__DATABASE__{name}": str(value) for name, value in chosen.items()}
        # The interpreter is ours, so is what it imports; an empty entry is the present folder.
        return environment | {"PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path)}


class ToolWriter:
    """Tools that have started, reached the place, and wait for what to do: see PlaceWriter."""

    def __init__(self) -> None:
        self.tasks: dict[str, asyncio.Task[Mapping[str, Any]]] = {}
        self.ready: dict[str, asyncio.Event] = {}
        self._changes: asyncio.Future[AsyncIterator[StoredChange]] = asyncio.get_running_loop().create_future()
        self._wish: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def started(self) -> None:
        """Returns once all tools have reached the place. Raises what one of them failed with, errors.RestoreFailed."""
        waiting = {asyncio.create_task(ready.wait()) for ready in self.ready.values()}
        ends = asyncio.get_running_loop().time() + READY_SECONDS
        try:
            while waiting:
                left = ends - asyncio.get_running_loop().time()
                done, _ = await asyncio.wait(
                    waiting | set(self.tasks.values()), timeout=left, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    raise errors.RestoreFailed(
                        f"the registry's tools did not reach the place within {READY_SECONDS:g} seconds: repeat"
                    )
                for task in self.tasks.values():
                    if task.done():
                        # Whatever it says, it has nothing to end with before it was told what to do.
                        task.result()
                        raise errors.RestoreFailed(f"the {task.get_name()} ended before it was told what to do")
                waiting -= done
        finally:
            for each in waiting:
                each.cancel()

    async def replay(self, changes: AsyncIterator[StoredChange]) -> Place:
        """See PlaceWriter."""
        self._changes.set_result(changes)
        result = await self.tasks[REPLAY]
        return Place(result["epoch"], result["position"])

    async def begin_epoch(self, epoch: Epoch, *, next_schema_id: int, actor: str) -> None:
        """See PlaceWriter."""
        wish: dict[str, object] = {"epoch": epoch.id, "parent": epoch.parent, "fork": epoch.fork_position}
        wish |= {"next_schema_id": next_schema_id, "actor": actor}
        self._wish.set_result(json.dumps(wish).encode() + b"\n")
        await self.tasks[BEGIN]

    async def given_changes(self) -> AsyncGenerator[bytes]:
        """What `replay` reads: nothing until the changes are given."""
        async with aclosing(delimited(await self._changes)) as pieces:
            async for piece in pieces:
                yield piece

    async def given_wish(self) -> AsyncGenerator[bytes]:
        """What `begin-epoch` reads: nothing until the wish is given."""
        yield await self._wish

    async def end(self) -> None:
        """Ends tools that were not needed."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for waiting in (self._changes, self._wish):
            waiting.cancel()


def database_url(options: PostgresOptions, database: str) -> str:
    """The options' URL, for another database of the server. As a URI whatever form it was given in."""
    given = conninfo.conninfo_to_dict(options.url)
    given.pop("dbname", None)
    query = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in given.items() if value is not None)
    return f"postgresql:///{quote(database, safe='')}" + (f"?{query}" if query else "")


async def delimited(changes: AsyncIterator[StoredChange]) -> AsyncGenerator[bytes]:
    """The changes as `replay` reads them: registry.v1.StoredChange messages, each after its length, a varint."""
    gathered = bytearray()
    async for change in changes:
        stored = _message(change).SerializeToString()
        gathered += _varint(len(stored)) + stored
        if len(gathered) >= PIECE_BYTES:
            yield bytes(gathered)
            gathered.clear()
    if gathered:
        yield bytes(gathered)


def _message(change: StoredChange) -> stored_change_pb2.StoredChange:
    message = stored_change_pb2.StoredChange(
        epoch=change.epoch,
        position=change.position,
        actor=change.actor,
        subject=change.subject,
        kind=change.kind,
        payload_version=change.payload_version,
        payload=change.payload,
    )
    message.time.FromDatetime(change.time)
    if change.method is not None:
        message.request.method = change.method
        message.request.request_id = change.request_id or ""
        message.request.digest = change.digest or b""
    return message


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


class _LastLine:
    """Keeps the last line of an output of many, as far as it is not absurdly long."""

    def __init__(self) -> None:
        self._kept = b""

    def add(self, piece: bytes) -> None:
        """Takes the next piece."""
        # What is before the last line but one cannot be the last one.
        lines = (self._kept + piece).rsplit(b"\n", 2)
        self._kept = b"\n".join(lines[-2:])[-LINE_BYTES_MAX:]

    def holds(self, text: bytes) -> bool:
        """Whether the last lines hold a text."""
        return text in self._kept

    def value(self) -> Mapping[str, Any] | None:
        """The last whole line, a JSON object; None when there is none."""
        try:
            found = json.loads(self._kept.strip().rsplit(b"\n", 1)[-1])
        except ValueError:
            return None
        return found if isinstance(found, dict) else None


def _failure(said: Mapping[str, Any] | None, failed: ProgramFailed) -> errors.Error:
    """What the tool says it failed with; else how it ended."""
    if said is None or "error" not in said:
        return errors.RestoreFailed(f"the registry's tool did not do its work: {failed}")
    message, reason = str(said["error"]), str(said.get("reason"))
    known = errors.by_reason(reason)
    if known is errors.DatabaseUnavailable:
        return errors.DatabaseUnavailable(message, retry_seconds=1)
    position = said.get("position")
    metadata = {} if position is None else {"position": position}
    return errors.RestoreFailed(f"the registry cannot apply or read this: {message}", metadata=metadata)


def _secrets(url: str) -> tuple[str, ...]:
    password = conninfo.conninfo_to_dict(url).get("password")
    return (url, str(password)) if password else (url,)
