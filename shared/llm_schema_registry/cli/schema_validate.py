"""`llmsr schema validate`."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from llm_schema_registry import errors
from llm_schema_registry.cli import schema_inputs
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document
from llm_schema_registry.cli.output import Output
from llm_schema_registry.cli.reading import STANDARD_INPUT, Line, read_document, read_lines
from llm_schema_registry.cli.schema import LATEST, EncodingName, Validate
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import error_of
from llm_schema_registry.registry.v1 import validation_pb2, version_pb2
from llm_schema_registry.registry.v1 import validation_service_pb2 as pb

BATCH_LINES_MAX = 1000
BATCH_BYTES_MAX = 1 << 20
"""A batch is sent when it has this many lines or bytes; one longer line goes alone."""
BATCHES_WAITING_MAX = 4
"""Batches that are sent and not answered. With LINE_BYTES_MAX it bounds the memory of any number of lines."""
_ENCODINGS = {
    EncodingName.JSON: pb.DATA_ENCODING_JSON,
    EncodingName.BINARY: pb.DATA_ENCODING_BINARY,
    EncodingName.FRAMED: pb.DATA_ENCODING_FRAMED,
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is checked against what. subject: empty when an id or the frames name the schema."""

    subject: str
    files: Sequence[str]


@dataclass(slots=True)
class Tally:
    """How many payloads were checked, and how many were fine."""

    checked: int = 0
    valid: int = 0

    @property
    def status(self) -> ExitCode:
        """REFUSED when one was not."""
        return ExitCode.FINE if self.valid == self.checked else ExitCode.REFUSED


async def validate(session: Session, options: Validate) -> ExitCode:
    """Writes for each file, or for each bad line, what is wrong. REFUSED when anything is invalid."""
    chosen = _chosen(options)
    rules = _rules(options, chosen)
    if options.lines:
        return await _validate_lines(session, chosen.files, rules)
    return await _validate_files(session, chosen.files, rules)


def _chosen(options: Validate) -> Chosen:
    named = options.id is not None or options.framed_id
    if options.id is not None and options.framed_id:
        raise UsageFault("Give --id or --framed-id, not both.")
    if named and options.version != LATEST:
        raise UsageFault("--version goes with a subject, not with --id or --framed-id.")
    if options.framed_id and options.encoding is not EncodingName.FRAMED:
        raise UsageFault("--framed-id needs --encoding framed: only frames name their schema.")
    if options.lines and options.encoding is not EncodingName.JSON:
        raise UsageFault("--lines is for JSON: binary data may hold line ends.")
    subject, files = ("", options.names) if named else (options.names[0], options.names[1:])
    if not files:
        raise UsageFault("Name a file with data, or - for standard input.")
    if files.count(STANDARD_INPUT) > 1:
        raise UsageFault("Standard input can be read once: - comes twice.")
    return Chosen(subject, files)


def _rules(options: Validate, chosen: Chosen) -> pb.ValidationRules:
    rules = pb.ValidationRules(
        encoding=_ENCODINGS[options.encoding],
        mode=pb.VALIDATION_MODE_STRICT if options.strict else pb.VALIDATION_MODE_UNSPECIFIED,
        message_type=options.message_type,
    )
    if options.assert_formats is not None:
        rules.assert_formats = options.assert_formats
    if options.id is not None:
        rules.schema_id = options.id
    elif chosen.subject:
        number = schema_inputs.number(options.version, "--version")
        rules.version.CopyFrom(version_pb2.VersionKey(subject=chosen.subject, number=number))
    return rules


async def _validate_files(session: Session, files: Sequence[str], rules: pb.ValidationRules) -> ExitCode:
    """One call a file, one after the other."""
    tally = Tally()
    results = []
    async with session.connection.registry() as registry:
        for file in files:
            request = _request(rules, await read_document(file))
            answer = await registry.call(registry.validation.ValidateData, request)
            tally.checked += 1
            tally.valid += answer.valid
            if session.output.json:
                results.append({"file": file, **as_document(answer)})
            else:
                session.output.text(f"{file}: {'valid' if answer.valid else 'invalid'}, schema {answer.schema_id}")
                _tell_errors(session.output, answer.errors, truncated=answer.truncated)
    if session.output.json:
        session.output.document({"valid": tally.status is ExitCode.FINE, "results": results})
    return tally.status


