"""Runs a program with bounded memory and patience, so that nothing of it outlives whoever asked for it."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from services.backup.adapters.pipes import PipeEnd

T = TypeVar("T")

PIPE_BYTES = 1024 * 1024
"""What the kernel keeps between the program and us; more is a privilege (pipe(7))."""
BUFFER_BYTES = 256 * 1024
SAID_BYTES_MAX = 64 * 1024
"""Of standard error; the end is kept."""
SAID_CHARACTERS_MAX = 2000
"""Of what was said in a message."""
KILL_SECONDS = 10.0
"""How long a killed program may take to go; only one that waits in the kernel takes any."""
INHERITED = frozenset(
    {"HOME", "KRB5CCNAME", "KRB5_CONFIG", "LD_LIBRARY_PATH", "OPENSSL_CONF", "PATH"}
    | {"SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "USER"}
)
"""Of our environment. PG* variables would change what a program connects to, and others may hold secrets."""

_EXEC_PROGRAM = Path(__file__).with_name("exec_program.py")

log = logging.getLogger(__name__)


class ProgramFailed(Exception):
    """A program did not do its work. The message names it, says how it ended and what it said last, without secrets."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. arguments: the program's path first; everybody on the machine can read them, so never a secret.

    environment: put over the few variables that are inherited. secrets: texts that messages must not show.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: Collection[str] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The program's name, as in `pg_dump`."""
        return Path(self.arguments[0]).name


async def run_program(
    command: Command,
    stdin: AsyncIterator[bytes] | None = None,
    *,
    stall_seconds: float,
    may_leave_input: bool = False,
) -> AsyncGenerator[bytes, None]:
    """What the program writes, in pieces of at most 1 MiB; ends when it ended with status 0 and had read its input.

    stdin: what it reads; closed at the end, whatever happened. stall_seconds: how long it may neither write nor read
    while we wait for it; a slow reader of ours, or a slow source of its input, does not count. may_leave_input: for
    programs that read no more than they need.

    Raises ProgramFailed; what `stdin` raises, after the program was ended. The program and what it started have ended
    when the iterator is closed: close it (`contextlib.aclosing`) unless it was read to its end. It also ends with the
    thread that runs the event loop.
    """
    running = _Running(command, stall_seconds)
    try:
        await running.start(stdin)
        while piece := await running.read():
            yield piece
        await running.finish(may_leave_input=may_leave_input)
    finally:
        try:
            await running.end()
        finally:
            if isinstance(stdin, AsyncGenerator):
                await stdin.aclose()


