"""registry.v1.SubjectService over a real channel, against the registry as a process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import compatibility_pb2, schema_pb2, subject_pb2, version_pb2
from llm_schema_registry.registry.v1 import subject_service_pb2 as pb
from tests.fix_calls import Registry
from tests.fix_service import MakeService

Name = Callable[..., str]
DRAFT = version_pb2.VERSION_STATE_DRAFT
ACTIVE = version_pb2.VERSION_STATE_ACTIVE
DEPRECATED = version_pb2.VERSION_STATE_DEPRECATED
ARCHIVED = version_pb2.VERSION_STATE_ARCHIVED
SETTINGS = [
    "compatibility_level",
    "compatibility_policy",
    "declared_properties_only",
    "reader_fills_defaults",
    "assert_formats",
]
FULL = compatibility_pb2.COMPATIBILITY_LEVEL_FULL


async def transition(calls: Registry, subject: str, number: int, state: Any, **fields: Any) -> version_pb2.Version:
    request = pb.TransitionVersionRequest(subject=subject, number=number, state=state, **fields)
    return (await calls.call(calls.subjects.TransitionVersion, request)).version


async def update(calls: Registry, paths: list[str] | None = None, **fields: Any) -> version_pb2.Version:
    request = pb.UpdateVersionRequest(version=version_pb2.Version(**fields), update_mask=FieldMask(paths=paths or []))
    return (await calls.call(calls.subjects.UpdateVersion, request)).version


async def numbers(calls: Registry, subject: str, **fields: Any) -> list[int]:
    answer = await calls.call(calls.subjects.ListVersions, pb.ListVersionsRequest(subject=subject, **fields))
    return [version.number for version in answer.versions]


async def latest(calls: Registry, subject: str) -> int:
    answer = await calls.call(calls.subjects.GetVersion, pb.GetVersionRequest(subject=subject, latest=True))
    return answer.version.number


async def test_subjects_are_listed_by_name_in_pages(calls: Registry, name: Name) -> None:
    """By code points, beginning with a prefix, without gap or repeat."""
    prefix = name("list")
    expected = sorted(f"{prefix}/{tail}" for tail in ["a", "B", "c", "Ä", "z", "é", "10", "9"])
    await asyncio.gather(*(calls.register(subject, {"title": subject}) for subject in expected))

    seen: list[str] = []
    token = ""
    while True:
        request = pb.ListSubjectsRequest(name_prefix=f"{prefix}/", page_size=3, page_token=token)
        page = await calls.call(calls.subjects.ListSubjects, request)
        seen += [subject.name for subject in page.subjects]
        token = page.next_page_token
        if not token:
            break

    assert seen == expected


async def test_a_prefix_is_no_pattern(calls: Registry, name: Name) -> None:
    """`%` and `_` mean themselves."""
    stem = name("odd")
    for tail in ["%x", "_x", "ax"]:
        await calls.register(f"{stem}{tail}", {})

    async def found(prefix: str) -> list[str]:
        answer = await calls.call(calls.subjects.ListSubjects, pb.ListSubjectsRequest(name_prefix=prefix))
        return [subject.name for subject in answer.subjects]

    assert await found(f"{stem}%") == [f"{stem}%x"]
    assert await found(f"{stem}_") == [f"{stem}_x"]


async def test_a_subject_tells_its_versions_and_settings(calls: Registry, name: Name) -> None:
    """Latest version, count, and the level in force with its origin."""
    subject = name()
    await calls.register(subject, {"title": subject})

    before = (await calls.call(calls.subjects.GetSubject, pb.GetSubjectRequest(subject=subject))).subject
    await calls.level(subject, FULL)
    after = (await calls.call(calls.subjects.GetSubject, pb.GetSubjectRequest(subject=subject))).subject

    assert (before.name, before.latest_version, before.version_count) == (subject, 1, 1)
    assert before.config.inherited_fields == SETTINGS
    assert (after.config.compatibility_level, list(after.config.inherited_fields)) == (FULL, SETTINGS[1:])


async def test_an_update_takes_the_fields_of_its_mask(calls: Registry, name: Name) -> None:
    """Named fields are taken, also empty ones; others stay."""
    subject = name()
    await calls.register(subject, {}, description="old", owner="red", tags=["a"], metadata={"k": "v"})

    by_value = await update(calls, subject=subject, number=1, description="new")
    masked = await update(calls, ["owner", "tags"], subject=subject, number=1, description="ignored", tags=["c", "b"])
    everything = await update(calls, ["*"], subject=subject, number=1, owner="blue")

    assert (by_value.description, by_value.owner) == ("new", "red")
    assert (masked.description, masked.owner, list(masked.tags)) == ("new", "", ["b", "c"])
    assert (everything.description, everything.owner, list(everything.tags), dict(everything.metadata)) == (
        "",
        "blue",
        [],
        {},
    )
    assert (await calls.version(subject, 1)) == everything


async def test_an_update_that_changes_nothing_writes_nothing(calls: Registry, name: Name) -> None:
    """The version keeps its time and its etag."""
    subject = name()
    made = await calls.register(subject, {}, owner="red")

    assert await update(calls, subject=subject, number=1, owner="red") == made.version


async def test_an_update_does_not_overwrite_what_was_not_read(calls: Registry, name: Name) -> None:
    """An old etag is refused; the present one works."""
    subject = name()
    made = await calls.register(subject, {}, owner="red")
    present = await update(calls, subject=subject, number=1, owner="blue")

    with pytest.raises(errors.EtagMismatch):
        await update(calls, subject=subject, number=1, owner="green", etag=made.version.etag)

    updated = await update(calls, subject=subject, number=1, owner="green", etag=present.etag)
    assert updated.owner == "green"


async def test_an_update_is_searched_by_its_new_words(calls: Registry, name: Name) -> None:
    """The old words are gone, the schema's own stay."""
    subject, word = name(), name("word").replace("-", "")
    await calls.register(subject, {"title": f"{word}title"}, owner=f"{word}red")

    await update(calls, subject=subject, number=1, owner=f"{word}blue")

    from llm_schema_registry.registry.v1 import schema_service_pb2  # noqa: PLC0415 - one use

    async def found(query: str) -> int:
        request = schema_service_pb2.SearchSchemasRequest(query=query)
        return len((await calls.call(calls.schemas.SearchSchemas, request)).versions)

    assert [await found(f"{word}{tail}") for tail in ("red", "blue", "title")] == [0, 1, 1]


