"""What a history amounts to: replaying it rebuilds everything, and a change that cannot follow changes nothing."""

from __future__ import annotations

import copy
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.adapters.memory_store import MemoryStore
from services.registry.codec import events as codec
from services.registry.domain.events import (
    Change,
    EpochStarted,
    Event,
    SettingsChanged,
    SubjectRolledBack,
    VersionRegistered,
    VersionsDeleted,
    VersionsPurged,
    VersionUpdated,
)
from services.registry.domain.model import Reference, Settings
from services.registry.domain.state import Inapplicable, RegistryState
from tests import registry_events as examples
from tests.registry_author import START, Author, schema, version
from tests.registry_history import outcome, picture, step


def registered(number: int = 1, schema_id: int = 1, text: str = "1", subject: str = "user") -> VersionRegistered:
    """A registration without references."""
    return VersionRegistered(version(subject, number, schema_id), schema(schema_id, text), ())


def state_of(*events: Event) -> RegistryState:
    """The state after a history."""
    state = RegistryState()
    for event in events:
        state.apply(Change(state.epoch, state.position + 1, START, "author", event))
    return state


def contents(state: RegistryState) -> dict[str, object]:
    """Everything the state holds."""
    return copy.deepcopy(vars(state))


@settings(max_examples=30)
@given(st.integers())
async def test_replay_rebuilds_everything(seed: int) -> None:
    """The stored payloads of any history, applied in order, give what the store held at the end, but for words."""
    store, rng = MemoryStore(), random.Random(seed)
    author = Author(store)
    for _ in range(60):
        await outcome(step(rng)(author))

    rebuilt = MemoryStore()
    for change in await store.changes(after=0, limit=1000, text_bytes_max=1 << 40):
        event = codec.read_payload(codec.PAYLOAD_VERSION, codec.payload(change.event))
        rebuilt.replay(replace(change, event=event))

    unlike = {"updated"}
    expected = {name: value for name, value in (await picture(store)).items() if name not in unlike}
    assert {name: value for name, value in (await picture(rebuilt)).items() if name not in unlike} == expected


@given(st.lists(examples.changes, max_size=8))
def test_inapplicable_changes_nothing(found: list[Change]) -> None:
    """A change is applied as a whole or not at all, whatever it holds."""
    state = state_of(registered(), SettingsChanged("user", Settings("NONE")))

    for change in found:
        before = contents(state)
        follows = replace(change, epoch=state.epoch, position=state.position + 1)
        try:
            state.apply(follows)
        except Inapplicable:
            assert contents(state) == before
        else:
            assert state.position == follows.position


@pytest.mark.parametrize(
    "event",
    [
        registered(number=3, schema_id=2, text="2"),
        registered(number=2, schema_id=2, text="1"),
        registered(number=2, schema_id=1, text="2"),
        replace(registered(2, 2, "2"), references=(Reference("x", "nobody", 1),)),
        VersionUpdated(version("user", 2, 1)),
        VersionsDeleted("user", (1, 2)),
        VersionsPurged("user", (2,), ()),
        VersionsPurged("user", (1,), (9,)),
        SubjectRolledBack("user", 1, (2,)),
        EpochStarted(2, 1, 9),
        EpochStarted(1, 1, 1),
        EpochStarted(3, 2, 1),
    ],
    ids=repr,
)
def test_inapplicable(event: Event) -> None:
    """What cannot follow a history of one registration is refused."""
    state = state_of(registered())
    before = contents(state)

    with pytest.raises(Inapplicable):
        state.apply(Change(1, 2, START, "author", event))

    assert contents(state) == before


@pytest.mark.parametrize(("epoch", "position"), [(1, 1), (1, 3), (2, 2), (0, 2)])
def test_out_of_order(epoch: int, position: int) -> None:
    """A change is refused unless its epoch and position are next."""
    state = state_of(registered())

    with pytest.raises(Inapplicable):
        state.apply(Change(epoch, position, START, "author", SettingsChanged("", Settings("NONE"))))


def test_new_epoch() -> None:
    """An epoch begins after its parent's last position; the next change belongs to it."""
    state = state_of(registered())

    state.apply(Change(5, 2, START, "author", EpochStarted(5, 1, 1)))
    state.apply(Change(5, 3, START, "author", SettingsChanged("", Settings("NONE"))))

    assert (state.epoch, state.position, state.general) == (5, 3, Settings("NONE"))
