"""`llmsr logs`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from llm_schema_registry.cli import logs_files, logs_times, logs_views
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.logs import Logs
from llm_schema_registry.cli.logs_document import document
from llm_schema_registry.cli.logs_lines import Lines
from llm_schema_registry.cli.logs_summary import Summary, Wanted
from llm_schema_registry.cli.session import Session


@dataclass(frozen=True, slots=True)
class FileRead:
    """A file that was read. problem: why not to its end; empty when it was."""

    name: str
    size_bytes: int
    problem: str


async def read(session: Session, options: Logs) -> ExitCode:
    """Reads the files and writes what they say."""
    summary = Summary(_wanted(options))
    files = [await _read(file, summary) for file in logs_files.chosen(options.files or ())]
    if session.output.json:
        session.output.document(document(summary, files))
    else:
        logs_views.show(session.output, summary)
    _remark(session, summary, files)
    return _status(options, summary, files)


async def _read(file: str, summary: Summary) -> FileRead:
    lines, size, problem = Lines(summary.unreadable), 0, ""
    try:
        async for block in logs_files.blocks(file):
            size += len(block)
            summary.take(lines.cut(block))
    except logs_files.Damaged as damaged:
        problem = str(damaged)
    summary.take_last(lines.end())
    return FileRead(file, size, problem)


def _wanted(options: Logs) -> Wanted:
    now = time.time()
    since = logs_times.given_moment(options.since, "--since", now) if options.since else None
    until = logs_times.given_moment(options.until, "--until", now) if options.until else None
    if since is not None and until is not None and since > until:
        raise UsageFault("--since is later than --until.")
    return Wanted(since, until, frozenset(options.services), tuple(options.methods), options.level, options.top)


def _remark(session: Session, summary: Summary, files: Sequence[FileRead]) -> None:
    for file in files:
        if file.problem:
            session.output.note(f"{file.name} could be read in part only: {file.problem}.")
    unreadable = sum(summary.unreadable.values())
    if unreadable and not summary.read:
        session.output.note(
            "No line is a JSON log line of the services. observability.log_format = json is what writes them."
        )


def _status(options: Logs, summary: Summary, files: Sequence[FileRead]) -> ExitCode:
    """A check that could read nothing must not pass."""
    nothing = not summary.read and bool(summary.unreadable)
    failed = options.fail_on_errors and (summary.errors > 0 or nothing)
    return ExitCode.REFUSED if failed or any(file.problem for file in files) else ExitCode.FINE