async def test_a_version_goes_through_its_life(calls: Registry, name: Name) -> None:
    """DRAFT, ACTIVE, DEPRECATED, ARCHIVED; `latest` follows; what is not a step is refused."""
    subject = name()
    await calls.register(subject, {"title": subject}, state=DRAFT)

    active = await transition(calls, subject, 1, ACTIVE)
    assert active.HasField("activate_time")
    assert await latest(calls, subject) == 1
    await transition(calls, subject, 1, DEPRECATED)
    with pytest.raises(errors.VersionNotFound, match="ACTIVE"):
        await latest(calls, subject)
    with pytest.raises(errors.IllegalTransition, match="RollbackSubject"):
        await transition(calls, subject, 1, ACTIVE)
    archived = await transition(calls, subject, 1, ARCHIVED)
    assert archived.state == ARCHIVED
    for state in (DRAFT, ACTIVE, DEPRECATED):
        with pytest.raises(errors.IllegalTransition, match="final"):
            await transition(calls, subject, 1, state)


async def test_a_transition_to_the_present_state_changes_nothing(calls: Registry, name: Name) -> None:
    """The version is returned as it is."""
    subject = name()
    made = await calls.register(subject, {})

    assert await transition(calls, subject, 1, ACTIVE) == made.version


async def test_a_draft_is_checked_when_it_becomes_active(calls: Registry, name: Name) -> None:
    """What could not be registered as active cannot become active either."""
    subject = name()
    await calls.register(subject, {"type": "object"})
    await calls.register(subject, {"type": "array"}, state=DRAFT)

    with pytest.raises(errors.IncompatibleSchema):
        await transition(calls, subject, 2, ACTIVE)

    assert (await calls.version(subject, 2)).state == DRAFT


async def test_a_transition_with_an_old_etag_is_refused(calls: Registry, name: Name) -> None:
    """Nothing is decided on what was not read."""
    subject = name()
    made = await calls.register(subject, {})
    await update(calls, subject=subject, number=1, owner="blue")

    with pytest.raises(errors.EtagMismatch):
        await transition(calls, subject, 1, DEPRECATED, etag=made.version.etag)


async def test_a_rollback_puts_an_earlier_version_into_force(calls: Registry, name: Name) -> None:
    """The target is active, the newer active ones are deprecated, `latest` names the target."""
    subject = name()
    await calls.versions(subject, 4)
    await transition(calls, subject, 2, DEPRECATED)

    answer = await calls.call(calls.subjects.RollbackSubject, pb.RollbackSubjectRequest(subject=subject, number=2))

    assert (answer.version.state, list(answer.deprecated_versions)) == (ACTIVE, [3, 4])
    assert await calls.version(subject, 2) == answer.version
    assert await latest(calls, subject) == 2
    assert [(await calls.version(subject, number)).state for number in (1, 2, 3, 4)] == [
        ACTIVE,
        ACTIVE,
        DEPRECATED,
        DEPRECATED,
    ]


