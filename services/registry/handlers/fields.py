"""Reads the fields of requests, and collects everything that is wrong with them before it complains."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeVar

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from llm_schema_registry.kernel import fields
from llm_schema_registry.registry.v1 import schema_pb2
from services.registry.codec import nouns
from services.registry.domain import limits
from services.registry.domain.events import RequestKey
from services.registry.domain.evolution.levels import LEVELS
from services.registry.domain.evolution.policy import Policy
from services.registry.domain.model import Format, Reference, State

T = TypeVar("T")

NUMBER_MAX = 2**31 - 1


class Fields(fields.Fields):
    """The fields of one request to the registry."""

    def subject(self, value: str, field: str = "subject", *, optional: bool = False) -> str:
        """A subject's name; empty is allowed when optional."""
        if value or not optional:
            self._text(value, field, limits.SUBJECT_CHARACTERS_MAX)
            if not value:
                self.refuse(field, "is required")
            elif value != value.strip():
                self.refuse(field, "must not begin or end with white space")
        return value

    def line(self, value: str, field: str, characters_max: int) -> str:
        """A text without control characters."""
        self._text(value, field, characters_max)
        return value

    def prose(self, value: str, field: str, characters_max: int) -> str:
        """A text that may hold line ends and tabs."""
        self._text(value, field, characters_max, allowed="\n\r\t")
        return value

    def number(self, value: int, field: str, *, optional: bool = False) -> int:
        """A version's number or a schema's id, at least 1; 0 is allowed when optional."""
        if value < (0 if optional else 1):
            self.refuse(field, f"must be {'0 or ' if optional else ''}1 to {NUMBER_MAX}")
        return value

    def format(self, value: int, field: str = "format") -> Format:
        """A format."""
        names = [form.name for form in Format]
        return self.known(nouns.read_format(value), Format.JSON, field, names)

    def optional_format(self, value: int, field: str = "format") -> Format | None:
        """A format, or None when it is not given."""
        return self.format(value, field) if value else None

    def state(self, value: int, field: str = "state", among: Collection[State] = tuple(State)) -> State:
        """A state among those allowed."""
        found = nouns.read_state(value)
        names = [state.name for state in among]
        return self.known(found if found in among else None, State.ACTIVE, field, names)

    def optional_state(self, value: int, field: str = "state") -> State | None:
        """A state, or None when it is not given."""
        return self.state(value, field) if value else None

    def level(self, value: int, field: str) -> str:
        """A level's name."""
        return self.known(nouns.read_level(value), "NONE", field, list(LEVELS))

    def optional_level(self, value: int, field: str) -> str | None:
        """A level's name, or None when it is not given."""
        return self.level(value, field) if value else None

    def policy(self, value: int, field: str) -> Policy:
        """A policy."""
        return self.known(nouns.read_policy(value), Policy.EXACT, field, [policy.name for policy in Policy])

    def optional_policy(self, value: int, field: str) -> Policy | None:
        """A policy, or None when it is not given."""
        return self.policy(value, field) if value else None

    def schema_text(self, value: str, bytes_max: int, field: str = "text") -> str:
        """A schema's text."""
        if not value:
            self.refuse(field, "is required")
        size = len(value.encode("utf-8"))
        if size > bytes_max:
            self.refuse(field, f"has {size} bytes; at most {bytes_max} are allowed")
        return value

    def references(self, values: Collection[schema_pb2.Reference]) -> tuple[Reference, ...]:
        """References, each name once."""
        if len(values) > limits.REFERENCES_MAX:
            self.refuse("references", f"are {len(values)}; at most {limits.REFERENCES_MAX} are allowed")
            return ()
        names: set[str] = set()
        for index, value in enumerate(values):
            field = f"references[{index}]"
            self._text(value.name, f"{field}.name", limits.REFERENCE_NAME_CHARACTERS_MAX)
            if not value.name:
                self.refuse(f"{field}.name", "is required")
            elif value.name in names:
                self.refuse(f"{field}.name", "stands twice; every name stands for one version")
            names.add(value.name)
            self.subject(value.subject, f"{field}.subject")
            self.number(value.version, f"{field}.version")
        return tuple(nouns.read_reference(value) for value in values)

    def tags(self, values: Collection[str], field: str = "tags", most: int = limits.TAGS_MAX) -> tuple[str, ...]:
        """Tags, sorted, each once."""
        if len(values) > most:
            self.refuse(field, f"are {len(values)}; at most {most} are allowed")
            return ()
        for index, value in enumerate(values):
            self._text(value, f"{field}[{index}]", limits.TAG_CHARACTERS_MAX)
            if not value.strip():
                self.refuse(f"{field}[{index}]", "must not be empty")
        return tuple(sorted(set(values)))

    def metadata(self, values: Mapping[str, str], field: str = "metadata") -> Mapping[str, str]:
        """The caller's own facts."""
        if len(values) > limits.METADATA_MAX:
            self.refuse(field, f"has {len(values)} entries; at most {limits.METADATA_MAX} are allowed")
            return {}
        for key, value in values.items():
            self._text(key, f"{field} key {key[:40]!r}", limits.METADATA_KEY_CHARACTERS_MAX)
            if not key:
                self.refuse(field, "must not have an empty key")
            self._text(value, f"{field}[{key[:40]!r}]", limits.METADATA_VALUE_CHARACTERS_MAX, allowed="\n\r\t")
        return dict(values)

    def mask(
        self, mask: FieldMask, present: Iterable[str], allowed: Collection[str], field: str = "update_mask"
    ) -> frozenset[str]:
        """The fields to take: those of the mask; all for `*`; without a mask those that are present.

        Source: AIP-134 and AIP-161.
        """
        if not mask.paths:
            return frozenset(present)
        if list(mask.paths) == ["*"]:
            return frozenset(allowed)
        for path in mask.paths:
            if path not in allowed:
                self.refuse(field, f"{path[:80]!r} is none of {', '.join(sorted(allowed))}")
        return frozenset(mask.paths)

    def request(self, method: str, message: Message, request_id: str) -> RequestKey | None:
        """The key of a repeatable request, None when it has no request id."""
        self._text(request_id, "request_id", limits.REQUEST_ID_CHARACTERS_MAX)
        if not request_id:
            return None
        body = type(message)()
        body.CopyFrom(message)
        body.ClearField("request_id")
        return RequestKey(method, request_id, hashlib.sha256(body.SerializeToString(deterministic=True)).digest())

    def _text(self, value: str, field: str, characters_max: int, allowed: str = "") -> None:
        if len(value) > characters_max:
            self.refuse(field, f"has {len(value)} characters; at most {characters_max} are allowed")
        elif not _printable(value, allowed):
            self.refuse(field, "must not hold control characters")


def when(*, given: bool, read: Callable[[], T]) -> T | None:
    """A field's value when it is given."""
    return read() if given else None


def _printable(value: str, allowed: str) -> bool:
    """Whether a text holds no control character but the allowed ones. Most texts are printable ASCII: look once."""
    if value.isascii() and value.isprintable():
        return True
    return all(unicodedata.category(char) != "Cc" or char in allowed for char in value)
