"""Stops processes in order: one after the other and back again, or all of them for good.

What was done is kept beside the operation, so that any process can show it. This process comes last. A rolling shutdown
hands its operation over to the process that takes its place: only that one can say that it serves. A full one ends its
operation first and stops itself then: nobody is left to say more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from llm_schema_registry import errors
from llm_schema_registry.objects.store import ObjectDamaged, ObjectNotFound, ObjectStore, ObjectTooLarge
from llm_schema_registry.operations import keys
from llm_schema_registry.operations.forgetting import forget_old
from llm_schema_registry.operations.operation import Operation, OperationKind, Subject
from llm_schema_registry.operations.operations import HandedOver, Operations, Request, Running
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.shutdown import ShutdownMode, ShutdownRecord, from_document, to_document
from services.admin.domain.system import ADMIN, Address, Process, Replica
from services.admin.ports import Peers
from services.admin.usecases.office import Office

PREFIX = "shutdowns/"
SUBJECT = "shutdown"
POLL_SECONDS = 0.25
"""Between two looks at a replica that stops or starts."""
FAREWELL_SECONDS = 2.0
"""Between the end of a full shutdown's operation and the stop of this process: whoever watches hears of the end."""
SUCCESSOR_SECONDS = 120.0
"""How long a new process asks whether it is the one that a shutdown waits for."""
SUCCESSOR_POLL_SECONDS = 0.5
RECORDS_MAX = 1000
FORGET_SECONDS = 86_400.0

Report = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Wish:
    """What a shutdown is asked for. replica_seconds: for one replica to stop and, when rolling, to serve again."""

    services: Sequence[str]
    mode: ShutdownMode
    cause: str
    replica_seconds: float


@dataclass(frozen=True, slots=True)
class Here:
    """This process: its id, its clock, where its notes go."""

    instance_id: str
    clock: Clock
    report: Report