async def test_a_rollback_repeated_changes_nothing(calls: Registry, name: Name) -> None:
    """The second one finds nothing to do."""
    subject = name()
    await calls.versions(subject, 2)
    request = pb.RollbackSubjectRequest(subject=subject, number=1)
    await calls.call(calls.subjects.RollbackSubject, request)

    again = await calls.call(calls.subjects.RollbackSubject, request)

    assert list(again.deprecated_versions) == []


async def test_a_rollback_to_what_is_not_in_use_is_refused(calls: Registry, name: Name) -> None:
    """Drafts, deleted versions and missing ones cannot be rolled back to."""
    subject = name()
    await calls.versions(subject, 2)
    await calls.register(subject, {"title": "draft"}, state=DRAFT)
    await calls.delete(subject, 1)

    async def roll_back(number: int) -> None:
        await calls.call(calls.subjects.RollbackSubject, pb.RollbackSubjectRequest(subject=subject, number=number))

    with pytest.raises(errors.IllegalTransition):
        await roll_back(3)
    for number in (1, 9):
        with pytest.raises(errors.VersionNotFound):
            await roll_back(number)


async def test_a_deleted_version_is_hidden_and_can_be_purged(calls: Registry, name: Name) -> None:
    """Deletion hides, purging removes; both may be repeated; the order is enforced."""
    subject = name()
    await calls.versions(subject, 2)

    with pytest.raises(errors.NotDeleted):
        await calls.purge(subject, 1)
    deleted = await calls.delete(subject, 1)
    assert deleted.HasField("delete_time")
    assert await calls.delete(subject, 1) == deleted
    assert await numbers(calls, subject) == [2]
    assert await numbers(calls, subject, include_deleted=True) == [1, 2]
    with pytest.raises(errors.VersionNotFound):
        await calls.call(calls.subjects.GetVersion, pb.GetVersionRequest(subject=subject, number=1))
    assert len(await calls.purge(subject, 1)) == 1
    assert await calls.purge(subject, 1) == []
    assert await numbers(calls, subject, include_deleted=True) == [2]
    with pytest.raises(errors.VersionNotFound):
        await calls.purge(subject, 7)


async def test_a_deleted_version_cannot_be_changed(calls: Registry, name: Name) -> None:
    """Updates and transitions do not see it."""
    subject = name()
    await calls.versions(subject, 1)
    await calls.delete(subject, 1)

    with pytest.raises(errors.VersionNotFound):
        await update(calls, subject=subject, number=1, owner="x")
    with pytest.raises(errors.VersionNotFound):
        await transition(calls, subject, 1, DEPRECATED)


async def test_a_subject_is_deleted_and_purged_whole(calls: Registry, name: Name) -> None:
    """Numbers go on after a new registration."""
    subject = name()
    await calls.versions(subject, 3)

    with pytest.raises(errors.NotDeleted):
        await calls.call(calls.subjects.PurgeSubject, pb.PurgeSubjectRequest(subject=subject))
    deleted = await calls.call(calls.subjects.DeleteSubject, pb.DeleteSubjectRequest(subject=subject))
    assert list(deleted.versions) == [1, 2, 3]
    with pytest.raises(errors.SubjectNotFound):
        await calls.call(calls.subjects.GetSubject, pb.GetSubjectRequest(subject=subject))
    hidden = await calls.call(calls.subjects.GetSubject, pb.GetSubjectRequest(subject=subject, include_deleted=True))
    assert hidden.subject.HasField("delete_time")
    purged = await calls.call(calls.subjects.PurgeSubject, pb.PurgeSubjectRequest(subject=subject))
    assert (list(purged.versions), len(purged.schema_ids)) == ([1, 2, 3], 3)
    with pytest.raises(errors.SubjectNotFound):
        await calls.call(calls.subjects.GetSubject, pb.GetSubjectRequest(subject=subject, include_deleted=True))
    config = await calls.call(calls.subjects.GetConfig, pb.GetConfigRequest(subject=subject))
    assert config.config.inherited_fields
    assert (await calls.register(subject, {"title": "again"})).version.number == 4


