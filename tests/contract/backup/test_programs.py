"""Programs that are run for a backup: found by version, bounded, and gone when they should be."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from pathlib import Path

import pytest

from deploy.local.postgres import Install
from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import PostgresOptions
from services.backup.adapters import client_programs
from services.backup.adapters.client_programs import find_programs, program_access
from services.backup.adapters.pipes import PIECE_BYTES_MAX
from services.backup.adapters.programs import SAID_CHARACTERS_MAX, Command, ProgramFailed, run_program
from tests.fix_backup_database import MakeStandIns

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 30.0
MEBIBYTE = 1024 * 1024
STALLED = r"did nothing for 0\.2 seconds and was ended"


def shell(script: str, environment: Mapping[str, str] | None = None, secrets: tuple[str, ...] = ()) -> Command:
    """A command of the shell."""
    return Command(("/bin/sh", "-c", script), environment or {}, secrets)


async def output(command: Command, stdin: AsyncIterator[bytes] | None = None, **options: bool) -> bytes:
    """All that a program writes."""
    return b"".join([piece async for piece in run_program(command, stdin, stall_seconds=PATIENCE_SECONDS, **options)])


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    """The contents one after the other."""
    for content in contents:
        yield content


def lives(pid: int) -> bool:
    """Whether the process runs; one that ended and was not asked for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(*pids: int) -> None:
    """Waits until none of the processes runs."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(lives(pid) for pid in pids):  # noqa: ASYNC110 - the kernel sets no event of ours
            await asyncio.sleep(0.01)


async def test_output_is_whole() -> None:
    """Everything a program writes arrives, in pieces of at most 1 MiB."""
    found = [
        piece
        async for piece in run_program(shell("head -c 20000000 /dev/zero; printf end"), stall_seconds=PATIENCE_SECONDS)
    ]

    assert b"".join(found) == bytes(20_000_000) + b"end"
    assert max(map(len, found)) <= PIECE_BYTES_MAX


async def test_input_is_whole() -> None:
    """A program reads all of its input, whatever the size of the pieces, while its output is read."""
    contents = [b"", b"x", os.urandom(3 * MEBIBYTE), b"", os.urandom(70_000), b"\n"]

    found = await output(shell("cat"), pieces(*contents))

    assert hashlib.sha256(found).digest() == hashlib.sha256(b"".join(contents)).digest()


async def test_status_is_told() -> None:
    """A program that ends with another status than 0 failed, however much it wrote; its last words are told."""
    with pytest.raises(ProgramFailed, match=r"^sh ended with status 3; it said last: no room left$"):
        await output(shell("echo much; echo 'no  room\nleft' >&2; exit 3"))


async def test_signal_is_told() -> None:
    """A program that a signal ended failed."""
    with pytest.raises(ProgramFailed, match=r"was ended by signal 9 \(SIGKILL\); it said nothing"):
        await output(shell("echo much; kill -9 $$"))


async def test_missing_program() -> None:
    """A program that cannot be started failed, and is named."""
    with pytest.raises(ProgramFailed, match="cannot start /no/such/program: No such file"):
        await output(Command(("/no/such/program",)))


async def test_talkative_program() -> None:
    """A megabyte of complaints neither stops a program nor fills the message, which holds their end."""
    script = "head -c 1000000 /dev/zero | tr '\\000' x >&2; echo out; echo ' the end' >&2; exit 1"

    with pytest.raises(ProgramFailed) as failure:
        await output(shell(script))

    assert str(failure.value).endswith("x the end")
    assert len(str(failure.value)) < SAID_CHARACTERS_MAX + 100


async def test_stall() -> None:
    """A program that does nothing for its time is ended with all it started."""
    found = b""

    with pytest.raises(ProgramFailed, match=STALLED):  # noqa: PT012 - what came before it is needed
        async for piece in run_program(shell("sleep 1000 & echo $$ $!; wait"), stall_seconds=0.2):
            found += piece

    await until_gone(*map(int, found.split()))


async def test_stalled_input() -> None:
    """A program that stops reading its input is ended as well."""
    stalling = run_program(shell("sleep 1000"), pieces(bytes(4 * MEBIBYTE)), stall_seconds=0.2)

    with pytest.raises(ProgramFailed, match=STALLED):
        await anext(stalling)


async def test_our_own_time_is_no_stall() -> None:
    """Neither a slow reader of the output nor a slow source of the input counts against the program."""

    async def slow() -> AsyncIterator[bytes]:
        yield bytes(4 * MEBIBYTE)
        await asyncio.sleep(2)
        yield b"end"

    found = b""

    async for piece in run_program(shell("cat"), slow(), stall_seconds=1.75):
        if not found:
            await asyncio.sleep(2)
        found += piece

    assert len(found) == 4 * MEBIBYTE + 3


async def test_cancelled() -> None:
    """Cancelling whoever reads ends the program with all it started."""
    started: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()

    async def read() -> None:
        async for piece in run_program(shell("sleep 1000 & echo $$ $!; wait"), stall_seconds=PATIENCE_SECONDS):
            started.set_result([int(word) for word in piece.split()])

    task = asyncio.create_task(read())
    pids = await started
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await until_gone(*pids)


async def test_closed_early() -> None:
    """Closing the iterator ends the program and closes its input."""
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(MEBIBYTE)
        finally:
            closed.set()

    async with aclosing(run_program(shell("echo $$; cat"), endless(), stall_seconds=PATIENCE_SECONDS)) as found:
        pid = int((await anext(found)).split(b"\n")[0])

    assert not lives(pid)
    assert closed.is_set()


async def test_left_behind() -> None:
    """What a program leaves behind is ended, and does not keep its reader waiting."""
    left = int(await output(shell("sleep 1000 & echo $!")))

    await until_gone(left)


async def test_error_of_the_input() -> None:
    """An error of the input's source ends the program and comes out as itself."""

    async def damaged() -> AsyncIterator[bytes]:
        yield b"begun"
        raise errors.BackupDamaged("part 7 is not what was written")

    with pytest.raises(errors.BackupDamaged, match="part 7"):
        await output(shell("cat"), damaged())


