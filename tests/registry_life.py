"""Random lives of a registry, lived through its use cases: what replays and restores are shown on."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from llm_schema_registry import errors
from llm_schema_registry.kernel.postgres import Postgres
from services.registry.adapters.postgres_store import PostgresStore
from services.registry.adapters.protoc import compile_files
from services.registry.domain.events import RequestKey
from services.registry.domain.formats import SchemaFormat
from services.registry.domain.formats.avro import Avro
from services.registry.domain.formats.jsonschema import JsonSchema
from services.registry.domain.formats.protobuf import Protobuf
from services.registry.domain.model import Format, Reference, Settings, State
from services.registry.ports import Workers
from services.registry.usecases.change_subject import ChangeSubject
from services.registry.usecases.change_version import ChangeVersion, Step, Target, Update
from services.registry.usecases.library import Library
from services.registry.usecases.register import Draft, Register
from services.registry.usecases.writer import Writer

START = datetime(2026, 1, 1, tzinfo=UTC)
SUBJECTS = ("user", "order", "dé", "event", "wire")
FORMATS = {"event": Format.AVRO, "wire": Format.PROTOBUF}
WORDS = ("Alpha", "userCreated", "naïve text", "")

Deed = Callable[[], Awaitable[object]]


class SteppedClock:
    """A clock that every look moves by some microseconds, so that times in rows differ and have fractions."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        """See Clock."""
        self._now += timedelta(microseconds=1_000_037)
        return self._now


class Life:
    """A registry's use cases over one database, and somebody who does something at random."""

    def __init__(self, database: Postgres, workers: Workers, rng: random.Random, start: datetime = START) -> None:
        store, clock = PostgresStore(database), SteppedClock(start)
        formats: dict[Format, SchemaFormat] = {
            Format.JSON: JsonSchema(),
            Format.AVRO: Avro(),
            Format.PROTOBUF: Protobuf(compile_files),
        }
        library = Library(store, store, formats, workers)
        writer = Writer(store, clock, rng)
        self._rng = rng
        self._register = Register(store, library, writer, clock)
        self._versions = ChangeVersion(store, library, writer)
        self._subjects = ChangeSubject(store, writer)
        self._requests = f"request of {start:%F}", 0
        self.refused = 0

    async def live(self, deeds: int) -> None:
        """Does so many things, of which some are refused."""
        await self._subjects.change_settings("", Settings(level="NONE"), "", actor="ann", request=None)
        for _ in range(deeds):
            try:
                await self._deed()()
            except errors.Error:
                self.refused += 1
        await self._refer("ann")

    def _deed(self) -> Deed:
        rng = self._rng
        subject, number = rng.choice(SUBJECTS), rng.randint(1, 9)
        target, actor, request = Target(subject, number), rng.choice(("ann", "bob")), self._request()
        step = Step(rng.choice((State.ACTIVE, State.DEPRECATED, State.DRAFT)), accept_undecided=True)
        update = Update(rng.choice(WORDS), rng.choice(("team", "")), ("a",), {"z": "1", "key": rng.choice(WORDS)})
        settings = Settings(level=rng.choice(("NONE", "BACKWARD", "FULL")), assert_formats=rng.choice((True, None)))
        general = rng.choice((True, False))
        named: dict[str, Any] = {"actor": actor, "request": request}
        deeds: list[tuple[int, Deed]] = [
            (14, lambda: self._register(self._draft(subject), **named)),
            (3, lambda: self._versions.update(target, update, **named)),
            (3, lambda: self._versions.transition(target, step, **named)),
            (4, lambda: self._versions.delete(target, **named)),
            (1, lambda: self._subjects.purge_version(subject, number, **named)),
            (4, lambda: self._remove(target, actor)),
            (2, lambda: self._subjects.roll_back(subject, number, **named)),
            (1, lambda: self._subjects.delete(subject, **named)),
            (1, lambda: self._remove_all(subject, actor)),
            (3, lambda: self._refer(actor)),
            (1, lambda: self._subjects.change_settings(subject, settings, "", **named)),
            (1, lambda: self._subjects.change_settings("", Settings("NONE", None, general), "", **named)),
            (1, lambda: self._subjects.reset_settings(subject, frozenset({"level"}), **named)),
        ]
        weights, choices = zip(*deeds, strict=True)
        chosen: Deed = rng.choices(choices, weights)[0]
        return chosen

    async def _remove(self, target: Target, actor: str) -> None:
        """Deletes a version and purges it."""
        await self._versions.delete(target, actor=actor, request=self._request())
        await self._subjects.purge_version(target.subject, target.number, actor=actor, request=self._request())

    async def _refer(self, actor: str) -> None:
        """Registers a content and another one that references it."""
        for subject in ("user", "order"):
            await self._subjects.change_settings(subject, Settings("NONE"), "", actor=actor, request=self._request())
        base = replace(self._draft("user"), state=State.ACTIVE)
        target = await self._register(base, actor=actor, request=self._request())
        references = (Reference("base.json", "user", target.version.number),)
        text = _text(self._rng, Format.JSON, references)
        draft = replace(self._draft("order"), text=text, references=references)
        await self._register(draft, actor=actor, request=self._request())

    async def _remove_all(self, subject: str, actor: str) -> None:
        """Deletes a subject and purges it with its settings."""
        await self._subjects.delete(subject, actor=actor, request=self._request())
        await self._subjects.purge(subject, actor=actor, request=self._request())

    def _request(self) -> RequestKey | None:
        day, count = self._requests = self._requests[0], self._requests[1] + 1
        if self._rng.random() < 0.5:
            return None
        name = f"{day}, {count}"
        return RequestKey("SomeMethod", name, hashlib.sha256(name.encode()).digest())

    def _draft(self, subject: str) -> Draft:
        rng = self._rng
        form = FORMATS.get(subject, Format.JSON)
        references: tuple[Reference, ...] = ()
        if form is Format.JSON and subject != "user" and rng.random() < 0.4:
            references = (Reference("base.json", "user", rng.randint(1, 4)),)
        return Draft(
            subject=subject,
            format=form,
            text=_text(rng, form, references),
            references=references,
            state=rng.choice((State.ACTIVE, State.ACTIVE, State.DRAFT)),
            description=rng.choice(WORDS),
            owner=rng.choice(("team", "")),
            tags=rng.choice(((), ("a", "b"))),
            metadata=rng.choice(({}, {"b": "2", "a": "ä"})),
            accept_undecided=True,
        )


def _text(rng: random.Random, form: Format, references: tuple[Reference, ...]) -> str:
    """One of a few texts, so that contents come back; their writing differs in what identity does not see."""
    choice = rng.randint(1, 12)
    if form is Format.AVRO:
        fields = [{"name": f"f{index}", "type": "long", "default": 0} for index in range(choice)]
        return json.dumps({"type": "record", "name": "Event", "doc": f"Of Kind{choice}", "fields": fields})
    if form is Format.PROTOBUF:
        lines = "".join(f"  int64 f{index} = {index};\n" for index in range(1, choice + 1))
        return f'syntax = "proto3";\n// {rng.choice(WORDS)} wire\nmessage Wire {{\n{lines}}}\n'
    schema: dict[str, object] = {"type": "object", "title": f"Title{choice}"}
    schema["properties"] = {f"p{index}": {"type": "string", "description": "Some words"} for index in range(choice)}
    if references:
        schema["allOf"] = [{"$ref": references[0].name}]
    return json.dumps(schema, indent=rng.choice((None, 2)))