async def test_deleting_what_is_deleted_changes_nothing(calls: Registry, name: Name) -> None:
    """A repeat finds nothing to do; a name that never was is not found."""
    subject = name()
    await calls.versions(subject, 1)
    await calls.call(calls.subjects.DeleteSubject, pb.DeleteSubjectRequest(subject=subject))

    again = await calls.call(calls.subjects.DeleteSubject, pb.DeleteSubjectRequest(subject=subject))

    assert list(again.versions) == []
    with pytest.raises(errors.SubjectNotFound):
        await calls.call(calls.subjects.DeleteSubject, pb.DeleteSubjectRequest(subject=name("never")))


async def test_a_referenced_subject_cannot_be_deleted_or_purged(calls: Registry, name: Name) -> None:
    """While a live version needs it, it stays; while a deleted one does, its content stays."""
    base, user = name("base"), name("user")
    await calls.register(base, {"type": "string"})
    reference = schema_pb2.Reference(name="base.json", subject=base, version=1)
    await calls.register(user, {"$ref": "base.json"}, references=[reference])

    with pytest.raises(errors.VersionReferenced):
        await calls.call(calls.subjects.DeleteSubject, pb.DeleteSubjectRequest(subject=base))
    await calls.delete(user, 1)
    await calls.call(calls.subjects.DeleteSubject, pb.DeleteSubjectRequest(subject=base))
    with pytest.raises(errors.VersionReferenced):
        await calls.call(calls.subjects.PurgeSubject, pb.PurgeSubjectRequest(subject=base))
    await calls.purge(user, 1)
    purged = await calls.call(calls.subjects.PurgeSubject, pb.PurgeSubjectRequest(subject=base))
    assert list(purged.versions) == [1]


async def test_settings_of_a_subject_are_set_read_and_reset(calls: Registry, name: Name) -> None:
    """A subject need not exist to have settings; without its own the global ones are in force."""
    subject = name()

    async def config() -> subject_pb2.Config:
        return (await calls.call(calls.subjects.GetConfig, pb.GetConfigRequest(subject=subject))).config

    inherited = await config()
    await calls.level(subject, FULL)
    own = await config()
    reset = await calls.call(calls.subjects.ResetConfig, pb.ResetConfigRequest(subject=subject))

    assert (inherited.compatibility_level, list(inherited.inherited_fields)) == (
        compatibility_pb2.COMPATIBILITY_LEVEL_BACKWARD,
        SETTINGS,
    )
    assert (own.compatibility_level, list(own.inherited_fields)) == (FULL, SETTINGS[1:])
    assert await config() == reset.config
    assert len({inherited.etag, own.etag, reset.config.etag}) == 3
    reset.config.etag = inherited.etag
    assert reset.config == inherited


async def test_settings_do_not_overwrite_what_was_not_read(calls: Registry, name: Name) -> None:
    """An old etag is refused."""
    subject = name()
    before = (await calls.call(calls.subjects.GetConfig, pb.GetConfigRequest(subject=subject))).config
    await calls.level(subject, FULL)
    wanted = subject_pb2.Config(compatibility_level=compatibility_pb2.COMPATIBILITY_LEVEL_NONE, etag=before.etag)

    with pytest.raises(errors.EtagMismatch):
        await calls.call(calls.subjects.UpdateConfig, pb.UpdateConfigRequest(subject=subject, config=wanted))


async def test_an_etag_is_not_fooled_by_going_back(calls: Registry, name: Name) -> None:
    """Settings that were changed there and back again were changed."""
    subject = name()
    await calls.level(subject, FULL)
    before = (await calls.call(calls.subjects.GetConfig, pb.GetConfigRequest(subject=subject))).config
    await calls.level(subject)
    await calls.level(subject, FULL)

    with pytest.raises(errors.EtagMismatch):
        await calls.call(calls.subjects.UpdateConfig, pb.UpdateConfigRequest(subject=subject, config=before))


async def test_global_settings_are_set_read_and_reset(make_service: MakeService, database_url: str) -> None:
    """They are in force for every subject without its own; an old etag is refused, on any replica."""
    services = [make_service(database_url) for _ in range(2)]
    for service in services:
        await service.start_async()
    async with RegistryClient(services[0].target) as first, RegistryClient(services[1].target) as second:
        one, two = Registry(first), Registry(second)
        before = (await one.call(one.subjects.GetConfig, pb.GetConfigRequest())).config
        wanted = subject_pb2.Config(compatibility_level=FULL, etag=before.etag)
        set_ = await one.call(one.subjects.UpdateConfig, pb.UpdateConfigRequest(config=wanted))
        with pytest.raises(errors.EtagMismatch):
            await two.call(two.subjects.UpdateConfig, pb.UpdateConfigRequest(config=wanted))
        seen = (await two.call(two.subjects.GetConfig, pb.GetConfigRequest(subject="any"))).config
        reset = await two.call(two.subjects.ResetConfig, pb.ResetConfigRequest())

    assert (set_.config.compatibility_level, list(set_.config.inherited_fields)) == (FULL, [])
    assert (seen.compatibility_level, list(seen.inherited_fields)) == (FULL, SETTINGS)
    assert reset.config.compatibility_level == compatibility_pb2.COMPATIBILITY_LEVEL_BACKWARD


