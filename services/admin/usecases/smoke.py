"""Tries the registry as a client would, in a subject of its own, and leaves nothing behind.

Every process has one subject for it below the reserved prefix, so that names are not used up, and the content is always
the same, so that ids are not. What a process that was killed left there is purged by the next run of any other, once it
is old enough to be nobody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

from llm_schema_registry import errors
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.system import SmokeCheck
from services.admin.ports import Trial

PREFIX = "_smoke/"
CHECK_SECONDS = 12.0
"""For each check: the first comparison may have to wait for a worker that starts."""
RUN_SECONDS = 45.0
"""For all checks, within the call's deadline and with time to tidy."""
TIDY_SECONDS = 5.0
LEFTOVERS_MAX = 20
"""Subjects of earlier runs that one run looks at."""
LEFTOVER_AGE = timedelta(minutes=10)
"""A run is over long before."""
NAMES_READ_MAX = 20
TEXT = '{"type":"object","title":"smoke test","properties":{"name":{"type":"string"}},"required":["name"]}'
FITTING = (
    '{"type":"object","title":"smoke test","properties":{"name":{"type":"string"},"note":{"type":"string"}},'
    '"required":["name"]}'
)
BREAKING = '{"type":"object","title":"smoke test","properties":{"name":{"type":"integer"}},"required":["name"]}'
GOOD, BAD = '{"name":"smoke"}', '{"name":1}'


class _Wrong(Exception):
    """A check found something else than it must; the message says what."""


class Smoke:
    """The smoke test. One at a time in a process; several processes do not disturb each other."""

    def __init__(self, trial: Trial, clock: Clock, instance_id: str) -> None:
        self._trial = trial
        self._clock = clock
        self._turn = asyncio.Lock()
        self.subject = f"{PREFIX}{instance_id}"

    async def run(self) -> Sequence[SmokeCheck]:
        """What was tried, in order. Never raises for what does not pass."""
        async with self._turn:
            run = _Run(self._trial, self._clock, self.subject)
            try:
                return await run.checks()
            finally:
                await run.tidy()


class _Run:
    """One smoke test."""

    def __init__(self, trial: Trial, clock: Clock, subject: str) -> None:
        self._trial = trial
        self._clock = clock
        self._subject = subject
        self._ends = clock.monotonic() + RUN_SECONDS
        self._done: list[SmokeCheck] = []
        self._token = ""
        self._untidy = False
        self._found: tuple[str, int, int] | None = None

    async def checks(self) -> Sequence[SmokeCheck]:
        """Everything in order. After one that others build on did not pass, those are left out."""
        if not await self._tried("health", self._health):
            return self._done
        await self._tried("list", self._list)
        await self._tried("validate schema", self._validate_schema)
        watching = await self._tried("watch begins", self._watch_begins)
        registered = await self._tried("register", self._register)
        # A registry that is read-only, or refuses to write, can still be read: what is there serves for that.
        if self._found is not None:
            await self._tried("get by id", self._get_by_id)
            await self._tried("get by version", self._get_by_version)
        if registered:
            await self._tried("compatibility", self._compatibility)
            await self._tried("validate data", self._validate_data)
            if watching:
                await self._tried("watch", self._watch)
        if self._untidy and await self._tried("delete", self._delete):
            await self._tried("purge", self._purge)
        return self._done

    async def tidy(self) -> None:
        """Removes what a run that was cut off, or failed, may have left."""
        if not self._untidy:
            return
        with suppress(errors.Error, TimeoutError):
            async with asyncio.timeout(TIDY_SECONDS):
                await self._trial.remove(self._subject)
                await self._trial.purge(self._subject)

    async def _tried(self, name: str, check: Callable[[], Awaitable[str]]) -> bool:
        """Runs one check and notes how it went."""
        began = self._clock.monotonic()
        limit = max(0.0, min(CHECK_SECONDS, self._ends - began))
        passed, message = False, ""
        try:
            async with asyncio.timeout(limit):
                message = await check()
            passed = True
        except errors.Error as failed:
            message = f"{failed.reason}: {failed.message}"
        except _Wrong as wrong:
            message = str(wrong)
        except TimeoutError:
            message = f"no answer within {limit:.1f} s"
        self._done.append(SmokeCheck(name, passed, self._clock.monotonic() - began, message))
        return passed

    # The checks: each says what it found, or raises

    async def _health(self) -> str:
        _require(await self._trial.health(), "grpc.health.v1 does not say SERVING")
        return "SERVING"

    async def _list(self) -> str:
        """Also finds something to read, in case nothing can be written."""
        names = [name for name, _ in await self._trial.subjects("", limit=NAMES_READ_MAX)]
        for name in names:
            if name.startswith(PREFIX):
                continue
            with suppress(errors.SubjectNotFound, errors.VersionNotFound):
                self._found = (name, *await self._trial.latest(name))
                break
        return f"{len(names)} subjects on the first page"

    async def _validate_schema(self) -> str:
        _require(await self._trial.valid_schema(TEXT), "a valid schema is called invalid")
        _require(not await self._trial.valid_schema('{"type": 1}'), "an invalid schema is called valid")
        return ""

    async def _watch_begins(self) -> str:
        self._token = await self._trial.now()
        return ""

    async def _register(self) -> str:
        self._untidy = True
        try:
            number, schema_id = await self._trial.register(self._subject, TEXT)
        except (errors.ReadOnly, errors.WritesFenced):
            self._untidy = False
            raise
        self._found = (self._subject, number, schema_id)
        return f"version {number}, schema {schema_id}"

    async def _get_by_id(self) -> str:
        subject, _, schema_id = self._there()
        text = await self._trial.text(schema_id)
        _require(subject != self._subject or text == TEXT, f"schema {schema_id} is not what was registered")
        _require(bool(text), f"schema {schema_id} has no text")
        return f"schema {schema_id}"

    async def _get_by_version(self) -> str:
        subject, number, schema_id = self._there()
        found, text = await self._trial.version(subject, number)
        _require(found == schema_id, f"version {number} of {subject} leads to schema {found}, not {schema_id}")
        _require(bool(text), f"version {number} of {subject} comes without its text")
        return f"version {number} of {subject}"

    async def _compatibility(self) -> str:
        _require(await self._trial.compatible(self._subject, FITTING), "a compatible change is called incompatible")
        _require(not await self._trial.compatible(self._subject, BREAKING), "a breaking change is called compatible")
        return ""

    async def _validate_data(self) -> str:
        schema_id = self._there()[2]
        _require(await self._trial.valid_data(schema_id, GOOD), "data that fits is called invalid")
        _require(not await self._trial.valid_data(schema_id, BAD), "data that does not fit is called valid")
        return ""

    async def _watch(self) -> str:
        _require(await self._trial.seen(self._token, self._subject), "the watch ended without the registration")
        return ""

    async def _delete(self) -> str:
        await self._trial.remove(self._subject)
        return ""

    async def _purge(self) -> str:
        await self._trial.purge(self._subject)
        self._untidy = False
        left = await self._purge_leftovers()
        return f"{left} left by earlier runs purged too" if left else ""

    async def _purge_leftovers(self) -> int:
        before = self._clock.now() - LEFTOVER_AGE
        found = await self._trial.subjects(PREFIX, limit=LEFTOVERS_MAX)
        old = [name for name, time in found if time < before and name != self._subject]
        for name in old:
            await self._trial.remove(name)
            await self._trial.purge(name)
        return len(old)

    def _there(self) -> tuple[str, int, int]:
        assert self._found is not None, "reads are tried only when there is something to read"
        return self._found


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise _Wrong(message)
