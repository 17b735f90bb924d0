"""`llmsr schema delete`."""

from __future__ import annotations

from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.cli import dry_run
from llm_schema_registry.cli.exit_codes import ExitCode, UsageFault
from llm_schema_registry.cli.paging import LISTED_MAX, listed
from llm_schema_registry.cli.schema import Delete
from llm_schema_registry.cli.session import Session
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import schema_service_pb2 as schemas_pb
from llm_schema_registry.registry.v1 import subject_service_pb2 as pb
from llm_schema_registry.registry.v1 import version_pb2

PAGE_MAX = 250
CHECKED_MAX = 100
"""Versions whose dependents a dry run looks up, one call each. The service itself checks all."""


async def delete(session: Session, options: Delete) -> ExitCode:
    """Deletes or purges, or says what that would do."""
    if options.request_id and not options.apply:
        raise UsageFault("--request-id goes with --apply: without it nothing is written.")
    async with session.connection.registry() as registry:
        if not options.apply:
            await _plan(session, registry, options)
        elif options.purge:
            await _purge(session, registry, options)
        else:
            await _delete(session, registry, options)
    return ExitCode.FINE


async def _plan(session: Session, registry: RegistryClient, options: Delete) -> None:
    """Says what `--apply` would do. Raises what it would raise, as far as that can be seen without doing it."""
    versions = await _named(registry, options)
    live = [one.number for one in versions if not one.HasField("delete_time")]
    if options.purge and live:
        raise errors.NotDeleted(
            f"Only what is deleted can be purged, and {options.subject} has live versions: {_numbers(live)}."
        )
    meant = [one.number for one in versions if one.HasField("delete_time") == options.purge]
    if not options.purge:
        await _check_dependents(registry, options.subject, meant)
    steps = [_step("purge for good" if options.purge else "delete", options.subject, number) for number in meant]
    dry_run.planned(session.output, steps, {"subject": options.subject, "versions": meant})


async def _named(registry: RegistryClient, options: Delete) -> list[version_pb2.Version]:
    """The versions that the command names. Raises like the RPCs when there are none."""
    if options.version is not None:
        one = pb.GetVersionRequest(subject=options.subject, number=options.version, include_deleted=True)
        answer = await registry.call(registry.subjects.GetVersion, one)
        return [answer.version]

    async def read(size: int, token: str) -> pb.ListVersionsResponse:
        request = pb.ListVersionsRequest(
            subject=options.subject, include_deleted=options.purge, page_size=size, page_token=token
        )
        return await registry.call(registry.subjects.ListVersions, request)

    found = await listed(read, lambda page: page.versions, limit=LISTED_MAX, token="", page_size_max=PAGE_MAX)
    return found.entries


async def _check_dependents(registry: RegistryClient, subject: str, numbers: list[int]) -> None:
    """Raises VersionReferenced when versions that stay need one of these. Looks at the first CHECKED_MAX of them."""
    for number in numbers[:CHECKED_MAX]:
        request = schemas_pb.ListReferencesRequest(
            subject=subject,
            version=number,
            direction=schemas_pb.REFERENCE_DIRECTION_DEPENDENTS,
            page_size=PAGE_MAX,
        )
        answer = await registry.call(registry.schemas.ListReferences, request)
        staying = [one for one in answer.versions if one.subject != subject or one.number not in numbers]
        if staying:
            first = f"{staying[0].subject} version {staying[0].number}"
            raise errors.VersionReferenced(
                f"Version {number} of {subject} is referenced by {first}; delete that first."
            )


async def _delete(session: Session, registry: RegistryClient, options: Delete) -> None:
    if options.version is not None:
        one = pb.DeleteVersionRequest(subject=options.subject, number=options.version, request_id=options.request_id)
        await registry.call(registry.subjects.DeleteVersion, one)
        numbers = [options.version]
    else:
        whole = pb.DeleteSubjectRequest(subject=options.subject, request_id=options.request_id)
        answer = await registry.call(registry.subjects.DeleteSubject, whole)
        numbers = list(answer.versions)
    _done(session, options, "Deleted", numbers, {})


async def _purge(session: Session, registry: RegistryClient, options: Delete) -> None:
    if options.version is not None:
        one = pb.PurgeVersionRequest(subject=options.subject, number=options.version, request_id=options.request_id)
        purged = await registry.call(registry.subjects.PurgeVersion, one)
        numbers, schema_ids = [options.version], list(purged.schema_ids)
    else:
        whole = pb.PurgeSubjectRequest(subject=options.subject, request_id=options.request_id)
        answer = await registry.call(registry.subjects.PurgeSubject, whole)
        numbers, schema_ids = list(answer.versions), list(answer.schema_ids)
    _done(session, options, "Purged", numbers, {"schema_ids": schema_ids})


def _done(session: Session, options: Delete, verb: str, numbers: list[int], more: dict[str, Any]) -> None:
    steps = [_step(verb, options.subject, number) for number in numbers]
    dry_run.applied(session.output, steps, {"subject": options.subject, "versions": numbers, **more})


def _step(verb: str, subject: str, number: int) -> str:
    return f"{verb} version {number} of {subject}"


def _numbers(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