class Shutdown:
    """Stops processes in order."""

    def __init__(self, peers: Peers, operations: Operations, office: Office, store: ObjectStore, here: Here) -> None:
        self._peers = peers
        self._operations = operations
        self._office = office
        self._store = store
        self._here = here
        self._farewell: asyncio.Task[None] | None = None

    async def begin(self, wish: Wish, *, actor: str, request: Request) -> Operation:
        """Begins it, and returns its operation. Raises errors.OperationRunning while another changes the system."""
        if await self._operations.find(OperationKind.SHUTDOWN, request.id) is None:
            await self._office.require_free()
        return await self._operations.begin(
            OperationKind.SHUTDOWN, partial(self._run, wish), actor=actor, request=request, subject=Subject(SUBJECT)
        )

    async def get(self, operation: str) -> ShutdownRecord:
        """What a shutdown did so far. Raises errors.OperationNotFound when that is not on record, or cannot be read."""
        try:
            content, _ = await self._store.get(_key(operation))
            return from_document(json.loads(content))
        except (ObjectNotFound, ObjectDamaged, ObjectTooLarge, ValueError, KeyError, TypeError):
            raise errors.OperationNotFound(f"what {operation[:100]} did is not on record") from None

    async def keep(self) -> None:
        """Completes what the process before this one at its address handed over, then forgets old records every day.

        Never raises for what is away, and does not end.
        """
        ends = self._here.clock.monotonic() + SUCCESSOR_SECONDS
        waiting: Sequence[ShutdownRecord] | None = None
        while waiting != [] and self._here.clock.monotonic() < ends:
            try:
                waiting = await self._pending() if waiting is None else waiting
                waiting = [each for each in waiting if not await self._tried(each)]
            except errors.Error as failed:
                self._here.report("shutdowns on record cannot be read", message=failed.message)
            if waiting != []:
                await asyncio.sleep(SUCCESSOR_POLL_SECONDS)
        while True:
            try:
                await self._forget_old()
            except errors.Error as failed:
                self._here.report("old records were not removed", message=failed.message)
            await asyncio.sleep(FORGET_SECONDS)

    async def close(self) -> None:
        """Ends what would still stop this process."""
        if self._farewell is not None:
            self._farewell.cancel()
            await asyncio.gather(self._farewell, return_exceptions=True)

    # The work

    async def _run(self, wish: Wish, running: Running) -> Subject:
        name = running.operation.name
        subject = Subject(SUBJECT, name)
        record = ShutdownRecord(name, wish.mode)
        async with self._office.held(name) as lease:
            await self._keep(record)
            running.about(subject)
            async with running.step("look at every replica") as say:
                found = await self._look(wish)
                say(f"{len(found)} to stop")
            stop = self._restart if wish.mode is ShutdownMode.ROLLING else self._end
            others, own = _ordered(found, self._here.instance_id)
            for count, replica in enumerate(others, 1):
                await lease.require()
                async with self._step(running, wish, replica.address) as say:
                    outcome = await stop(replica, wish, say)
                record = record.with_replica(outcome)
                await self._keep(record)
                running.tell(parts_done=count)
            if own is not None:
                await self._stop_here(own, wish, running, record)
        return subject

    async def _look(self, wish: Wish) -> Sequence[Replica]:
        """Every replica as it is now. Raises errors.PeerUnreachable where one has to be there and is not."""
        found = []
        for service in wish.services:
            addresses = await self._peers.replicas(service)
            if not addresses:
                raise errors.PeerUnreachable(
                    f"{service} has no replica that is known (peers.{service}): nothing was stopped", retry_seconds=5
                )
            for address in addresses:
                try:
                    found.append(Replica(address, await self._peers.state(address)))
                except errors.PeerUnreachable as away:
                    # What is down already is no obstacle to stopping all; a rolling restart must not take the next one.
                    if wish.mode is ShutdownMode.ROLLING:
                        raise
                    found.append(Replica(address, None, away.message))
        if ADMIN in wish.services and not any(_is(each, self._here.instance_id) for each in found):
            raise errors.PeerFailed(
                f"none of the addresses in peers.admin is this process, {self._here.instance_id}: it could not be"
                " stopped last. Correct peers.admin, or name the other services."
            )
        return found

    async def _end(self, replica: Replica, wish: Wish, say: Callable[[str], None]) -> Replica:
        """Stops a replica for good."""
        address, before = replica.address, replica.process
        if before is None:
            say("did not answer before either: taken as stopped")
            return replica
        stopping = await self._peers.stop(address, cause=wish.cause, restart=False)
        async with self._limited(wish, address, "did not end"):
            now = await self._until(address, lambda now: now is None or now.instance_id != before.instance_id)
        if now is not None:
            raise errors.PeerFailed(
                f"{address.service} at {address.target} was started again, as {now.instance_id}: its supervisor starts"
                " also what ended in order. Stop that first, then repeat.",
                metadata={"service": address.service, "address": address.target},
            )
        say(f"{before.instance_id} ended")
        return replace(replica, process=stopping)

    async def _restart(self, replica: Replica, wish: Wish, say: Callable[[str], None]) -> Replica:
        """Stops a replica, and waits until its address serves again as another process."""
        address, before = replica.address, replica.process
        assert before is not None, "a rolling shutdown begins when every replica answers"
        await self._peers.stop(address, cause=wish.cause, restart=True)
        async with self._limited(wish, address, f"did not serve again in place of {before.instance_id}"):
            now = await self._until(
                address, lambda now: now is not None and now.instance_id != before.instance_id and now.serves
            )
        assert now is not None, "what serves answers"
        say(f"{now.instance_id} serves in place of {before.instance_id}")
        return replace(replica, process=now)

    async def _stop_here(self, own: Replica, wish: Wish, running: Running, record: ShutdownRecord) -> None:
        """Stops this process, last. Raises HandedOver when another one takes its place and says how it went."""
        if wish.mode is ShutdownMode.FULL:
            async with self._step(running, wish, own.address) as say:
                await self._keep(record.with_replica(own))
                say("this process, which ends once this is on record")
            running.point_of_no_return = True
            self._farewell = asyncio.create_task(self._say_farewell(own, wish, running), name="farewell")
            return
        running.point_of_no_return = True
        await self._keep(replace(record, pending=(own.address, self._here.instance_id)))
        try:
            await self._peers.stop(own.address, cause=wish.cause, restart=True)
        except errors.Error:
            await self._keep(record)
            raise
        raise HandedOver

    async def _say_farewell(self, own: Replica, wish: Wish, running: Running) -> None:
        """Stops this process once its operation has ended well."""
        await running.ended.wait()
        await asyncio.sleep(FAREWELL_SECONDS)
        try:
            await self._peers.stop(own.address, cause=wish.cause, restart=False)
        except errors.Error as failed:
            self._here.report("this process could not be stopped", message=failed.message)

    # What a predecessor left

    async def _pending(self) -> Sequence[ShutdownRecord]:
        """Shutdowns on record whose last replica is being restarted."""
        listed = [each.key async for each in self._store.list(PREFIX)][-RECORDS_MAX:]
        names = [key.removeprefix(PREFIX).removesuffix(".json") for key in listed]
        found = []
        for name in names:
            if keys.is_name(name):
                # One that cannot be read is nobody's to complete.
                with suppress(errors.OperationNotFound):
                    found.append(await self.get(name))
        return [each for each in found if each.pending is not None]

    async def _forget_old(self) -> None:
        await forget_old(self._store, PREFIX)
        await self._operations.forget_old()

    async def _tried(self, record: ShutdownRecord) -> bool:
        """Whether it is known who goes on with a shutdown: if it is this process, it does."""
        assert record.pending is not None, "only what is pending is tried"
        address, before = record.pending
        now = await self._seen(address)
        if now is None or now.instance_id == before or not now.serves:
            return False
        if now.instance_id == self._here.instance_id:
            await self._operations.adopt(record.operation, partial(self._complete, record, now))
        return True

    async def _complete(self, record: ShutdownRecord, process: Process, running: Running) -> Subject:
        """Says that this process serves in place of the one that ran the shutdown."""
        assert record.pending is not None, "only what is pending is completed"
        address, before = record.pending
        running.point_of_no_return = True
        async with running.step(f"restart {address.service} at {address.target}") as say:
            await self._keep(record.with_replica(Replica(address, process)))
            say(f"{process.instance_id} serves in place of {before}")
        return Subject(SUBJECT, record.operation)

    # Small things

    @asynccontextmanager
    async def _step(self, running: Running, wish: Wish, address: Address) -> AsyncIterator[Callable[[str], None]]:
        verb = "restart" if wish.mode is ShutdownMode.ROLLING else "stop"
        async with running.step(f"{verb} {address.service} at {address.target}") as say:
            yield say

    @asynccontextmanager
    async def _limited(self, wish: Wish, address: Address, what: str) -> AsyncIterator[None]:
        """Raises errors.PeerFailed when the block takes longer than one replica may."""
        try:
            async with asyncio.timeout(wish.replica_seconds):
                yield
        except TimeoutError:
            raise errors.PeerFailed(
                f"{address.service} at {address.target} {what} within {wish.replica_seconds:g} s. Nothing behind it was"
                " stopped.",
                metadata={"service": address.service, "address": address.target},
            ) from None

    async def _until(self, address: Address, holds: Callable[[Process | None], bool]) -> Process | None:
        """What answers at an address, once it holds. For ever: the caller has a limit."""
        while True:
            now = await self._seen(address)
            if holds(now):
                return now
            await asyncio.sleep(POLL_SECONDS)

    async def _seen(self, address: Address) -> Process | None:
        """The process at an address; None when none answers."""
        try:
            return await self._peers.state(address)
        except errors.PeerUnreachable:
            return None

    async def _keep(self, record: ShutdownRecord) -> None:
        content = json.dumps(to_document(record), sort_keys=True, indent=1).encode()
        await self._store.put(_key(record.operation), content)


def _ordered(found: Sequence[Replica], instance_id: str) -> tuple[Sequence[Replica], Replica | None]:
    """The replicas of others as they come, and this process."""
    others = [each for each in found if not _is(each, instance_id)]
    return others, next((each for each in found if _is(each, instance_id)), None)


def _is(replica: Replica, instance_id: str) -> bool:
    return replica.process is not None and replica.process.instance_id == instance_id


def _key(operation: str) -> str:
    return f"{PREFIX}{operation}.json"
