"""PostgreSQL for a service: a bounded pool, errors in our words, and the repeats that are safe.

Connections are in autocommit: a read is one round trip. What must be one transaction is a pipeline (an implicit
transaction up to its end) or says `connection.transaction()`.
"""

from __future__ import annotations

import asyncio
import math
import random
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection, conninfo
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from llm_schema_registry import errors
from llm_schema_registry.kernel.settings import DatabaseSettings

T = TypeVar("T")
Connection = AsyncConnection[tuple[Any, ...]]
Work = Callable[[Connection], Awaitable[T]]

ATTEMPTS_MAX = 5
"""Of one transaction that PostgreSQL ends because of others."""
BACKOFF_SECONDS = 0.01
UNREACHABLE_WAIT_SECONDS = 0.5
"""How long a caller waits for a connection while the server refuses new ones."""
RECONNECT_SECONDS = 0.5
"""The pool repeats a failed connect for so long before it waits for a caller to ask again."""
RETRY_SECONDS = 1.0
CLOSE_SECONDS = 5.0
ANSWERED_SECONDS = 1.0

_UNAVAILABLE = frozenset(
    {
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
        "57P04",  # database_dropped
        "57P05",  # idle_session_timeout
        "53300",  # too_many_connections
    }
)
_WANTING = ("53", "58")  # insufficient_resources, system_error: a full disk, no memory, a file that cannot be read
_STANDBY = "25006"  # read_only_sql_transaction: until the name leads to the primary
_REPEATED = frozenset({"40001", "40P01"})  # serialization_failure, deadlock_detected
_STATEMENT_TIMEOUT = "57014"  # query_canceled; a cancelled task never sees it


@dataclass(frozen=True, slots=True)
class PostgresOptions:
    """How to reach PostgreSQL. url: a libpq URI; it may hold a password, so it is never shown.

    ssl_enabled: TLS is required, and the server verified when there is a root certificate.
    waiting_max: callers that may wait for a connection at once; more are refused.
    """

    url: str = field(repr=False)
    pool_min: int = 5
    pool_max: int = 50
    connection_timeout_seconds: float = 10
    statement_timeout_seconds: float = 30
    ssl_enabled: bool = True
    ssl_root_cert_path: Path | None = None
    application_name: str = "llm_schema_registry"
    waiting_max: int = 500

    @classmethod
    def of(cls, settings: DatabaseSettings, service_name: str) -> PostgresOptions:
        """How a service's settings say to reach PostgreSQL."""
        return cls(
            url=settings.url.get_secret_value(),
            pool_min=settings.pool_min,
            pool_max=settings.pool_max,
            connection_timeout_seconds=settings.connection_timeout_seconds,
            statement_timeout_seconds=settings.statement_timeout_seconds,
            ssl_enabled=settings.ssl_enabled,
            ssl_root_cert_path=settings.ssl_root_cert_path,
            application_name=f"llm_schema_registry {service_name}",
        )

    def conninfo(self) -> str:
        """The libpq connection string: the URL, with what is required here put over it. Raises ValueError."""
        try:
            given = conninfo.conninfo_to_dict(self.url)
        except psycopg.ProgrammingError:
            # The driver's message repeats the URL.
            raise ValueError("the database URL is not a libpq connection URI") from None
        wanted: dict[str, Any] = {"gssencmode": "disable", "keepalives_idle": 30, "keepalives_interval": 10} | given
        if not self.ssl_enabled:
            wanted.setdefault("sslmode", "disable")
        elif self.ssl_root_cert_path is None:
            wanted["sslmode"] = "verify-full" if given.get("sslmode") == "verify-full" else "require"
        else:
            wanted |= {"sslmode": "verify-full", "sslrootcert": str(self.ssl_root_cert_path)}
        wanted["application_name"] = self.application_name
        wanted["connect_timeout"] = max(2, math.ceil(self.connection_timeout_seconds))
        timeout_ms = max(1, round(self.statement_timeout_seconds * 1000))
        session = f"-c statement_timeout={timeout_ms} -c timezone=UTC"
        wanted["options"] = f"{given.get('options') or ''} {session}".strip()
        return conninfo.make_conninfo("", **wanted)


@dataclass(frozen=True, slots=True)
class PoolMeasure:
    """Connections there are, those of them that are idle, and callers that wait for one."""

    size: int
    idle: int
    waiting: int


