"""Processes that can be killed: what they return, raise and refuse, with real processes."""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import compatibility_pb2, compatibility_service_pb2, schema_pb2
from services.registry.adapters.workers import WorkerPool
from tests.fix_calls import Registry

Name = Callable[..., str]


async def test_results_and_errors_come_back() -> None:
    """What the work returns is returned, what it raises is raised, and the process works on."""
    async with WorkerPool() as workers:
        assert await workers.run(math.gcd, 12, 18) == 6
        with pytest.raises(ValueError, match="math domain error"):
            await workers.run(math.sqrt, -1)
        first = await workers.run(os.getpid)

        assert await workers.run(os.getpid) == first != os.getpid()


async def test_work_that_takes_too_long_is_ended() -> None:
    """Its caller gets LIMIT_EXCEEDED; the next one a process of its own."""
    async with WorkerPool(seconds_max=1) as workers:
        with pytest.raises(errors.LimitExceeded, match="longer than"):
            await workers.run(time.sleep, 60)

        assert await workers.run(math.gcd, 4, 6) == 2


async def test_a_process_that_ends_is_replaced() -> None:
    """Whatever ended it, its caller gets an error and nobody else."""
    async with WorkerPool() as workers:
        with pytest.raises(errors.LimitExceeded, match="ended its process"):
            await workers.run(os._exit, 1)

        assert await workers.run(math.gcd, 4, 6) == 2


@pytest.mark.parametrize("executable", ["", "/nowhere/python"])
async def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch, executable: str) -> None:
    """The caller may try again, and the work of others is not held up."""
    async with WorkerPool() as workers:
        with monkeypatch.context() as patched:
            patched.setattr(sys, "executable", executable)
            for _ in range(3):
                with pytest.raises(errors.Overloaded, match="could be started") as refused:
                    await workers.run(math.gcd, 4, 6)

        assert refused.value.retry_seconds
        assert await workers.run(math.gcd, 4, 6) == 2


async def test_too_much_waiting_work_is_refused() -> None:
    """At once, with the time after which to try again; a caller who gives up leaves its place to others."""
    async with WorkerPool(seconds_max=30, waiting_max=3) as workers:
        busy = [asyncio.create_task(workers.run(time.sleep, 30)) for _ in range(3)]
        await asyncio.sleep(0)

        with pytest.raises(errors.Overloaded) as refused:
            await workers.run(math.gcd, 4, 6)

        assert refused.value.retry_seconds == 30
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
        assert await workers.run(math.gcd, 4, 6) == 2


async def test_many_comparisons_at_once_are_all_answered(calls: Registry, name: Name) -> None:
    """A hundred callers wait for a few processes."""
    subject = name()
    await calls.register(subject, {"type": "object", "properties": {"a": {"maxLength": 5}}})

    async def check(longest: int) -> compatibility_pb2.Verdict.ValueType:
        request = compatibility_service_pb2.CheckCompatibilityRequest(
            subject=subject,
            format=schema_pb2.SCHEMA_FORMAT_JSON,
            text=json.dumps({"type": "object", "properties": {"a": {"maxLength": longest}}}),
        )
        return (await calls.call(calls.compatibility.CheckCompatibility, request)).report.verdict

    verdicts = await asyncio.gather(*(check(longest) for longest in range(100)))

    expected = [compatibility_pb2.VERDICT_INCOMPATIBLE] * 5 + [compatibility_pb2.VERDICT_COMPATIBLE] * 95
    assert verdicts == expected