class _Running:
    """One run. The program leads a process group of its own."""

    def __init__(self, command: Command, stall_seconds: float) -> None:
        self._command = command
        self._stall_seconds = stall_seconds
        self._said = bytearray()
        self._gone = False
        self._fed = True
        self._input_awaited = False
        self._patience: asyncio.Timeout | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._output: PipeEnd | None = None
        self._pipes: list[asyncio.ReadTransport | PipeEnd] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._feeder: asyncio.Task[None] | None = None

    async def start(self, stdin: AsyncIterator[bytes] | None) -> None:
        errors = asyncio.StreamReader(limit=BUFFER_BYTES)
        with _pipe() as (output_end, output), _pipe() as (errors_end, said):
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(_EXEC_PROGRAM), str(os.getpid()), *self._command.arguments),
                stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
                stdout=output,
                stderr=said,
                env=_inherited() | {"LC_ALL": "C"} | dict(self._command.environment),
                start_new_session=True,
            )
            # The pipes are ours: a process's own ones would be smaller, and its end would wait for theirs.
            self._output = PipeEnd(output_end)
            self._pipes.append(self._output)
            await self._connect(errors, errors_end)
        self._tasks = [asyncio.create_task(self._listen(errors)), asyncio.create_task(self._watch(self._process))]
        if stdin is not None:
            assert self._process.stdin is not None
            self._fed = False
            self._feeder = asyncio.create_task(self._feed(stdin, self._process.stdin))
            self._tasks.append(self._feeder)

    async def _connect(self, reader: asyncio.StreamReader, descriptor: int) -> None:
        loop, end = asyncio.get_running_loop(), os.fdopen(os.dup(descriptor), "rb", buffering=0)
        try:
            transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), end)
        except BaseException:
            end.close()
            raise
        self._pipes.append(transport)

    async def read(self) -> bytes:
        """The next piece; empty at the end."""
        assert self._output is not None, "started before"
        return await self._patiently(self._output.read())

    async def finish(self, *, may_leave_input: bool) -> None:
        """Raises unless the program ended well. Its output has ended."""
        assert self._process is not None
        status = await self._patiently(self._process.wait())
        await self._hear()
        if self._feeder is not None and status == 0 and not may_leave_input:
            # A program that knows where its input ends may be gone before the source has said that nothing more comes.
            await self._patiently(asyncio.wait([self._feeder]))
        if self._feeder is not None and self._feeder.done() and not self._feeder.cancelled():
            self._feeder.result()
        if status != 0:
            raise self._failed(_status(status))
        if not self._fed and not may_leave_input:
            raise self._failed("ended well, but before it had read all of its input")

    async def end(self) -> None:
        """Ends whatever still runs. Never raises but CancelledError."""
        self._kill()
        for task in self._tasks:
            task.cancel()
        for pipe in self._pipes:
            pipe.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=KILL_SECONDS)
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.exception()  # Told already, or of no interest behind the error that brought us here.
        if self._process is not None:
            gone = asyncio.create_task(self._process.wait())
            await asyncio.wait([gone], timeout=KILL_SECONDS)
            if not gone.done():
                gone.cancel()
                log.error("%s, process %d, was killed and is still there", self._command.name, self._process.pid)

    def _kill(self) -> None:
        """Kills the group, unless that was done after the program's end: its number may be another's by then."""
        if self._process is not None and not self._gone:
            self._gone = self._process.returncode is not None
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Ends what the program leaves behind: it would hold the pipes open."""
        await process.wait()
        self._kill()

    async def _listen(self, errors: asyncio.StreamReader) -> None:
        """Keeps the end of what the program says, always at once: a full pipe would stop it."""
        while piece := await errors.read(SAID_BYTES_MAX):
            self._said += piece
            del self._said[:-SAID_BYTES_MAX]

    async def _hear(self) -> None:
        """Waits for the last words of a program that has ended."""
        await asyncio.wait(self._tasks[:1], timeout=KILL_SECONDS)

    async def _feed(self, stdin: AsyncIterator[bytes], pipe: asyncio.StreamWriter) -> None:
        """Hands the input over. Its errors end the program, so that whoever reads the output learns of them."""
        # Drained means handed to the kernel, to the last byte.
        pipe.transport.set_write_buffer_limits(high=0)
        try:
            while True:
                self._await_input(awaited=True)
                piece = await anext(stdin, None)
                self._await_input(awaited=False)
                try:
                    if piece is None:
                        self._fed = True
                        pipe.close()
                        return
                    pipe.write(piece)
                    await pipe.drain()
                except (BrokenPipeError, ConnectionResetError):
                    return  # The program reads no more; its status says whether that is well.
        except BaseException:
            self._kill()
            raise
        finally:
            pipe.close()

    def _await_input(self, *, awaited: bool) -> None:
        self._input_awaited = awaited
        self._be_patient()

    def _be_patient(self) -> None:
        """Gives the program its time anew, or any time while it waits for input that we do not have."""
        if self._patience is not None and not self._patience.expired():
            now = asyncio.get_running_loop().time()
            self._patience.reschedule(None if self._input_awaited else now + self._stall_seconds)

    async def _patiently(self, awaited: Awaitable[T]) -> T:
        """What is awaited. Raises ProgramFailed when the program does nothing for its time meanwhile."""
        try:
            async with asyncio.timeout(None) as self._patience:
                self._be_patient()
                return await awaited
        except TimeoutError:
            raise self._failed(f"did nothing for {self._stall_seconds:g} seconds and was ended") from None
        finally:
            self._patience = None

    def _failed(self, how: str) -> ProgramFailed:
        said = self._last_words()
        return ProgramFailed(f"{self._command.name} {how}; " + (f"it said last: {said}" if said else "it said nothing"))

    def _last_words(self) -> str:
        text = self._said.decode("utf-8", "replace")
        for secret in self._command.secrets:
            for form in {secret, quote(secret, safe=""), quote(secret)}:
                text = text.replace(form, "***")
        text = " ".join("".join(each if each.isprintable() else " " for each in text).split())
        return text if len(text) <= SAID_CHARACTERS_MAX else f"... {text[-SAID_CHARACTERS_MAX:]}"


def _inherited() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key in INHERITED}


def _status(status: int) -> str:
    """How a program ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = "unknown"
    return f"was ended by signal {-status} ({name})"


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe, for the block: what must outlive it takes a duplicate."""
    ends = os.pipe()
    try:
        if sys.platform == "linux":
            # Refused when the user has too many large ones: then it stays as small as usual.
            with suppress(OSError):
                fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        yield ends
    finally:
        for end in ends:
            os.close(end)