def _request(rules: pb.ValidationRules, data: bytes) -> pb.ValidateDataRequest:
    """The rules' fields are those of the request, by name."""
    request = pb.ValidateDataRequest(
        data=data, encoding=rules.encoding, mode=rules.mode, message_type=rules.message_type
    )
    if rules.HasField("assert_formats"):
        request.assert_formats = rules.assert_formats
    if rules.HasField("schema_id"):
        request.schema_id = rules.schema_id
    if rules.HasField("version"):
        request.version.CopyFrom(rules.version)
    return request


@dataclass(slots=True)
class Conversation:
    """Batches on their way: the sender waits for room, an answer makes it.

    waiting: places of the lines of each batch without an answer, oldest first.
    """

    rules: pb.ValidationRules
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BATCHES_WAITING_MAX))
    waiting: deque[list[tuple[str, int]]] = field(default_factory=deque)
    failed: BaseException | None = None

    async def requests(self, files: Sequence[str]) -> AsyncIterator[pb.StreamValidateDataRequest]:
        """The requests for the files' lines. Ends early when a file cannot be read; `failed` says why: the stream's
        own error would only say that its sender stopped.
        """
        rules: pb.ValidationRules | None = self.rules
        try:
            async for batch in _batches(files):
                await self.room.acquire()
                self.waiting.append([(line.file, line.number) for line in batch])
                yield pb.StreamValidateDataRequest(rules=rules, payloads=[line.data for line in batch])
                rules = None
        except Exception as failed:  # noqa: BLE001  # It is raised again where the answers are read.
            self.failed = failed

    def answered(self) -> list[tuple[str, int]]:
        """Places of the lines of the oldest batch, which has its answer now."""
        self.room.release()
        return self.waiting.popleft()


async def _validate_lines(session: Session, files: Sequence[str], rules: pb.ValidationRules) -> ExitCode:
    """All lines of all files in one stream. An error on the way says how many lines were checked before it."""
    tally = Tally()
    try:
        await _converse(session, Conversation(rules), files, tally)
    except errors.Error as error:
        error.metadata["checked"] = str(tally.checked)
        error.message += f" {tally.checked} lines were checked before." if tally.checked else ""
        raise
    _tell_sum(session.output, tally)
    return tally.status


async def _converse(session: Session, conversation: Conversation, files: Sequence[str], tally: Tally) -> None:
    """Sends the lines, writes what is wrong with them, and counts. Raises the first error of either side."""
    async with session.connection.registry() as registry:
        stream = registry.converse(registry.validation.StreamValidateData, conversation.requests(files))
        async with aclosing(stream) as answers:
            async for answer in answers:
                _take(session.output, tally, answer, conversation.answered())
    if conversation.failed is not None:
        raise conversation.failed


async def _batches(files: Sequence[str]) -> AsyncIterator[list[Line]]:
    """The lines in groups for one request each, never empty."""
    batch: list[Line] = []
    size = 0
    for file in files:
        async for line in read_lines(file):
            if batch and (len(batch) == BATCH_LINES_MAX or size + len(line.data) > BATCH_BYTES_MAX):
                yield batch
                batch, size = [], 0
            batch.append(line)
            size += len(line.data)
    if batch:
        yield batch


def _take(
    output: Output, tally: Tally, answer: pb.StreamValidateDataResponse, places: Sequence[tuple[str, int]]
) -> None:
    """Writes what is wrong in a batch, and counts it. Raises the error of a batch that was not checked."""
    if answer.HasField("error"):
        raise error_of(answer.error)
    for result in answer.invalid:
        _tell_line(output, places[result.index - answer.first_index], result)
    tally.checked += len(places)
    tally.valid += answer.valid_count


def _tell_line(output: Output, place: tuple[str, int], result: pb.PayloadResult) -> None:
    file, number = place
    if output.json:
        output.line({"file": file, "line": number, **as_document(result)})
        return
    output.text(f"{file}:{number}: invalid")
    _tell_errors(output, result.errors, truncated=result.truncated)


def _tell_errors(output: Output, found: Iterable[validation_pb2.ValidationError], *, truncated: bool) -> None:
    for one in found:
        output.text(f"  {one.instance_path or '/'}: {one.message} ({one.keyword} at {one.schema_path or '/'})")
    if truncated:
        output.text("  There are more errors than the service lists.")


def _tell_sum(output: Output, tally: Tally) -> None:
    invalid = tally.checked - tally.valid
    if output.json:
        output.line({"summary": {"checked": tally.checked, "valid": tally.valid, "invalid": invalid}})
    else:
        output.text(f"{tally.checked} checked, {tally.valid} valid, {invalid} invalid")
