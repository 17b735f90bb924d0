"""Answers what is read at about the same time together: a batch costs little more than one question.

A lone caller waits for nobody: what is asked while nothing is in work goes at once. What is asked meanwhile makes the
next batch, and once a batch held several, the next one waits a little for more of them. So batches grow with the load.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import psycopg

from llm_schema_registry import errors

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

BATCH_MAX = 64
ASKED_MAX = 1000
"""Questions without an answer; more are refused."""
GATHER_SECONDS = 0.005
"""Least time from one batch of several to the next: under load, when callers wait longer than that for their turn."""
PATIENCE_SECONDS = 0.02
"""How long the next batch waits for those in work: a connection that hangs holds up nobody but its own batch."""
RETRY_SECONDS = 1.0


@dataclass(slots=True, eq=False)
class _Question(Generic[Asked, Answer]):
    """What a caller asked. batch: all that are asked with it, once they are."""

    asked: Asked
    answer: asyncio.Future[Answer]
    batch: _Batch[Asked, Answer] | None = None


@dataclass(slots=True, eq=False)
class _Batch(Generic[Asked, Answer]):
    """Questions that are asked together, and the task that does it; without either for a lone question."""

    questions: Sequence[_Question[Asked, Answer]] = ()
    task: asyncio.Task[Sequence[Answer]] | None = None


class Gathering(Generic[Asked, Answer]):
    """Puts callers' questions into batches: `answer = await gathering(asked)`.

    work: gives the answers in the order of the questions, or fails as a whole; it changes nothing, so that a question
    may be asked again, and no longer when nobody waits for the answer.
    """

    def __init__(self, work: Callable[[Sequence[Asked]], Awaitable[Sequence[Answer]]]) -> None:
        self._work = work
        self._waiting: list[_Question[Asked, Answer]] = []
        self._batches: set[_Batch[Asked, Answer]] = set()
        self._asked = 0
        self._next: asyncio.Handle | None = None
        self._pause = 0.0
        self._began = -math.inf

    async def __call__(self, asked: Asked) -> Answer:
        """The answer to one question.

        Raises PoolExhausted when ASKED_MAX others have none, and what the work raises. A question that is at fault
        spoils nobody's answer: after an error that may be of one question alone, each is asked on its own.
        """
        if self._asked >= ASKED_MAX:
            raise errors.PoolExhausted("too many calls wait for the database", retry_seconds=RETRY_SECONDS)
        self._asked += 1
        try:
            if self._next is None and not self._batches and self._due() <= asyncio.get_running_loop().time():
                return await self._alone(asked)
            return await self._with_others(asked)
        finally:
            self._asked -= 1

    async def _alone(self, asked: Asked) -> Answer:
        """The answer to a question that finds nothing in work: in its caller's task, which costs the least."""
        batch: _Batch[Asked, Answer] = _Batch()
        self._start(batch)
        try:
            (answer,) = await self._work([asked])
        finally:
            self._finish(batch, several=bool(self._waiting))
        return answer

    async def _with_others(self, asked: Asked) -> Answer:
        question: _Question[Asked, Answer] = _Question(asked, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if self._next is None:
            self._plan()
        try:
            return await question.answer
        except asyncio.CancelledError:
            self._leave(question)
            raise
        except (psycopg.Error, errors.InvalidField):
            if question.batch is None or len(question.batch.questions) == 1:
                raise
        (answer,) = await self._work([asked])
        return answer

    def _leave(self, question: _Question[Asked, Answer]) -> None:
        """Lets a caller go who was cancelled. A batch that nobody waits for any more is cancelled too."""
        batch, answer = question.batch, question.answer
        if answer.done() and not answer.cancelled():
            answer.exception()  # It came too late; asyncio would log that nobody looked at it.
        if batch is None:
            self._waiting.remove(question)
        elif batch.task is not None and all(each.answer.done() for each in batch.questions):
            batch.task.cancel()

    def _due(self) -> float:
        """The earliest moment of the next batch, on the loop's clock."""
        return self._began + (PATIENCE_SECONDS if self._batches else self._pause)

    def _plan(self) -> None:
        """Sets the next batch for its earliest moment, behind all callers who are about to ask."""
        loop, due = asyncio.get_running_loop(), self._due()
        self._next = loop.call_at(due, self._begin) if due > loop.time() else loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._next = None
        chosen, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        if chosen:
            task = asyncio.ensure_future(self._work([question.asked for question in chosen]))
            batch = _Batch(chosen, task)
            for question in chosen:
                question.batch = batch
            self._start(batch)
            task.add_done_callback(lambda _: self._end(batch, task))
        if self._waiting:
            self._plan()

    def _start(self, batch: _Batch[Asked, Answer]) -> None:
        self._batches.add(batch)
        self._began = asyncio.get_running_loop().time()

    def _finish(self, batch: _Batch[Asked, Answer], *, several: bool) -> None:
        """Begins the next batch when no other is in work. several: callers were there to be gathered."""
        self._batches.discard(batch)
        self._pause = GATHER_SECONDS if several else 0
        if self._waiting and not self._batches:
            if self._next is not None:
                self._next.cancel()
            self._plan()

    def _end(self, batch: _Batch[Asked, Answer], task: asyncio.Task[Sequence[Answer]]) -> None:
        """Gives the callers what came of their batch."""
        error = None if task.cancelled() else task.exception()
        for place, question in enumerate(batch.questions):
            if question.answer.done():
                continue
            if task.cancelled():
                question.answer.cancel()
            elif error is not None:
                question.answer.set_exception(error)
            else:
                question.answer.set_result(task.result()[place])
        self._finish(batch, several=len(batch.questions) > 1 or bool(self._waiting))
