"""Random histories against a model: what callers were told is what is there, also after crashes.

Hypothesis makes up histories of registrations, transitions, rollbacks, deletions, purges and crashes. A model of a few
dictionaries says what every call must answer. Later capabilities add their rules here.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import grpc
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from llm_schema_registry import errors
from llm_schema_registry.client import from_rpc_error
from llm_schema_registry.registry.v1 import (
    change_pb2,
    change_service_pb2,
    change_service_pb2_grpc,
    compatibility_pb2,
    schema_pb2,
    schema_service_pb2,
    schema_service_pb2_grpc,
    subject_pb2,
    subject_service_pb2,
    subject_service_pb2_grpc,
    version_pb2,
)
from services.registry.codec import events
from services.registry.domain.lifecycle import STEPS
from services.registry.domain.model import State
from services.registry.domain.state import RegistryState
from tests.fix_service import MakeService, Service

Answer = TypeVar("Answer")
Content = tuple[int, "Content | None"]
Key = tuple[str, int]

BASES = ["base"]
USERS = ["user"]
SUBJECTS = st.sampled_from(BASES + USERS)
CONTENTS = st.integers(0, 7)
PICKS = st.integers(0, 9)
"""Which version of a subject: mostly one that is there, newest first; 9 is one that is not."""
CRASH_MILLISECONDS = st.integers(0, 30)


@dataclass(frozen=True)
class Entry:
    """A version as the model has it. target: the version it references."""

    content: Content
    schema_id: int
    state: State
    activated: bool
    target: Key | None = None
    live: bool = True
    owner: str = ""


@dataclass
class Model:
    """What must be there. ids: of every content that ever was."""

    versions: dict[Key, Entry] = field(default_factory=dict)
    next_numbers: dict[str, int] = field(default_factory=dict)
    ids: dict[Content, int] = field(default_factory=dict)
    changes: int = 0

    def of(self, subject: str, *, live_only: bool = True) -> dict[int, Entry]:
        """Versions of a subject by number."""
        return {
            number: entry
            for (name, number), entry in sorted(self.versions.items())
            if name == subject and (entry.live or not live_only)
        }

    def referenced(self, keys: set[Key], *, live_only: bool) -> bool:
        """Whether a version outside of `keys` references one of them."""
        return any(
            entry.target in keys and key not in keys and (entry.live or not live_only)
            for key, entry in self.versions.items()
        )


class Stubs:
    """Blocking stubs of one process, made anew after each restart."""

    def __init__(self, service: Service) -> None:
        self.channel = grpc.insecure_channel(service.target)
        self.schemas = schema_service_pb2_grpc.SchemaServiceStub(self.channel)
        self.subjects = subject_service_pb2_grpc.SubjectServiceStub(self.channel)
        self.changes = change_service_pb2_grpc.ChangeServiceStub(self.channel)


class Histories(RuleBasedStateMachine):
    """One history. `service` is set by the test; every history has subjects of its own in it."""

    service: Service
    stubs: Stubs
    replayed: RegistryState
    told = ""
    run = itertools.count(1)

    @initialize()
    def begin(self) -> None:
        """New names; level NONE, so that the model need not decide compatibility."""
        self.prefix = f"history-{next(self.run)}-"
        self.model = Model()
        self.tickets = itertools.count(1)
        for subject in BASES + USERS:
            config = subject_pb2.Config(compatibility_level=compatibility_pb2.COMPATIBILITY_LEVEL_NONE)
            self.stubs.subjects.UpdateConfig(
                subject_service_pb2.UpdateConfigRequest(subject=self.prefix + subject, config=config)
            )
            self.model.changes += 1

    # Calls

    def mutate(self, method: str, request: Any, crash_after_ms: int | None = None) -> Any:
        """The answer of a mutation; with a crash meanwhile, that of its repeat under the same request id."""
        request.request_id = f"{self.prefix}{next(self.tickets)}"
        if crash_after_ms is not None:
            self.crash_during(method, request, crash_after_ms)
        return self.answer(lambda: self.method(method)(request, timeout=20))

    def method(self, name: str) -> Callable[..., Any]:
        stub = self.stubs.schemas if name == "RegisterSchema" else self.stubs.subjects
        found: Callable[..., Any] = getattr(stub, name)
        return found

    def answer(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except grpc.RpcError as failed:
            raise from_rpc_error(failed) from None

    def crash_during(self, method: str, request: Any, milliseconds: int) -> None:
        """Kills the process while the call may be in work; what it answered, if anything, does not count."""
        outcome: list[object] = []

        def call() -> None:
            with contextlib.suppress(grpc.RpcError):
                outcome.append(self.method(method)(request, timeout=5))

        caller = threading.Thread(target=call)
        caller.start()
        time.sleep(milliseconds / 1000)  # The moment of the crash is the point: any moment will do.
        self.restart()
        caller.join()

    def restart(self) -> None:
        self.service.kill()
        self.service.start()
        self.stubs.channel.close()
        type(self).stubs = Stubs(self.service)

    # Rules

    @rule(subject=SUBJECTS, content=CONTENTS, draft=st.booleans(), crash=st.none() | CRASH_MILLISECONDS)
    def register(self, subject: str, content: int, draft: bool, crash: int | None) -> None:
        """A base schema, or one without references under any subject."""
        self.registered(subject, (content, None), None, draft=draft, crash=crash if self.may_crash() else None)

    @rule(subject=SUBJECTS, contents=st.lists(CONTENTS, min_size=2, max_size=4, unique=True))
    def register_several(self, subject: str, contents: list[int]) -> None:
        """One after the other, so that histories grow faster than they are taken down."""
        for content in contents:
            self.registered(subject, (content, None), None, draft=False, crash=None)

    @rule(user=st.sampled_from(USERS), content=CONTENTS, base=st.sampled_from(BASES), pick=PICKS)
    def register_with_reference(self, user: str, content: int, base: str, pick: int) -> None:
        """A schema that needs another one."""
        number = self.picked(base, pick)
        entry = self.model.versions.get((base, number))
        if entry is None or not entry.live:
            with pytest.raises(errors.ReferenceNotFound):
                self.send_registration(user, (content, (99, None)), (base, number), draft=False, crash=None)
            return
        self.registered(user, (content, entry.content), (base, number), draft=False, crash=None)

    def registered(self, subject: str, content: Content, target: Key | None, *, draft: bool, crash: int | None) -> None:
        model = self.model
        live = model.of(subject)
        existing = next((number for number, entry in live.items() if entry.content == content), None)

        answer = self.send_registration(subject, content, target, draft=draft, crash=crash)

        number, schema_id = answer.version.number, answer.schema.id
        if existing is not None:
            assert (number, answer.created) == (existing, False)
            assert schema_id == live[existing].schema_id
            return
        assert answer.created
        assert number == model.next_numbers.get(subject, 1)
        if content in model.ids:
            assert schema_id == model.ids[content]
        else:
            assert schema_id not in model.ids.values()
        model.ids[content] = schema_id
        model.next_numbers[subject] = number + 1
        state = State.DRAFT if draft else State.ACTIVE
        model.versions[subject, number] = Entry(content, schema_id, state, not draft, target)
        model.changes += 1

    def send_registration(
        self, subject: str, content: Content, target: Key | None, *, draft: bool, crash: int | None
    ) -> schema_service_pb2.RegisterSchemaResponse:
        schema: dict[str, object] = {"title": f"{self.prefix}{content[0]}"}
        request = schema_service_pb2.RegisterSchemaRequest(
            subject=self.prefix + subject,
            format=schema_pb2.SCHEMA_FORMAT_JSON,
            state=version_pb2.VERSION_STATE_DRAFT if draft else version_pb2.VERSION_STATE_ACTIVE,
        )
        if target is not None:
            schema["items"] = {"$ref": "base.json"}
            request.references.add(name="base.json", subject=self.prefix + target[0], version=target[1])
        request.text = json.dumps(schema)
        answer: schema_service_pb2.RegisterSchemaResponse = self.mutate("RegisterSchema", request, crash)
        return answer

    @rule(subject=SUBJECTS, pick=PICKS, state=st.sampled_from(State), crash=st.none() | CRASH_MILLISECONDS)
    def transition(self, subject: str, pick: int, state: State, crash: int | None) -> None:
        """Any step, legal or not."""
        number = self.picked(subject, pick)
        entry = self.model.versions.get((subject, number))
        request = subject_service_pb2.TransitionVersionRequest(
            subject=self.prefix + subject, number=number, state=version_pb2.VersionState.ValueType(int(state))
        )
        if entry is None or not entry.live:
            self.refused("TransitionVersion", request, errors.VersionNotFound)
        elif entry.state is state:
            self.mutate("TransitionVersion", request)
        elif (entry.state, state) not in STEPS:
            self.refused("TransitionVersion", request, errors.IllegalTransition)
        else:
            self.mutate("TransitionVersion", request, crash if self.may_crash() else None)
            self.put(subject, number, state=state, activated=entry.activated or state is State.ACTIVE)
            self.model.changes += 1

    @rule(subject=SUBJECTS, pick=PICKS, owner=st.sampled_from(["red", "blue"]))
    def update(self, subject: str, pick: int, owner: str) -> None:
        """A new owner."""
        number = self.picked(subject, pick)
        entry = self.model.versions.get((subject, number))
        version = version_pb2.Version(subject=self.prefix + subject, number=number, owner=owner)
        request = subject_service_pb2.UpdateVersionRequest(version=version)
        if entry is None or not entry.live:
            self.refused("UpdateVersion", request, errors.VersionNotFound)
            return
        self.mutate("UpdateVersion", request)
        self.model.changes += entry.owner != owner
        self.put(subject, number, owner=owner)

    @rule(subject=SUBJECTS, pick=PICKS)
    def roll_back(self, subject: str, pick: int) -> None:
        """An earlier version in force again."""
        number = self.picked(subject, pick)
        live = self.model.of(subject)
        request = subject_service_pb2.RollbackSubjectRequest(subject=self.prefix + subject, number=number)
        if number not in live:
            self.refused("RollbackSubject", request, errors.VersionNotFound)
            return
        if live[number].state not in (State.ACTIVE, State.DEPRECATED):
            self.refused("RollbackSubject", request, errors.IllegalTransition)
            return
        newer = [each for each, entry in live.items() if each > number and entry.state is State.ACTIVE]
        answer = self.mutate("RollbackSubject", request)
        assert list(answer.deprecated_versions) == newer
        self.model.changes += bool(newer) or live[number].state is not State.ACTIVE
        self.put(subject, number, state=State.ACTIVE)
        for each in newer:
            self.put(subject, each, state=State.DEPRECATED)

    @rule(subject=SUBJECTS, pick=PICKS, crash=st.none() | CRASH_MILLISECONDS)
    def delete(self, subject: str, pick: int, crash: int | None) -> None:
        """A version, unless a live one needs it."""
        number = self.picked(subject, pick)
        entry = self.model.versions.get((subject, number))
        request = subject_service_pb2.DeleteVersionRequest(subject=self.prefix + subject, number=number)
        if entry is None:
            self.refused("DeleteVersion", request, errors.VersionNotFound)
        elif not entry.live:
            self.mutate("DeleteVersion", request)
        elif self.model.referenced({(subject, number)}, live_only=True):
            self.refused("DeleteVersion", request, errors.VersionReferenced)
        else:
            self.mutate("DeleteVersion", request, crash if self.may_crash() else None)
            self.put(subject, number, live=False)
            self.model.changes += 1

    @rule(subject=SUBJECTS)
    def delete_subject(self, subject: str) -> None:
        """All live versions of a subject."""
        live = self.model.of(subject)
        request = subject_service_pb2.DeleteSubjectRequest(subject=self.prefix + subject)
        if not self.model.of(subject, live_only=False):
            self.refused("DeleteSubject", request, errors.SubjectNotFound)
        elif self.model.referenced({(subject, number) for number in live}, live_only=True):
            self.refused("DeleteSubject", request, errors.VersionReferenced)
        else:
            answer = self.mutate("DeleteSubject", request)
            assert list(answer.versions) == list(live)
            for number in live:
                self.put(subject, number, live=False)
            self.model.changes += bool(live)

    @rule(subject=SUBJECTS, pick=PICKS)
    def purge(self, subject: str, pick: int) -> None:
        """A deleted version, for good."""
        number = self.picked(subject, pick)
        entry = self.model.versions.get((subject, number))
        request = subject_service_pb2.PurgeVersionRequest(subject=self.prefix + subject, number=number)
        if entry is None and number >= self.model.next_numbers.get(subject, 1):
            self.refused("PurgeVersion", request, errors.VersionNotFound)
        elif entry is None:
            assert list(self.mutate("PurgeVersion", request).schema_ids) == []
        elif entry.live:
            self.refused("PurgeVersion", request, errors.NotDeleted)
        elif self.model.referenced({(subject, number)}, live_only=False):
            self.refused("PurgeVersion", request, errors.VersionReferenced)
        else:
            answer = self.mutate("PurgeVersion", request)
            del self.model.versions[subject, number]
            held = any(other.schema_id == entry.schema_id for other in self.model.versions.values())
            assert list(answer.schema_ids) == ([] if held else [entry.schema_id])
            self.model.changes += 1

    @rule()
    def crash(self) -> None:
        """Between two calls."""
        if self.may_crash():
            self.restart()

    # What must hold

    @invariant()
    def every_subject_is_as_the_model_says(self) -> None:
        """Versions, states, owners, and the latest."""
        if not hasattr(self, "model"):
            return
        for subject in BASES + USERS:
            expected = self.model.of(subject, live_only=False)
            assert self.seen(subject) == {
                number: (entry.schema_id, int(entry.state), entry.live, entry.owner)
                for number, entry in expected.items()
            }

    def teardown(self) -> None:
        """The history tells all of it: every change once, in order, and replaying it gives what is there."""
        if not hasattr(self, "model"):
            return
        changes = [events.read_change(message) for message in self.changes()]
        for change in changes:
            self.replayed.apply(change)
        assert sum(change.event.subject.startswith(self.prefix) for change in changes) == self.model.changes
        for subject in BASES + USERS:
            record = self.replayed.subjects.get(self.prefix + subject)
            replayed = {number: stored.version for number, stored in record.versions.items()} if record else {}
            assert {
                number: (version.schema_id, int(version.state), version.live, version.owner)
                for number, version in replayed.items()
            } == self.seen(subject)

    def seen(self, subject: str) -> dict[int, tuple[int, int, bool, str]]:
        """What the registry says of a subject's versions."""
        request = subject_service_pb2.ListVersionsRequest(
            subject=self.prefix + subject, include_deleted=True, page_size=250
        )
        try:
            versions = self.answer(lambda: self.stubs.subjects.ListVersions(request, timeout=20)).versions
        except errors.SubjectNotFound:
            return {}
        return {
            version.number: (version.schema_id, version.state, not version.HasField("delete_time"), version.owner)
            for version in versions
        }

    def changes(self) -> Iterator[change_pb2.Change]:
        """The changes since the history before this one."""
        while True:
            request = change_service_pb2.ListChangesRequest(resume_token=self.told, page_size=1000)
            page = self.stubs.changes.ListChanges(request, timeout=20)
            yield from page.changes
            type(self).told = page.resume_token
            if not page.more:
                return

    def picked(self, subject: str, pick: int) -> int:
        """A number of a version, or of none."""
        numbers = [number for name, number in sorted(self.model.versions, reverse=True) if name == subject]
        return numbers[pick % len(numbers)] if numbers and pick < 9 else pick + 1

    def refused(self, method: str, request: Any, error: type[errors.Error]) -> None:
        with pytest.raises(error):
            self.mutate(method, request)

    def put(self, subject: str, number: int, **fields: Any) -> None:
        entry = self.model.versions[subject, number]
        self.model.versions[subject, number] = replace(entry, **fields)

    crashes_left = 0

    def may_crash(self) -> bool:
        """A restart takes a second, so a run has a budget of them."""
        if type(self).crashes_left <= 0:
            return False
        type(self).crashes_left -= 1
        return True


def _run(service: Service, *, examples: int, steps: int, crashes: int) -> None:
    service.start()
    Histories.service, Histories.stubs, Histories.crashes_left = service, Stubs(service), crashes
    Histories.replayed, Histories.told = RegistryState(), ""
    try:
        run_state_machine_as_test(
            Histories,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        Histories.stubs.channel.close()


@pytest.mark.timeout(300)
def test_histories(make_service: MakeService, database_url: str, valkey_url: str) -> None:
    """A few histories with a few crashes."""
    _run(make_service(database_url, valkey_url), examples=40, steps=40, crashes=6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_many_histories(make_service: MakeService, database_url: str, valkey_url: str) -> None:
    """Many histories with many crashes."""
    _run(make_service(database_url, valkey_url), examples=150, steps=50, crashes=60)