async def test_input_whose_end_comes_late() -> None:
    """A program that knows by itself where its input ends may be gone before the source has said so: nothing was left
    over. An error that the source finds at its end still comes out."""

    async def late(*, damaged: bool = False) -> AsyncIterator[bytes]:
        yield b"all of it"
        await asyncio.sleep(0.3)
        if damaged:
            raise errors.BackupDamaged("the digest is another one")

    assert await output(shell("head -c 9"), late()) == b"all of it"
    with pytest.raises(errors.BackupDamaged, match="digest"):
        await output(shell("head -c 9"), late(damaged=True))


async def test_input_left_over() -> None:
    """A program that ends well without reading its input failed, unless that is allowed."""
    contents = [bytes(MEBIBYTE)] * 4

    assert await output(shell("head -c 1"), pieces(*contents), may_leave_input=True) == b"\0"
    with pytest.raises(ProgramFailed, match="before it had read all of its input"):
        await output(shell("head -c 1"), pieces(*contents))


async def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program gets what it was given and little else: no PG variable and no secret of ours."""
    for name in ("PGHOST", "PGPASSWORD", "PGOPTIONS", "AWS_SECRET_ACCESS_KEY", "SCHEMA_REGISTRY__DATABASE__URL"):
        monkeypatch.setenv(name, "ours")

    found = (await output(shell("env", {"PGUSER": "theirs"}))).decode().splitlines()

    assert {"PGUSER=theirs", "LC_ALL=C"} <= set(found)
    assert not any(line.endswith("=ours") for line in found)


async def test_secrets_are_not_told() -> None:
    """A secret that a program says does not get into the message, also as a URL writes it."""
    command = shell("echo 'password is p@ss word, or p%40ss%20word' >&2; exit 1", secrets=("p@ss word",))

    with pytest.raises(ProgramFailed, match=r"password is \*\*\*, or \*\*\*$"):
        await output(command)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
async def test_ends_with_its_parent(tmp_path: Path) -> None:
    """A program does not outlive a process that was killed."""
    script = textwrap.dedent("""
        import asyncio
        from services.backup.adapters.programs import Command, run_program

        async def main():
            async for piece in run_program(Command(("/bin/sh", "-c", "echo $$; exec sleep 1000")), stall_seconds=1000):
                print(piece.decode(), end="", flush=True)

        asyncio.run(main())
    """)
    path = os.pathsep.join([str(ROOT), str(ROOT / "shared")])
    parent = subprocess.Popen(  # noqa: ASYNC220 - forks at once; the waits are in threads
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(await asyncio.to_thread(parent.stdout.readline))

    parent.send_signal(signal.SIGKILL)
    await asyncio.to_thread(parent.wait)

    await until_gone(pid)


@pytest.mark.usefixtures("no_programs")
def test_programs_of_the_servers_major(stand_ins: MakeStandIns) -> None:
    """The first folder of the server's major is taken, whatever its minor, before and behind others."""
    folders = [stand_ins(version=version) for version in ("17.10", "15.2", "15.14", "9.6.24")]

    found = find_programs(150014, folders)

    assert (found.major, found.version, found.pg_dump) == (15, "15.2", folders[1] / "pg_dump")


