"""One run of the program: what the global options chose, and how a command's work becomes an exit status."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_schema_registry import errors
from llm_schema_registry.cli import exit_codes
from llm_schema_registry.cli.connection import ADMIN_TARGET, BACKUP_TARGET, REGISTRY_TARGET, Connection
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.output import Output, OutputFormat
from llm_schema_registry.cli.tokens import checked_token, read_token

TIMEOUT_SECONDS_MAX = 86_400
ADMIN_VARIABLE = "LLMSR_ADMIN_TOKEN"
"""The environment variable; no option takes a token itself, because every user of a machine reads command lines."""


@dataclass(frozen=True, slots=True)
class GlobalOptions:
    """Options that stand before the command or behind it."""

    target: Annotated[
        str,
        typer.Option(envvar="LLMSR_TARGET", metavar="HOST:PORT", help="The registry; replicas with commas between."),
    ] = REGISTRY_TARGET
    backup_target: Annotated[
        str, typer.Option(envvar="LLMSR_BACKUP_TARGET", metavar="HOST:PORT", help="The backup service.")
    ] = BACKUP_TARGET
    admin_target: Annotated[
        str, typer.Option(envvar="LLMSR_ADMIN_TARGET", metavar="HOST:PORT", help="The admin service.")
    ] = ADMIN_TARGET
    admin_token_file: Annotated[
        Path | None,
        typer.Option(
            envvar="LLMSR_ADMIN_TOKEN_FILE",
            metavar="FILE",
            help=f"File with the admin service's token; else {ADMIN_VARIABLE} holds it, or a client certificate does.",
        ),
    ] = None
    tls: Annotated[bool, typer.Option("--tls", envvar="LLMSR_TLS", help="Speak TLS; any certificate implies it.")] = (
        False
    )
    ca_cert: Annotated[
        Path | None,
        typer.Option(envvar="LLMSR_CA_CERT", metavar="PEM", help="The authority of the server; else the system's."),
    ] = None
    client_cert: Annotated[
        Path | None, typer.Option(envvar="LLMSR_CLIENT_CERT", metavar="PEM", help="Who we are, for mTLS.")
    ] = None
    client_key: Annotated[
        Path | None, typer.Option(envvar="LLMSR_CLIENT_KEY", metavar="PEM", help="The certificate's key.")
    ] = None
    server_name: Annotated[
        str, typer.Option(envvar="LLMSR_SERVER_NAME", metavar="NAME", help="The name in the server's certificate.")
    ] = ""
    timeout: Annotated[
        float | None,
        typer.Option(
            envvar="LLMSR_TIMEOUT",
            metavar="SECONDS",
            help="How long a call may take.",
            show_default="each call's own deadline, 5 to 120",
        ),
    ] = None
    output: Annotated[OutputFormat, typer.Option(envvar="LLMSR_OUTPUT", help="For people, or for programs.")] = (
        OutputFormat.TABLE
    )
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours; NO_COLOR=1 says the same.")] = False


class OutputLost(errors.Internal):
    """Standard output takes no more. It does not travel on the wire: the program says it itself."""

    reason = "OUTPUT_LOST"


@dataclass(frozen=True, slots=True)
class Session:
    """What a command works with."""

    output: Output
    connection: Connection = field(default_factory=Connection)

    @classmethod
    def of(cls, chosen: GlobalOptions) -> Session:
        """The session that the options ask for. Raises UsageFault for options that do not fit together."""
        if chosen.timeout is not None and not 0 < chosen.timeout <= TIMEOUT_SECONDS_MAX:
            raise UsageFault(f"--timeout: write seconds above 0, at most {TIMEOUT_SECONDS_MAX:,}.")
        connection = Connection(
            target=chosen.target,
            backup_target=chosen.backup_target,
            admin_target=chosen.admin_target,
            admin_token=_admin_token(chosen),
            tls=chosen.tls,
            ca_cert=chosen.ca_cert,
            client_cert=chosen.client_cert,
            client_key=chosen.client_key,
            server_name=chosen.server_name,
            timeout_seconds=chosen.timeout,
        )
        return cls(Output(chosen.output, color=not chosen.no_color), connection)

    def perform(self, work: Callable[[], Coroutine[Any, Any, ExitCode]]) -> ExitCode:
        """Runs the work to its end and returns the exit status; errors are written, not raised.

        Ctrl-C cancels the work, which closes what it opened, and gives INTERRUPTED. A defect is raised as it is.
        """
        try:
            status = asyncio.run(work())
            sys.stdout.flush()
        except errors.Error as error:
            self.output.error(error)
            return exit_codes.of(error)
        except UsageFault as fault:
            self.output.usage(str(fault))
            return ExitCode.USAGE
        except KeyboardInterrupt:
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            _discard_output()
            return ExitCode.PIPE_CLOSED
        except OSError as failed:
            # Files and connections have their own errors: what is left is that the output cannot be written.
            _discard_output()
            self.output.error(OutputLost(f"The output cannot be written: {failed.strerror or failed}."))
            return ExitCode.REFUSED
        return status


def _admin_token(chosen: GlobalOptions) -> str:
    """The token for the admin service; the file goes before the environment. Empty without either."""
    given = os.environ.get(ADMIN_VARIABLE, "").strip()
    if chosen.admin_token_file is None and given:
        return checked_token(given, ADMIN_VARIABLE)
    return read_token(chosen.admin_token_file, "--admin-token-file")


def _discard_output() -> None:
    """Sends what is left of standard output to nowhere: Python would complain at its end that it cannot be written."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