async def test_a_repeated_deletion_gets_the_first_answer(calls: Registry, name: Name) -> None:
    """Also when the version is purged meanwhile."""
    subject, key = name(), name("request")
    await calls.versions(subject, 1)
    request = pb.DeleteVersionRequest(subject=subject, number=1, request_id=key)
    first = await calls.call(calls.subjects.DeleteVersion, request)
    await calls.purge(subject, 1)

    assert await calls.call(calls.subjects.DeleteVersion, request) == first
    assert first.version.HasField("delete_time")


async def test_a_repeated_mutation_gets_the_first_answer(calls: Registry, name: Name) -> None:
    """A repeat after someone else's change does not undo it."""
    subject, key = name(), name("request")
    await calls.versions(subject, 2)
    request = pb.RollbackSubjectRequest(subject=subject, number=1, request_id=key)
    first = await calls.call(calls.subjects.RollbackSubject, request)
    await calls.register(subject, {"title": "newer"})

    again = await calls.call(calls.subjects.RollbackSubject, request)

    assert again == first
    assert list(again.deprecated_versions) == [2]
    assert await latest(calls, subject) == 3


@pytest.mark.parametrize(
    ("method", "request_", "at_fault"),
    [
        ("GetSubject", pb.GetSubjectRequest(), "subject"),
        ("GetVersion", pb.GetVersionRequest(subject="a"), "key"),
        ("GetVersion", pb.GetVersionRequest(subject="a", number=0), "number"),
        ("GetVersion", pb.GetVersionRequest(subject="a", number=-1), "number"),
        ("ListVersions", pb.ListVersionsRequest(subject=""), "subject"),
        ("ListSubjects", pb.ListSubjectsRequest(page_size=-1), "page_size"),
        ("ListSubjects", pb.ListSubjectsRequest(page_token="?"), "page_token"),
        ("UpdateVersion", pb.UpdateVersionRequest(version=version_pb2.Version(subject="a", number=1)), "update_mask"),
        (
            "UpdateVersion",
            pb.UpdateVersionRequest(
                version=version_pb2.Version(subject="a", number=1, owner="x"), update_mask=FieldMask(paths=["state"])
            ),
            "update_mask",
        ),
        ("TransitionVersion", pb.TransitionVersionRequest(subject="a", number=1), "state"),
        ("RollbackSubject", pb.RollbackSubjectRequest(subject="a"), "number"),
        ("DeleteVersion", pb.DeleteVersionRequest(subject="a"), "number"),
        ("PurgeVersion", pb.PurgeVersionRequest(number=1), "subject"),
        ("DeleteSubject", pb.DeleteSubjectRequest(), "subject"),
        ("PurgeSubject", pb.PurgeSubjectRequest(), "subject"),
        ("UpdateConfig", pb.UpdateConfigRequest(subject="a"), "config"),
        ("ResetConfig", pb.ResetConfigRequest(subject="x" * 300), "subject"),
    ],
)
async def test_bad_fields_are_named(calls: Registry, method: str, request_: Any, at_fault: str) -> None:
    """Every method names the field at fault."""
    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(getattr(calls.subjects, method), request_)

    assert at_fault in {violation.field for violation in caught.value.violations}


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetSubject", pb.GetSubjectRequest(subject="never-registered")),
        ("GetVersion", pb.GetVersionRequest(subject="never-registered", latest=True)),
        ("GetVersion", pb.GetVersionRequest(subject="never-registered", number=1)),
        ("ListVersions", pb.ListVersionsRequest(subject="never-registered")),
        ("PurgeSubject", pb.PurgeSubjectRequest(subject="never-registered")),
    ],
)
async def test_a_name_that_never_was_is_not_found(calls: Registry, method: str, request_: Any) -> None:
    """SUBJECT_NOT_FOUND, with the name."""
    with pytest.raises(errors.SubjectNotFound, match="never-registered"):
        await calls.call(getattr(calls.subjects, method), request_)