@pytest.mark.usefixtures("no_programs")
def test_newer_programs_do_not_fit(stand_ins: MakeStandIns) -> None:
    """Programs of other majors, also newer ones, are refused, naming both versions and where was searched."""
    folders = [stand_ins(version="17.10"), stand_ins(version="14.20"), Path("/no/such/folder")]

    with pytest.raises(errors.ToolMismatch) as refusal:
        find_programs(150014, folders)

    assert "PostgreSQL 15.14" in refusal.value.message
    assert "14.20, 17.10" in refusal.value.message
    assert all(str(folder) in refusal.value.message for folder in folders)
    assert refusal.value.metadata == {"server_version": "15.14", "tool_versions": "14.20, 17.10"}


@pytest.mark.usefixtures("no_programs")
def test_mixed_programs_do_not_fit(stand_ins: MakeStandIns) -> None:
    """A folder whose programs are of different versions, or incomplete, is passed over."""
    mixed, incomplete = stand_ins(version="15.1"), stand_ins(version="15.1")
    (mixed / "pg_restore").write_text("#!/bin/sh\necho 'pg_restore (PostgreSQL) 14.1'\n")
    (incomplete / "psql").unlink()

    with pytest.raises(errors.ToolMismatch, match="no version"):
        find_programs(150001, [mixed, incomplete])


@pytest.mark.usefixtures("no_programs")
def test_hanging_program_does_not_fit(stand_ins: MakeStandIns, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that never tells its version is given up."""
    folder = stand_ins(version="15.1")
    (folder / "psql").write_text("#!/bin/sh\nexec sleep 1000\n")
    monkeypatch.setattr(client_programs, "VERSION_SECONDS_MAX", 0.2)

    with pytest.raises(errors.ToolMismatch):
        find_programs(150001, [folder])


@pytest.mark.usefixtures("no_programs")
def test_programs_that_were_replaced(stand_ins: MakeStandIns) -> None:
    """Programs that an upgrade replaced are asked again."""
    folder = stand_ins(version="15.1")
    assert find_programs(150001, [folder]).version == "15.1"
    for name in ("pg_dump", "pg_restore", "psql"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) 15.10'\n")
        os.utime(folder / name, (time.time(), 0))

    assert find_programs(150001, [folder]).version == "15.10"


def test_programs_of_this_machine(postgres_install: Install) -> None:
    """The programs of the install that the tests use are found without being told where."""
    found = find_programs(postgres_install.major * 10_000, [])

    assert found.major == postgres_install.major


URL = "postgresql://ann:p%40ss%20word@db.example:5433/registry?keepalives_idle=7&options=-c%20work_mem%3D8MB"


def test_access_hides_the_password() -> None:
    """Only the environment has the password; what has no variable is on the command line; there are no timeouts."""
    access = program_access(PostgresOptions(URL, ssl_enabled=False), 150014)

    assert "p@ss word" not in access.dbname
    assert "p@ss word" not in repr(access)
    assert access.secrets == ("p@ss word",)
    assert access.environment["PGPASSWORD"] == "p@ss word"
    assert (access.environment["PGHOST"], access.environment["PGPORT"]) == ("db.example", "5433")
    assert "dbname=registry" in access.dbname
    assert "keepalives_idle=7" in access.dbname
    assert access.environment["PGOPTIONS"].startswith("-c work_mem=8MB")
    assert access.environment["PGOPTIONS"].endswith("-c idle_session_timeout=0")


def test_access_to_another_place() -> None:
    """Another database and one server of several can be chosen."""
    options = PostgresOptions("postgresql://ann@a,b/registry?hostaddr=10.0.0.1,10.0.0.2", ssl_enabled=False)

    access = program_access(options, 170010, database="it's \\ odd", server={"host": "b", "port": "5434"})

    assert (access.environment["PGHOST"], access.environment["PGPORT"]) == ("b", "5434")
    assert "PGHOSTADDR" not in access.environment
    assert r"dbname='it\'s \\ odd'" in access.dbname
    assert "transaction_timeout=0" in access.environment["PGOPTIONS"]


def test_secret_without_a_way() -> None:
    """A secret that could only be given on the command line is refused, without being told."""
    with pytest.raises(errors.DatabaseUnfit, match="`sslpassword`") as refusal:
        program_access(PostgresOptions("postgresql://ann@db/registry?sslpassword=hush", ssl_enabled=False), 150014)

    assert "hush" not in str(refusal.value)
