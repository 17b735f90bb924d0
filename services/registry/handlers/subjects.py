"""registry.v1.SubjectService."""

from __future__ import annotations

from typing import Any

from llm_schema_registry.kernel.calls import current_caller
from llm_schema_registry.registry.v1 import subject_pb2
from llm_schema_registry.registry.v1 import subject_service_pb2 as pb
from llm_schema_registry.registry.v1 import subject_service_pb2_grpc as rpc
from services.registry.codec import nouns
from services.registry.domain import limits
from services.registry.domain.model import Settings
from services.registry.handlers.fields import Fields, when
from services.registry.ports import VersionFilter
from services.registry.usecases.change_subject import ChangeSubject, InForce
from services.registry.usecases.change_version import ChangeVersion, Step, Target, Update
from services.registry.usecases.queries import Ask, Queries

UPDATABLE = frozenset({"description", "owner", "tags", "metadata"})
SETTINGS = {name: field for field, name in nouns.SETTING_FIELDS.items()}
"""The domain's names of settings by the fields of Config."""
ETAG_CHARACTERS_MAX = 64


class SubjectService(rpc.SubjectServiceServicer):
    """Reads subjects and their versions and steers their life."""

    def __init__(self, queries: Queries, versions: ChangeVersion, subjects: ChangeSubject) -> None:
        self._queries = queries
        self._versions = versions
        self._subjects = subjects

    async def ListSubjects(self, request: pb.ListSubjectsRequest, context: Any) -> pb.ListSubjectsResponse:
        """See the contract."""
        fields = Fields()
        prefix = fields.line(request.name_prefix, "name_prefix", limits.SUBJECT_CHARACTERS_MAX)
        fields.require_valid()
        ask = Ask(request.page_size, request.page_token)
        page = await self._queries.subjects(prefix, ask, include_deleted=request.include_deleted)
        return pb.ListSubjectsResponse(
            subjects=[nouns.subject(subject) for subject in page.items], next_page_token=page.next_token
        )

    async def GetSubject(self, request: pb.GetSubjectRequest, context: Any) -> pb.GetSubjectResponse:
        """See the contract."""
        fields = Fields()
        name = fields.subject(request.subject)
        fields.require_valid()
        subject = await self._queries.subject(name, include_deleted=request.include_deleted)
        return pb.GetSubjectResponse(subject=nouns.subject(subject))

    async def GetVersion(self, request: pb.GetVersionRequest, context: Any) -> pb.GetVersionResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject)
        number: int | None = None
        if request.WhichOneof("key") == "number":
            number = fields.number(request.number, "number")
        elif not request.latest:
            fields.refuse("key", "one of number (1 or more) or latest (true) is required")
        fields.require_valid()
        version, schema = await self._queries.version(subject, number, include_deleted=request.include_deleted)
        return pb.GetVersionResponse(version=nouns.version(version), schema=nouns.schema(schema))

    async def ListVersions(self, request: pb.ListVersionsRequest, context: Any) -> pb.ListVersionsResponse:
        """See the contract."""
        fields = Fields()
        which = VersionFilter(
            subject=fields.subject(request.subject),
            state=fields.optional_state(request.state),
            include_deleted=request.include_deleted,
        )
        fields.require_valid()
        page = await self._queries.versions(which, Ask(request.page_size, request.page_token))
        return pb.ListVersionsResponse(
            versions=[nouns.version(version) for version in page.items], next_page_token=page.next_token
        )

    async def UpdateVersion(self, request: pb.UpdateVersionRequest, context: Any) -> pb.UpdateVersionResponse:
        """See the contract."""
        fields = Fields()
        target, update = _target(request.version, fields, "version."), _update(request, fields)
        key = fields.request("UpdateVersion", request, request.request_id)
        fields.require_valid()
        version = await self._versions.update(target, update, actor=current_caller().name, request=key)
        return pb.UpdateVersionResponse(version=nouns.version(version))

    async def TransitionVersion(
        self, request: pb.TransitionVersionRequest, context: Any
    ) -> pb.TransitionVersionResponse:
        """See the contract."""
        fields = Fields()
        target, state = _target(request, fields), fields.state(request.state)
        key = fields.request("TransitionVersion", request, request.request_id)
        fields.require_valid()
        version = await self._versions.transition(
            target, Step(state, request.accept_undecided), actor=current_caller().name, request=key
        )
        return pb.TransitionVersionResponse(version=nouns.version(version))

    async def RollbackSubject(self, request: pb.RollbackSubjectRequest, context: Any) -> pb.RollbackSubjectResponse:
        """See the contract."""
        fields = Fields()
        subject, number = fields.subject(request.subject), fields.number(request.number, "number")
        key = fields.request("RollbackSubject", request, request.request_id)
        fields.require_valid()
        version, deprecated = await self._subjects.roll_back(subject, number, actor=current_caller().name, request=key)
        return pb.RollbackSubjectResponse(version=nouns.version(version), deprecated_versions=deprecated)

    async def DeleteVersion(self, request: pb.DeleteVersionRequest, context: Any) -> pb.DeleteVersionResponse:
        """See the contract."""
        fields = Fields()
        target = _target(request, fields)
        key = fields.request("DeleteVersion", request, request.request_id)
        fields.require_valid()
        version = await self._versions.delete(target, actor=current_caller().name, request=key)
        return pb.DeleteVersionResponse(version=nouns.version(version))

    async def PurgeVersion(self, request: pb.PurgeVersionRequest, context: Any) -> pb.PurgeVersionResponse:
        """See the contract."""
        fields = Fields()
        subject, number = fields.subject(request.subject), fields.number(request.number, "number")
        key = fields.request("PurgeVersion", request, request.request_id)
        fields.require_valid()
        purged = await self._subjects.purge_version(subject, number, actor=current_caller().name, request=key)
        return pb.PurgeVersionResponse(schema_ids=purged.schema_ids if purged else ())

    async def DeleteSubject(self, request: pb.DeleteSubjectRequest, context: Any) -> pb.DeleteSubjectResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject)
        key = fields.request("DeleteSubject", request, request.request_id)
        fields.require_valid()
        deleted = await self._subjects.delete(subject, actor=current_caller().name, request=key)
        return pb.DeleteSubjectResponse(versions=deleted)

    async def PurgeSubject(self, request: pb.PurgeSubjectRequest, context: Any) -> pb.PurgeSubjectResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject)
        key = fields.request("PurgeSubject", request, request.request_id)
        fields.require_valid()
        purged = await self._subjects.purge(subject, actor=current_caller().name, request=key)
        if purged is None:
            return pb.PurgeSubjectResponse()
        return pb.PurgeSubjectResponse(versions=purged.versions, schema_ids=purged.schema_ids)

    async def GetConfig(self, request: pb.GetConfigRequest, context: Any) -> pb.GetConfigResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject, optional=True)
        fields.require_valid()
        return pb.GetConfigResponse(config=_config(await self._subjects.settings(subject)))

    async def UpdateConfig(self, request: pb.UpdateConfigRequest, context: Any) -> pb.UpdateConfigResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject, optional=True)
        changes = _settings(request, fields)
        etag = fields.line(request.config.etag, "config.etag", ETAG_CHARACTERS_MAX)
        key = fields.request("UpdateConfig", request, request.request_id)
        fields.require_valid()
        found = await self._subjects.change_settings(subject, changes, etag, actor=current_caller().name, request=key)
        return pb.UpdateConfigResponse(config=_config(found))

    async def ResetConfig(self, request: pb.ResetConfigRequest, context: Any) -> pb.ResetConfigResponse:
        """See the contract."""
        fields = Fields()
        subject = fields.subject(request.subject, optional=True)
        names = fields.mask(request.reset_mask, SETTINGS, SETTINGS, "reset_mask")
        key = fields.request("ResetConfig", request, request.request_id)
        fields.require_valid()
        unset = frozenset(SETTINGS[name] for name in names if name in SETTINGS)
        found = await self._subjects.reset_settings(subject, unset, actor=current_caller().name, request=key)
        return pb.ResetConfigResponse(config=_config(found))


