"""`llmsr schema get`, `list` and `search`."""

from __future__ import annotations

from llm_schema_registry.cli import schema_inputs, schema_views
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.messages import as_document, moment
from llm_schema_registry.cli.paging import Listed, listed, note_more
from llm_schema_registry.cli.schema import LATEST, Get, List, Search
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import schema_service_pb2 as schemas_pb
from llm_schema_registry.registry.v1 import subject_pb2, version_pb2
from llm_schema_registry.registry.v1 import subject_service_pb2 as subjects_pb

SUBJECTS_PAGE_MAX = 1000
VERSIONS_PAGE_MAX = 250
"""Largest pages that the service gives. Source: subject_service.proto, schema_service.proto."""


async def get(session: Session, options: Get) -> ExitCode:
    """Writes a version with its content, or a content."""
    if bool(options.subject) == (options.id is not None):
        raise UsageFault("Name a subject, or give --id; one of the two.")
    if options.id is not None and options.version != LATEST:
        raise UsageFault("--version goes with a subject: an id names content, which has no versions.")
    number = schema_inputs.number(options.version, "--version")
    async with session.connection.registry() as registry:
        if options.id is None:
            await _get_version(session, registry, options, number)
        else:
            await _get_schema(session, registry, options, options.id)
    return ExitCode.FINE


async def _get_version(session: Session, registry: RegistryClient, options: Get, number: int) -> None:
    request = subjects_pb.GetVersionRequest(subject=options.subject, include_deleted=options.include_deleted)
    if number:
        request.number = number
    else:
        request.latest = True
    answer = await registry.call(registry.subjects.GetVersion, request)
    if options.text:
        session.output.raw(answer.schema.text)
    elif session.output.json:
        session.output.document(as_document(answer))
    else:
        session.output.record(
            [*schema_views.version_record(answer.version), *schema_views.schema_record(answer.schema)]
        )
        session.output.text(f"\n{answer.schema.text}")


async def _get_schema(session: Session, registry: RegistryClient, options: Get, schema_id: int) -> None:
    request = schemas_pb.GetSchemaRequest(id=schema_id)
    answer = await registry.call(registry.schemas.GetSchema, request)
    if options.text:
        session.output.raw(answer.schema.text)
    elif session.output.json:
        session.output.document(as_document(answer))
    else:
        created = ("created", moment(answer.schema.create_time))
        session.output.record([("id", answer.schema.id), created, *schema_views.schema_record(answer.schema)])
        session.output.text(f"\n{answer.schema.text}")


async def list_(session: Session, options: List) -> ExitCode:
    """Writes subjects, or the versions of one."""
    if options.subject and options.prefix:
        raise UsageFault("--prefix is for listing subjects; leave out the subject.")
    if options.state is not None and not options.subject:
        raise UsageFault("--state is for listing versions: name a subject, or use 'llmsr schema search --state'.")
    async with session.connection.registry() as registry:
        if options.subject:
            return _write_versions(session, await _versions(registry, options))
        return _write_subjects(session, await _subjects(registry, options))


async def search(session: Session, options: Search) -> ExitCode:
    """Writes the versions that were found."""
    async with session.connection.registry() as registry:

        async def read(size: int, token: str) -> schemas_pb.SearchSchemasResponse:
            request = schemas_pb.SearchSchemasRequest(
                query=" ".join(options.words),
                tags=options.tags,
                owner=options.owner,
                format=schema_inputs.format_wanted(options.format),
                state=schema_inputs.state_wanted(options.state),
                page_size=size,
                page_token=token,
            )
            return await registry.call(registry.schemas.SearchSchemas, request)

        found = await listed(
            read,
            lambda page: page.versions,
            limit=options.limit,
            token=options.page_token,
            page_size_max=VERSIONS_PAGE_MAX,
        )
    return _write_versions(session, found, with_subject=True)


async def _subjects(registry: RegistryClient, options: List) -> Listed[subject_pb2.Subject]:
    async def read(size: int, token: str) -> subjects_pb.ListSubjectsResponse:
        request = subjects_pb.ListSubjectsRequest(
            name_prefix=options.prefix, include_deleted=options.include_deleted, page_size=size, page_token=token
        )
        return await registry.call(registry.subjects.ListSubjects, request)

    return await listed(
        read,
        lambda page: page.subjects,
        limit=options.limit,
        token=options.page_token,
        page_size_max=SUBJECTS_PAGE_MAX,
    )


async def _versions(registry: RegistryClient, options: List) -> Listed[version_pb2.Version]:
    async def read(size: int, token: str) -> subjects_pb.ListVersionsResponse:
        request = subjects_pb.ListVersionsRequest(
            subject=options.subject,
            state=schema_inputs.state_wanted(options.state),
            include_deleted=options.include_deleted,
            page_size=size,
            page_token=token,
        )
        return await registry.call(registry.subjects.ListVersions, request)

    return await listed(
        read,
        lambda page: page.versions,
        limit=options.limit,
        token=options.page_token,
        page_size_max=VERSIONS_PAGE_MAX,
    )


def _write_subjects(session: Session, found: Listed[subject_pb2.Subject]) -> ExitCode:
    if session.output.json:
        entries = [as_document(one) for one in found.entries]
        session.output.document({"subjects": entries, "next_page_token": found.next_page_token})
        return ExitCode.FINE
    rows = ((one.name, one.latest_version or "", one.version_count, moment(one.update_time)) for one in found.entries)
    session.output.table(("subject", "latest", "versions", "updated"), rows)
    note_more(session.output, found)
    return ExitCode.FINE


def _write_versions(session: Session, found: Listed[version_pb2.Version], *, with_subject: bool = False) -> ExitCode:
    if session.output.json:
        entries = [as_document(one) for one in found.entries]
        session.output.document({"versions": entries, "next_page_token": found.next_page_token})
        return ExitCode.FINE
    columns: tuple[str, ...] = schema_views.VERSION_COLUMNS
    rows = schema_views.version_rows(found.entries)
    if with_subject:
        columns = ("subject", *columns)
        rows = ((one.subject, *row) for one, row in zip(found.entries, rows, strict=True))
    session.output.table(columns, rows)
    note_more(session.output, found)
    return ExitCode.FINE
