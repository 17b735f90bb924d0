"""What every command of `llmsr` does alike: options, exit status, errors, terminals, pipes, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.local.postgres import Postgres
from tests.fix_cli import PROGRAM, Ran, Run, environment, run_here, run_process, run_terminal
from tests.fix_service import MakeService, Service
from tests.fix_tls import Authority

Name = Callable[..., str]
Start = Callable[[Sequence[str]], subprocess.Popen[bytes]]


def at_once(commands: Sequence[Sequence[str]]) -> list[Ran]:
    """Runs commands as processes, all at the same time: those that find nobody try for two seconds."""
    with ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(lambda arguments: run_process(*arguments), commands))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def schema_file(tmp_path: Path) -> str:
    """A schema that takes any object."""
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object"}')
    return str(file)


@pytest.fixture
def closed_port(free_port: Callable[[], int]) -> int:
    """A port where nobody listens, nor is about to."""
    return free_port()


def test_nobody_there_is_unreachable(closed_port: int) -> None:
    """Status 3, the address and what to look at; with JSON output the reason UNREACHABLE."""
    target = f"127.0.0.1:{closed_port}"
    call = ["schema", "list", "--target", target]

    human, machine, backup = at_once([call, [*call, "--output", "json"], ["backup", "list", "--backup-target", target]])

    assert (human.status, machine.status, backup.status) == (3, 3, 3)
    assert human.stdout == ""
    assert human.stderr == (
        f"Error: The registry at {target} cannot be reached: nothing listens there.\nReason: UNREACHABLE\n"
    )
    assert (machine.error["reason"], machine.error["code"]) == ("UNREACHABLE", "UNAVAILABLE")
    assert machine.error["metadata"] == {"target": target}
    assert backup.stderr.startswith(f"Error: The backup service at {target} cannot be reached: nothing listens there.")


def test_nobody_there_for_a_stream(closed_port: int, tmp_path: Path) -> None:
    """A stream that finds nobody is status 3 too."""
    data = tmp_path / "data.jsonl"
    data.write_text("{}\n")

    ran = run_here("schema", "validate", "orders", str(data), "--lines", "--target", f"127.0.0.1:{closed_port}")

    assert (ran.status, "cannot be reached" in ran.stderr) == (3, True)


def test_no_answer_in_time_is_unreachable(silent_port: int) -> None:
    """A service that is silent is given up after `--timeout`, with status 3."""
    ran = run_here("schema", "list", "--target", f"127.0.0.1:{silent_port}", "--timeout", "0.2", "--output", "json")

    assert ran.status == 3
    assert ran.error["reason"] in {"DEADLINE", "UNREACHABLE"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["schema"],
        ["schema", "frobnicate"],
        ["schema", "list", "--no-such-option"],
        ["schema", "list", "--limit", "0"],
        ["schema", "list", "--target", "http://localhost:9090"],
        ["schema", "list", "--target", "a:1,b:2"],
        ["schema", "list", "--timeout", "-1"],
        ["schema", "list", "--timeout", "inf"],
        ["schema", "get", "--id", "2147483648"],
        ["schema", "get", "orders", "--version", "2147483648"],
        ["schema", "search", "\udcff"],
        ["schema", "list", "--client-cert", "only.pem"],
        ["schema", "list", "--ca-cert", "/does/not/exist.pem"],
        ["schema", "get"],
        ["schema", "get", "orders", "--id", "1"],
        ["schema", "get", "orders", "--version", "zero"],
        ["schema", "get", "--id", "1", "--version", "2"],
        ["schema", "register", "orders", "no-suffix"],
        ["schema", "register", "orders", "/does/not/exist.json"],
        ["schema", "register", "orders", "/", "--format", "json"],
        ["schema", "register", "orders", "x.json", "--reference", "a=b"],
        ["schema", "register", "orders", "x.json", "--metadata", "novalue"],
        ["schema", "validate", "orders"],
        ["schema", "validate", "orders", "-", "-"],
        ["schema", "validate", "orders", "-", "--lines", "--encoding", "binary"],
        ["backup", "show"],
        ["backup", "list", "--kind", "weekly"],
        ["backup", "list", "--backup-target", "somewhere"],
        ["schema", "list", "--admin-target", "somewhere"],
        ["schema", "list", "--admin-token-file", "/does/not/exist"],
        ["backup", "verify", "x", "--level", "V9"],
        ["restore", "activate"],
        ["logs", "/does/not/exist.log"],
        ["logs", "/does/not/exist.log.gz"],
        ["logs", "/"],
        ["logs", "-", "-"],
        ["logs", "x.log", "--since", "yesterday"],
        ["logs", "x.log", "--since", "1h", "--until", "2h"],
        ["logs", "x.log", "--level", "loud"],
        ["logs", "x.log", "--top", "0"],
    ],
)
def test_a_wrong_command_line_is_usage(arguments: list[str]) -> None:
    """Status 2, before anything is called; as JSON one document with the reason USAGE."""
    human = run_here(*arguments, LLMSR_TARGET="127.0.0.1:1")
    machine = run_here(*arguments, "--output", "json", LLMSR_TARGET="127.0.0.1:1")

    assert (human.status, human.stdout) == (2, "")
    assert human.stderr.startswith("Error: ")
    assert (machine.status, machine.error["reason"]) == (2, "USAGE")


def test_global_options_stand_before_or_behind(registry: Service) -> None:
    """Both places work; what is nearer to the command wins, and the environment comes last."""
    before = run_here("--target", registry.target, "--output", "json", "schema", "list", "--limit", "1")
    behind = run_here("schema", "list", "--limit", "1", "--target", registry.target, "--output", "json")
    both = run_here("--target", "a:1", "schema", "list", "--target", registry.target, LLMSR_TARGET="b:2")

    assert before.document == behind.document
    assert both.status == 0


def test_the_environment_chooses_the_output(llmsr: Run) -> None:
    """LLMSR_OUTPUT=json is `--output json`, for results and for errors."""
    assert "subjects" in llmsr("schema", "list", LLMSR_OUTPUT="json").document
    assert llmsr("schema", "list", "--limit", "none", LLMSR_OUTPUT="json").error["reason"] == "USAGE"


def test_version_is_told() -> None:
    """`--version` writes name and version."""
    ran = run_process("--version")

    assert ran.status == 0
    assert re.fullmatch(r"llmsr \S+\n", ran.stdout)


def test_the_start_loads_neither_grpc_nor_rich() -> None:
    """Help comes without what takes a while to load."""
    imports = "import sys; from llm_schema_registry.cli.main import main"
    code = f"{imports}; main(['schema', '--help']); print(sorted(sys.modules))"

    done = subprocess.run([PROGRAM[0], "-c", code], capture_output=True, env=environment(), check=True)

    modules = done.stdout.decode().splitlines()[-1]
    assert "'typer'" in modules
    assert all(f"'{name}'" not in modules for name in ("grpc", "google.protobuf", "rich"))


def test_tables_fit_a_terminal(registry: Service, llmsr: Run, schema_file: str, name: Name) -> None:
    """On a terminal of 80 columns a table folds: no line is wider, and no character is lost."""
    subject = name("y" * 100)
    description = "".join(f"<{number}>" for number in range(100))
    llmsr("schema", "register", subject, schema_file, "--description", description)

    versions = run_terminal("schema", "list", subject, LLMSR_TARGET=registry.target)
    subjects = run_terminal("schema", "list", "--prefix", subject, LLMSR_TARGET=registry.target)

    assert (versions.status, subjects.status) == (0, 0)
    assert "\x1b[1m" in versions.stdout
    assert max(map(len, versions.screen + subjects.screen)) <= 80
    column = versions.screen[0].index("DESCRIPTION")
    assert "".join(line[column:] for line in versions.screen[1:]) == description
    assert subject in "".join(line.split()[0] for line in subjects.screen)


def test_lines_are_checked_in_bounded_memory(
    llmsr: Run, registry: Service, schema_file: str, name: Name, tmp_path: Path
) -> None:
    """Sixty-four times the data takes no more memory, but for the batches on their way."""
    subject, data = name(), tmp_path / "data.jsonl"
    llmsr("schema", "register", subject, schema_file)
    peaks = []

    for megabytes in (1, 64):
        with data.open("wb") as file:
            for _ in range(64 * megabytes):
                file.write(b'{"id": "' + b"x" * 16_374 + b'"}\n')
        process = subprocess.Popen(
            [*PROGRAM, "schema", "validate", subject, str(data), "--lines"],
            stdout=subprocess.DEVNULL,
            env=environment(LLMSR_TARGET=registry.target),
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        peaks.append(used.ru_maxrss >> 10)
        assert process.returncode == 0

    assert peaks[1] - peaks[0] < 16, f"peaks of {peaks} MiB"


def test_a_reader_that_leaves_is_no_error(start_llmsr: Start, name: Name, llmsr_process: Run) -> None:
    """When the reader of the output is gone the program ends as shells expect, without a word."""
    subject = name()
    llmsr_process("schema", "register", subject, "-", "--format", "json", given=b'{"type": "string"}')
    process = start_llmsr(["schema", "validate", subject, "-", "--lines"])
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None

    _, told = process.communicate(b"1\n" * 20_000)

    assert (process.returncode, told) == (141, b"")


def test_output_that_cannot_be_written_is_told(registry: Service) -> None:
    """A full disk is status 1 and a sentence, not a traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*PROGRAM, "schema", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(LLMSR_TARGET=registry.target),
            check=False,
        )

    assert done.returncode == 1
    assert (
        done.stderr.decode() == "Error: The output cannot be written: No space left on device.\nReason: OUTPUT_LOST\n"
    )


