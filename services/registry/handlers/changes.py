"""registry.v1.ChangeService."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from llm_schema_registry.registry.v1 import change_pb2
from llm_schema_registry.registry.v1 import change_service_pb2 as pb
from llm_schema_registry.registry.v1 import change_service_pb2_grpc as rpc
from services.registry.codec import events
from services.registry.domain import limits
from services.registry.handlers.fields import Fields
from services.registry.usecases import paging
from services.registry.usecases.feed import Feed, Place, Slice

WATCH_SLICE_CHANGES = 100


class ChangeService(rpc.ChangeServiceServicer):
    """Tells every change of the registry, in order."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    async def WatchChanges(
        self, request: pb.WatchChangesRequest, context: Any
    ) -> AsyncIterator[pb.WatchChangesResponse]:
        """See the contract."""
        fields = Fields()
        prefix = fields.line(request.subject_prefix, "subject_prefix", limits.SUBJECT_CHARACTERS_MAX)
        text = _with_text(request.view, fields)
        fields.require_valid()
        if request.now:
            place = await self._feed.now()
            yield pb.WatchChangesResponse(resume_token=place.token)
        else:
            place = await self._feed.start(request.resume_token)
        async with aclosing(self._feed.watch(place, prefix=prefix, limit=WATCH_SLICE_CHANGES)) as slices:
            async for found in slices:
                yield pb.WatchChangesResponse(changes=_changes(found, text=text), resume_token=found.place.token)

    async def ListChanges(self, request: pb.ListChangesRequest, context: Any) -> pb.ListChangesResponse:
        """See the contract."""
        fields = Fields()
        prefix = fields.line(request.subject_prefix, "subject_prefix", limits.SUBJECT_CHARACTERS_MAX)
        text = _with_text(request.view, fields)
        fields.require_valid()
        size = paging.size(request.page_size, default=limits.CHANGE_PAGE_SIZE_DEFAULT, most=limits.CHANGE_PAGE_SIZE_MAX)
        found, more = await self._feed.page(request.resume_token, prefix=prefix, limit=size)
        return pb.ListChangesResponse(changes=_changes(found, text=text), resume_token=found.place.token, more=more)


def _with_text(view: int, fields: Fields) -> bool:
    """Whether a view includes the texts of schemas."""
    if view not in pb.ChangeView.values():
        fields.refuse("view", "must be one of BASIC, FULL")
    return view != pb.CHANGE_VIEW_BASIC


def _changes(found: Slice, *, text: bool) -> Sequence[change_pb2.Change]:
    """Changes as messages, each with the token that resumes after it in the line of history that is being read."""
    messages = []
    for change in found.changes:
        message = events.change(change, text=text)
        message.resume_token = Place(found.place.epoch, change.position).token
        messages.append(message)
    return messages
