"""An object store that fails on purpose, by a plan. For faults on the way to a real store: tests/object_proxy.py."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from llm_schema_registry.objects.store import (
    Capabilities,
    Listed,
    Lock,
    ObjectStore,
    Part,
    Placement,
    Stored,
    Upload,
)
from tests.object_proxy import FaultProxy

__all__ = ["CutShort", "Fault", "FaultProxy", "FaultyStore", "Flip", "Method", "Plan", "Raise", "RaiseAfter", "Wait"]

Method = Literal[
    "put",
    "upload",
    "write",
    "complete",
    "get",
    "read",
    "head",
    "list",
    "delete",
    "extend_lock",
    "sweep",
    "now",
    "probe",
    "check",
]


@dataclass(frozen=True, slots=True)
class Raise:
    """The method raises and does nothing."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class RaiseAfter:
    """The method does all it should, then raises: an answer that was lost. Of `read` and `list`: after the first."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Wait:
    """The method waits until `go`, having set `reached`, and then does what it should."""

    reached: asyncio.Event
    go: asyncio.Event


@dataclass(frozen=True, slots=True)
class CutShort:
    """`get` and `read` return this many bytes and no more, without an error."""

    count: int


@dataclass(frozen=True, slots=True)
class Flip:
    """`get` and `read` return what is stored with the lowest bit of one byte turned; `put` and `write` store it so."""

    offset: int


Fault = Raise | RaiseAfter | Wait | CutShort | Flip


class Plan:
    """Which calls fail: the faults of a method meet its next calls, one each, in order; `None` spares one."""

    def __init__(self) -> None:
        self._faults: defaultdict[Method, deque[Fault | None]] = defaultdict(deque)
        self.calls: defaultdict[Method, int] = defaultdict(int)

    def add(self, method: Method, *faults: Fault | None) -> None:
        """Plans faults behind those that are planned already."""
        self._faults[method].extend(faults)

    def clear(self) -> None:
        """Nothing fails any more."""
        self._faults.clear()

    async def begin(self, method: Method) -> Fault | None:
        """Counts a call, waits or raises if that is planned, and returns what is to be done later."""
        self.calls[method] += 1
        fault = self._faults[method].popleft() if self._faults[method] else None
        match fault:
            case Raise(error):
                raise error
            case Wait(reached, go):
                reached.set()
                await go.wait()
                return None
        return fault

    @property
    def spent(self) -> bool:
        """Whether every planned fault was met."""
        return not any(self._faults.values())


class FaultyStore:
    """An ObjectStore that does what another one does, but for the plan."""

    def __init__(self, inner: ObjectStore, plan: Plan) -> None:
        self._inner = inner
        self.plan = plan

    async def put(
        self,
        key: str,
        content: bytes,
        *,
        if_absent: bool = False,
        if_match: str | None = None,
        placement: Placement | None = None,
    ) -> Stored:
        """See ObjectStore."""
        fault = await self.plan.begin("put")
        stored = await self._inner.put(
            key, _flipped(content, fault, 0), if_absent=if_absent, if_match=if_match, placement=placement
        )
        _after(fault)
        return stored

    @asynccontextmanager
    async def upload(
        self, key: str, *, placement: Placement | None = None, if_absent: bool = True
    ) -> AsyncIterator[Upload]:
        """See ObjectStore."""
        fault = await self.plan.begin("upload")
        async with self._inner.upload(key, placement=placement, if_absent=if_absent) as upload:
            _after(fault)
            yield FaultyUpload(upload, self.plan)

    async def get(self, key: str) -> tuple[bytes, Stored]:
        """See ObjectStore."""
        fault = await self.plan.begin("get")
        content, stored = await self._inner.get(key)
        _after(fault)
        if isinstance(fault, CutShort):
            content = content[: fault.count]
        return _flipped(content, fault, 0), stored

    async def read(self, key: str, *, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """See ObjectStore."""
        fault = await self.plan.begin("read")
        position = 0
        async for piece in self._inner.read(key, start=start, length=length):
            if isinstance(fault, CutShort) and position + len(piece) > fault.count:
                yield piece[: fault.count - position]
                return
            yield _flipped(piece, fault, position)
            position += len(piece)
            _after(fault)

    async def head(self, key: str) -> Stored | None:
        """See ObjectStore."""
        fault = await self.plan.begin("head")
        stored = await self._inner.head(key)
        _after(fault)
        return stored

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[Listed]:
        """See ObjectStore."""
        fault = await self.plan.begin("list")
        async for listed in self._inner.list(prefix, after=after):
            yield listed
            _after(fault)

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        fault = await self.plan.begin("delete")
        await self._inner.delete(key)
        _after(fault)

    async def extend_lock(self, key: str, lock: Lock) -> None:
        """See ObjectStore."""
        fault = await self.plan.begin("extend_lock")
        await self._inner.extend_lock(key, lock)
        _after(fault)

    async def sweep(self, prefix: str, before: datetime) -> int:
        """See ObjectStore."""
        fault = await self.plan.begin("sweep")
        swept = await self._inner.sweep(prefix, before)
        _after(fault)
        return swept

    async def now(self) -> datetime:
        """See ObjectStore."""
        fault = await self.plan.begin("now")
        moment = await self._inner.now()
        _after(fault)
        return moment

    async def probe(self) -> Capabilities:
        """See ObjectStore."""
        fault = await self.plan.begin("probe")
        capabilities = await self._inner.probe()
        _after(fault)
        return capabilities

    async def check(self) -> None:
        """See ObjectStore."""
        fault = await self.plan.begin("check")
        await self._inner.check()
        _after(fault)


class FaultyUpload:
    """An Upload of a FaultyStore."""

    def __init__(self, inner: Upload, plan: Plan) -> None:
        self._inner = inner
        self._plan = plan

    async def write(self, content: bytes) -> None:
        """See Upload."""
        fault = await self._plan.begin("write")
        await self._inner.write(_flipped(content, fault, 0))
        _after(fault)

    async def complete(self) -> tuple[Stored, tuple[Part, ...]]:
        """See Upload."""
        fault = await self._plan.begin("complete")
        completed = await self._inner.complete()
        _after(fault)
        return completed


def _after(fault: Fault | None) -> None:
    if isinstance(fault, RaiseAfter):
        raise fault.error


def _flipped(content: bytes, fault: Fault | None, position: int) -> bytes:
    """The content, which begins at a position of what the fault counts, with its byte turned if it holds it."""
    if not isinstance(fault, Flip) or not position <= fault.offset < position + len(content):
        return content
    turned = bytearray(content)
    turned[fault.offset - position] ^= 1
    return bytes(turned)