def test_ctrl_c_ends_a_wait_for_input(start_llmsr: Start, llmsr_process: Run, name: Name) -> None:
    """Ctrl-C ends a command that reads a pipe, with status 130 and no traceback; results until then were written."""
    subject = name()
    llmsr_process("schema", "register", subject, "-", "--format", "json", given=b'{"type": "string"}')
    process = start_llmsr(["schema", "validate", subject, "-", "--lines", "--output", "json"])
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"1\n" * 1001)
    process.stdin.flush()
    first = json.loads(process.stdout.readline())

    process.send_signal(signal.SIGINT)
    _, told = process.communicate()

    assert first["line"] == 1
    assert (process.returncode, told) == (130, b"")


def test_ctrl_c_ends_a_call(start_llmsr: Start) -> None:
    """Ctrl-C ends a command that waits for an answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = f"127.0.0.1:{server.getsockname()[1]}"
        process = start_llmsr(["schema", "list", "--target", target, "--timeout", "60"])
        connection, _ = server.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            _, told = process.communicate()

    assert (process.returncode, told) == (130, b"")


def test_mutual_tls(make_service: MakeService, postgres: Postgres, authority: Authority) -> None:
    """With authority, certificate and key the program gets in; without them it is told what is missing, status 3."""
    server, client = authority.issue("server"), authority.issue("client")
    database_url = postgres.create_database("registry_of_the_cli")
    service = make_service(
        database_url,
        server__local_mode="false",
        server__listen_address="127.0.0.1",
        server__health_port=0,
        server__tls_enabled="true",
        server__tls_cert_path=server.cert,
        server__tls_key_path=server.key,
        security__mtls_enabled="true",
        security__ca_cert_path=authority.cert,
    )
    service.start()
    call = ["schema", "list", "--target", service.target]
    trusted = ["--ca-cert", str(authority.cert), "--server-name", "localhost"]
    own = ["--client-cert", str(client.cert), "--client-key", str(client.key)]

    inside = run_here(*call, *trusted, *own)
    others = at_once(
        [
            call,
            [*call, "--tls"],
            [*call, *trusted],
            [*call, *trusted[:2], *own, "--server-name", "elsewhere.example"],
        ]
    )
    service.stop()
    postgres.drop_database("registry_of_the_cli")

    assert inside.status == 0, inside.stderr
    assert [ran.status for ran in others] == [3, 3, 3, 3]
    assert "--tls" in others[0].stderr
    assert "--ca-cert" in others[1].stderr
    assert "--client-cert" in others[2].stderr
    assert "--server-name" in others[3].stderr
    assert [len(ran.stderr.splitlines()) for ran in others] == [2, 2, 2, 2], "gRPC's own log stays away"


def test_latin_terminals_get_what_they_can_show(llmsr_process: Run, registry: Service, name: Name) -> None:
    """JSON is UTF-8 in any locale; a table writes what the locale cannot say as an escape."""
    subject = name("été-秋")
    llmsr_process("schema", "register", subject, "-", "--format", "json", given=b'{"type": "object"}')
    settings = {"LLMSR_TARGET": registry.target, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}

    done = [
        subprocess.run(
            [*PROGRAM, "schema", "list", "--prefix", subject, *more],
            capture_output=True,
            env=environment(**settings),
            check=True,
        ).stdout
        for more in ([], ["--output", "json"])
    ]

    assert subject.encode("latin-1", "backslashreplace") in done[0]
    assert json.loads(done[1].decode())["subjects"][0]["name"] == subject


def test_a_line_that_is_too_long_ends_the_command(llmsr: Run, schema_file: str, name: Name, tmp_path: Path) -> None:
    """A line above the limit is refused with its number, after the batches before it; it is never held as a whole."""
    subject, data = name(), tmp_path / "long.jsonl"
    llmsr("schema", "register", subject, schema_file)
    with data.open("wb") as file:
        file.write(b"{}\n" * 2500)
        file.truncate(64 << 20)

    ran = llmsr("schema", "validate", subject, str(data), "--lines", "--output", "json")

    assert ran.status == 1
    assert (ran.error["reason"], ran.error["metadata"]["checked"]) == ("LIMIT_EXCEEDED", "2000")
    assert "line 2501 of" in ran.error["message"]
    assert ran.error["message"].endswith(" 2000 lines were checked before.")