class Postgres:
    """A pool of connections to one database: `async with Postgres(options) as database`.

    Opening does not wait for the server. The pool recovers by itself when the server comes back.
    """

    def __init__(self, options: PostgresOptions, *, jitter: random.Random | None = None) -> None:
        self.options = options
        self._conninfo = options.conninfo()
        self._jitter = jitter or random.Random()  # noqa: S311 - spreads repeats, keeps no secret
        self._attempted = 0.0
        self._connected = 0.0
        self._last_refused = 0.0
        self._failing = False
        self._answered = -ANSWERED_SECONDS
        self._waits: set[asyncio.Timeout] = set()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            self._attempt,
            connection_class=_telling(self._refused),
            kwargs={"autocommit": True},
            min_size=options.pool_min,
            max_size=options.pool_max,
            max_waiting=options.waiting_max,
            timeout=options.connection_timeout_seconds,
            reconnect_timeout=RECONNECT_SECONDS,
            reconnect_failed=self._unreachable,
            configure=self._configure,
            name=options.application_name,
            open=False,
        )

    async def __aenter__(self) -> Postgres:
        await self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.close(CLOSE_SECONDS)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection in autocommit, for the block alone. Nothing is repeated.

        Raises DatabaseUnavailable, PoolExhausted, Deadline, also for what fails in the block. A task that is cancelled
        in the block cancels its query; a connection that is not idle afterwards is closed.
        """
        held = await self._acquire()
        try:
            with translated():
                yield held
        finally:
            await self._release(held)

    async def read(self, work: Work[T]) -> T:
        """What `work` returns, which has no effect on the database: a broken connection is a reason to repeat it.

        Raises as `connection` does.
        """
        return await self._repeated(work, when_broken=True)

    async def transact(self, work: Work[T]) -> T:
        """What `work` returns, one whole transaction, which is repeated when PostgreSQL ended it because of others.

        Raises as `connection` does; after DatabaseUnavailable and Deadline it may have been committed.
        """
        return await self._repeated(work, when_broken=False)

    async def check(self) -> None:
        """Returns when the database answers. Raises as `connection` does.

        When every connection is busy it is enough that somebody was answered less than ANSWERED_SECONDS ago: a pool
        that works hard is not a database that is gone.
        """
        busy = not self._pool.closed and self.measure().idle == 0
        if busy and time.monotonic() - self._answered < ANSWERED_SECONDS:
            return

        async def ask(connection: Connection) -> None:
            await connection.execute("SELECT 1")

        await self.read(ask)

    def measure(self) -> PoolMeasure:
        """The pool's state now."""
        stats = self._pool.get_stats()
        return PoolMeasure(
            size=stats.get("pool_size", 0),
            idle=stats.get("pool_available", 0),
            waiting=stats.get("requests_waiting", 0),
        )

    async def _repeated(self, work: Work[T], *, when_broken: bool) -> T:
        for attempt in range(1, ATTEMPTS_MAX):
            held = await self._acquire()
            try:
                result = await work(held)
            except psycopg.Error as error:
                if error.sqlstate not in _REPEATED and not (when_broken and is_broken(held, error)):
                    with translated():
                        raise
            else:
                self._answered = time.monotonic()
                return result
            finally:
                await self._release(held)
            await asyncio.sleep(self._jitter.random() * BACKOFF_SECONDS * 2**attempt)
        async with self.connection() as held:
            return await work(held)

    async def _acquire(self) -> Connection:
        """A connection whose socket is quiet: one on which the server said something while idle has been ended."""
        wait, began = self.options.connection_timeout_seconds, time.monotonic()
        if self._failing:
            wait = min(wait, UNREACHABLE_WAIT_SECONDS)
        try:
            async with asyncio.timeout(wait) as patience:
                self._waits.add(patience)
                try:
                    return await self._quiet_connection(wait)
                finally:
                    self._waits.discard(patience)
        except (PoolTimeout, TimeoutError):
            if self._failing or self._attempted > self._connected or self._last_refused >= began:
                raise _unavailable() from None
            raise errors.PoolExhausted(
                "no database connection became free in time: repeat later", retry_seconds=RETRY_SECONDS
            ) from None
        except psycopg.Error as error:
            raise translation(error) from error

    async def _quiet_connection(self, wait_seconds: float) -> Connection:
        while True:
            held = await self._pool.getconn(wait_seconds)
            if not _said_something(held):
                return held
            await held.close()
            await self._pool.putconn(held)

    async def _release(self, held: Connection) -> None:
        """Returns a connection to the pool, which keeps it only when it is idle."""
        if not held.closed and held.pgconn.transaction_status not in _CLEAN:
            await held.close()
        await self._pool.putconn(held)

    def _attempt(self) -> str:
        """Called by the pool before each connect."""
        self._attempted = time.monotonic()
        return self._conninfo

    def _refused(self) -> None:
        """Called after each connect that failed. Whoever waited then waited for the server, not for others."""
        self._last_refused = time.monotonic()

    async def _configure(self, _: Connection) -> None:
        """Called by the pool after each connect that succeeded."""
        self._connected = time.monotonic()
        self._failing = False

    def _unreachable(self, _: object) -> None:
        """Called by the pool when it gives up a connect: nobody waits any longer."""
        self._failing = True
        for patience in self._waits:
            if not patience.expired():
                patience.reschedule(asyncio.get_running_loop().time())