def _config(found: InForce) -> subject_pb2.Config:
    if found.own is None:
        return nouns.global_config(found.general, etag=found.etag)
    return nouns.config(found.own, found.general, etag=found.etag)


def _settings(request: pb.UpdateConfigRequest, fields: Fields) -> Settings:
    """New settings: those that the mask names, or, without a mask, those that are set."""
    config = request.config
    given = {"compatibility_level": config.compatibility_level, "compatibility_policy": config.compatibility_policy}
    present = [name for name in SETTINGS if (given[name] if name in given else config.HasField(name))]  # type: ignore[arg-type]
    taken = fields.mask(request.update_mask, present, SETTINGS)
    if not taken:
        fields.refuse("config", f"sets nothing; allowed are {', '.join(sorted(SETTINGS))}")
    for name in sorted(taken & SETTINGS.keys() - set(present)):
        fields.refuse(f"config.{name}", "is required: ResetConfig unsets it")
    taken = taken & set(present)
    return Settings(
        level=when(
            given="compatibility_level" in taken,
            read=lambda: fields.level(config.compatibility_level, "config.compatibility_level"),
        ),
        policy=when(
            given="compatibility_policy" in taken,
            read=lambda: fields.policy(config.compatibility_policy, "config.compatibility_policy"),
        ),
        declared_properties_only=config.declared_properties_only if "declared_properties_only" in taken else None,
        reader_fills_defaults=config.reader_fills_defaults if "reader_fills_defaults" in taken else None,
        assert_formats=config.assert_formats if "assert_formats" in taken else None,
    )


def _target(message: Any, fields: Fields, path: str = "") -> Target:
    """The version that a message with `subject`, `number` and `etag` names."""
    return Target(
        subject=fields.subject(message.subject, f"{path}subject"),
        number=fields.number(message.number, f"{path}number"),
        etag=fields.line(message.etag, f"{path}etag", ETAG_CHARACTERS_MAX),
    )


def _update(request: pb.UpdateVersionRequest, fields: Fields) -> Update:
    """New values of the fields that the mask names, or, without a mask, of those that are set."""
    version = request.version
    present = [name for name in UPDATABLE if getattr(version, name)]
    taken = fields.mask(request.update_mask, present, UPDATABLE)
    if not taken:
        fields.refuse("update_mask", f"names nothing to update; allowed are {', '.join(sorted(UPDATABLE))}")
    return Update(
        description=when(
            given="description" in taken,
            read=lambda: fields.prose(version.description, "version.description", limits.DESCRIPTION_CHARACTERS_MAX),
        ),
        owner=when(
            given="owner" in taken,
            read=lambda: fields.line(version.owner, "version.owner", limits.OWNER_CHARACTERS_MAX),
        ),
        tags=when(given="tags" in taken, read=lambda: fields.tags(version.tags, "version.tags")),
        metadata=when(given="metadata" in taken, read=lambda: fields.metadata(version.metadata, "version.metadata")),
    )
