"""Questions that are asked at about the same time are answered together, and nobody pays for another's fault."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import psycopg
import pytest

from llm_schema_registry import errors
from services.registry.adapters import gathering
from services.registry.adapters.gathering import Gathering


class Oracle:
    """Answers each number with its double, and remembers what it was asked together.

    Of a batch with a number of `bad` it fails as a whole. No answer is there at once; none while `open` is not set.
    """

    def __init__(self, bad: dict[int, Exception] | None = None) -> None:
        self.bad = bad or {}
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.began = asyncio.Condition()
        self.cancelled = 0

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        async with self.began:
            self.batches.append(list(numbers))
            self.began.notify_all()
        try:
            await asyncio.sleep(0)
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        for number in numbers:
            if number in self.bad:
                raise self.bad[number]
        return [number * 2 for number in numbers]

    async def wait_batches(self, count: int) -> None:
        """Waits until so many batches have begun."""
        async with self.began:
            await self.began.wait_for(lambda: len(self.batches) >= count)


def asked(gathered: Gathering[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    """The questions, in work."""

    async def ask(number: int) -> int:
        return await gathered(number)

    return [asyncio.create_task(ask(number)) for number in numbers]


async def one_in_work() -> tuple[Oracle, Gathering[int, int], list[asyncio.Task[int]]]:
    """A first question, which is not answered before the oracle is `open`."""
    oracle = Oracle()
    gathered = Gathering(oracle)
    oracle.open.clear()
    first = asked(gathered, 1)
    await oracle.wait_batches(1)
    return oracle, gathered, first


async def test_asked_at_once() -> None:
    """Questions of one moment are one batch but for the first, and each caller gets its own answer."""
    oracle = Oracle()

    answers = await asyncio.gather(*asked(Gathering(oracle), 0, 1, 2, 3))

    assert answers == [0, 2, 4, 6]
    assert oracle.batches == [[0], [1, 2, 3]]


async def test_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks alone is answered alone, time and again, and waits for no others."""
    monkeypatch.setattr(gathering, "GATHER_SECONDS", 3600)
    gathered = Gathering(Oracle())

    async with asyncio.timeout(60):
        answers = [await gathered(number) for number in range(1000)]

    assert answers == [number * 2 for number in range(1000)]


async def test_asked_meanwhile() -> None:
    """What is asked while a batch is in work makes the next one."""
    oracle, gathered, first = await one_in_work()
    then = asked(gathered, 2, 3)
    await asyncio.sleep(0)

    oracle.open.set()

    assert await asyncio.gather(*first, *then) == [2, 4, 6]
    assert oracle.batches == [[1], [2, 3]]


async def test_batch_that_hangs() -> None:
    """A batch that is not answered does not hold up the next one for long."""
    oracle, gathered, stuck = await one_in_work()

    others = asked(gathered, 2, 3)
    await oracle.wait_batches(2)

    assert oracle.batches == [[1], [2, 3]]
    oracle.open.set()
    assert await asyncio.gather(*stuck, *others) == [2, 4, 6]


@pytest.mark.parametrize("error", [psycopg.DataError("no"), errors.InvalidField("no")])
async def test_one_at_fault(error: Exception) -> None:
    """A question that spoils its batch fails alone: the others are asked again one by one."""
    oracle = Oracle({2: error})

    answers = await asyncio.gather(*asked(Gathering(oracle), 0, 1, 2, 3), return_exceptions=True)

    assert answers == [0, 2, error, 6]
    assert oracle.batches == [[0], [1, 2, 3], [1], [2], [3]]


async def test_nobody_is_answered() -> None:
    """What keeps the database from answering at all is told to everyone, and asked once."""
    error = errors.DatabaseUnavailable("away")
    oracle = Oracle({2: error})

    answers = await asyncio.gather(*asked(Gathering(oracle), 0, 1, 2, 3), return_exceptions=True)

    assert answers == [0, error, error, error]
    assert oracle.batches == [[0], [1, 2, 3]]


async def test_callers_who_leave() -> None:
    """One who is cancelled disturbs nobody; a batch that all have left is cancelled."""
    oracle = Oracle()
    gathered = Gathering(oracle)
    oracle.open.clear()
    lone, *tasks = asked(gathered, 0, 1, 2)
    await oracle.wait_batches(2)

    tasks[0].cancel()
    await asyncio.wait(tasks[:1])
    assert oracle.cancelled == 0
    tasks[1].cancel()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    assert [task.cancelled() for task in tasks] == [True, True]
    assert oracle.cancelled == 1

    oracle.open.set()
    assert await lone == 0


async def test_left_before_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves while still waiting is not asked for."""
    monkeypatch.setattr(gathering, "PATIENCE_SECONDS", 3600)
    oracle, gathered, first = await one_in_work()
    then = asked(gathered, 2, 3)
    await asyncio.sleep(0)

    then[0].cancel()
    await asyncio.wait(then[:1])
    oracle.open.set()

    assert await asyncio.gather(*first, *then[1:]) == [2, 6]
    assert oracle.batches == [[1], [3]]


async def test_too_many() -> None:
    """No more than a fixed number of questions is open; a batch has a limit too."""
    oracle = Oracle()
    gathered = Gathering(oracle)

    tasks = asked(gathered, *range(gathering.ASKED_MAX + 1))
    answers = await asyncio.gather(*tasks, return_exceptions=True)

    assert answers[:-1] == [number * 2 for number in range(gathering.ASKED_MAX)]
    assert isinstance(answers[-1], errors.PoolExhausted)
    assert {len(batch) for batch in oracle.batches[1:-1]} == {gathering.BATCH_MAX}
