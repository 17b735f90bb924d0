"""Begins a new line of the history in a restored database. Only the registry writes its first change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from llm_schema_registry.kernel.clock import Clock
from llm_schema_registry.kernel.postgres import PostgresOptions
from services.registry.adapters import postgres_commit
from services.registry.domain.events import EpochStarted
from services.registry.ports import Proposal
from services.registry.tools.place import answered, connect
from services.registry.tools.replay import CannotFollow, raise_sequence

_HEAD = b"SELECT epoch, position FROM registry.head FOR UPDATE"
_OPEN = b"UPDATE registry.head SET fenced = false"


@dataclass(frozen=True, slots=True)
class Begun:
    """Where the place stands."""

    epoch: int
    position: int


@dataclass(frozen=True, slots=True)
class Wish:
    """The line to begin, the first schema id that may be given in it, and who does it."""

    event: EpochStarted
    next_schema_id: int
    actor: str


async def begin_epoch(options: PostgresOptions, schema: str, wished: Callable[[], Wish], *, clock: Clock) -> Begun:
    """Appends EPOCH_STARTED and allows writes, in one transaction, after the id sequence was moved: it gives nothing
    below the wish's id, and never falls.

    wished: called once the database is reached; may block.

    A place whose line is this epoch already stays as it is. Raises CannotFollow unless the place stands at the fork on
    the parent's line; errors.DatabaseUnavailable.
    """
    connection = await connect(options, schema)
    async with connection:
        # In a thread: whoever wishes may take a while.
        wish = await asyncio.to_thread(wished)
        event = wish.event
        with answered():
            async with connection.transaction():
                found = await (await connection.execute(_HEAD)).fetchone()
                assert found is not None, "the head has one row for ever"
                epoch, position = found
                if epoch == event.epoch:
                    return Begun(epoch, position)
                if (epoch, position) != (event.parent, event.fork_position) or event.epoch <= epoch:
                    raise CannotFollow(
                        event.fork_position + 1,
                        f"epoch {event.epoch} begins at {event.parent}/{event.fork_position}; "
                        f"the place stands at {epoch}/{position}",
                    )
                await raise_sequence(connection, wish.next_schema_id)
                await connection.execute(_OPEN)
                proposal = Proposal(event, epoch, 0, None, wish.actor, clock.now())
                for statement, parameters in postgres_commit.statements(proposal):
                    await connection.execute(statement.encode(), parameters)
    return Begun(event.epoch, event.fork_position + 1)