def _telling(refused: Callable[[], None]) -> type[Connection]:
    """Connections whose failed attempts are told: the pool keeps those to itself and tries again."""

    class Telling(AsyncConnection[tuple[Any, ...]]):
        @classmethod
        async def connect(cls, *arguments: Any, **named: Any) -> Any:
            try:
                return await super().connect(*arguments, **named)
            except psycopg.Error:
                refused()
                raise

    return Telling


async def connect(options: PostgresOptions, *, statement_timeout_seconds: float | None = None) -> Connection:
    """A connection of one's own, in autocommit, outside any pool. Raises DatabaseUnavailable.

    statement_timeout_seconds: another one than the options'; zero for none.
    """
    with translated():
        held: Connection = await AsyncConnection.connect(options.conninfo(), autocommit=True)
        if statement_timeout_seconds is not None:
            timeout_ms = round(statement_timeout_seconds * 1000)
            await held.execute("SELECT set_config('statement_timeout', %s, false)", [str(timeout_ms)])
    return held


@contextmanager
def translated() -> Iterator[None]:
    """Raises the driver's errors of the block in our words, where there is one; others are defects and stay."""
    try:
        yield
    except psycopg.Error as error:
        ours = translation(error)
        if ours is error:
            raise
        raise ours from error


def translation(error: psycopg.Error) -> Exception:
    """The error in our words; itself when it is a defect of ours."""
    state = error.sqlstate
    if isinstance(error, TooManyRequests):
        return errors.PoolExhausted("too many calls wait for a database connection", retry_seconds=RETRY_SECONDS)
    if isinstance(error, PoolClosed) or state in _UNAVAILABLE or _is_lost(error):
        return _unavailable()
    if state == _STATEMENT_TIMEOUT:
        return errors.Deadline("the database did not answer within the statement timeout")
    if state is not None and state.startswith(_WANTING):
        return errors.DatabaseUnavailable(
            f"the database lacks disk, memory or another resource (SQLSTATE {state}): repeat later",
            retry_seconds=RETRY_SECONDS,
        )
    if state == _STANDBY:
        return errors.DatabaseUnavailable(
            "the database takes no writes now, as a standby does: repeat later", retry_seconds=RETRY_SECONDS
        )
    if state in _REPEATED:
        return errors.DatabaseUnavailable(
            "other transactions were in the way during every attempt: repeat later", retry_seconds=RETRY_SECONDS
        )
    if isinstance(error, psycopg.DataError) and state is None and "NUL" in str(error):
        return errors.InvalidField("a text holds the character U+0000, which cannot be stored: remove it")
    return error


def is_broken(connection: Connection, error: psycopg.Error) -> bool:
    """Whether the error ended the connection, so that nothing after it could work."""
    return connection.closed or error.sqlstate in _UNAVAILABLE or _is_lost(error)


def _is_lost(error: psycopg.Error) -> bool:
    """Whether it is the connection that failed: the server's word for it, or the driver's without a code."""
    state = error.sqlstate
    return isinstance(error, psycopg.OperationalError) if state is None else state.startswith("08")


def _unavailable() -> errors.DatabaseUnavailable:
    return errors.DatabaseUnavailable("the database cannot be reached: repeat later", retry_seconds=RETRY_SECONDS)


_CLEAN = frozenset({psycopg.pq.TransactionStatus.IDLE, psycopg.pq.TransactionStatus.UNKNOWN})


def _said_something(connection: Connection) -> bool:
    """Whether an idle connection has unread input: the server's farewell, or the end of the stream. No round trip."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
