"""One event of every kind, with every field set, and strategies for any other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from services.registry.domain.events import (
    Change,
    EpochStarted,
    Event,
    SettingsChanged,
    SubjectRolledBack,
    VersionRegistered,
    VersionsDeleted,
    VersionsPurged,
    VersionTransitioned,
    VersionUpdated,
)
from services.registry.domain.evolution.levels import LEVELS
from services.registry.domain.evolution.policy import Policy
from services.registry.domain.model import Format, Reference, Schema, Settings, State, Version
from services.registry.domain.settings import NOTHING_SET

_TIME = datetime(2026, 11, 23, 12, 30, 45, 123456, tzinfo=UTC)
_REFERENCE = Reference("https://example.com/address.json", "address", 3)
_SCHEMA = Schema(
    id=2147483647,
    format=Format.JSON,
    text='{"$ref":"https://example.com/address.json"}',
    references=(_REFERENCE,),
    identity=b"\x01" + bytes(range(32)),
    semantic=b"\x01" + bytes(range(32, 64)),
    create_time=_TIME - timedelta(days=400),
    dialect="http://json-schema.org/draft-07/schema",
)
_VERSION = Version(
    subject="orders.order-created",
    number=7,
    schema_id=_SCHEMA.id,
    state=State.DEPRECATED,
    description="What happens\nwhen an order is created. Größe \U0001f600",
    owner="team-orders",
    tags=("billing", "events"),
    metadata={"ticket": "REG-1", "": "empty key"},
    create_time=_TIME - timedelta(days=2),
    update_time=_TIME,
    activate_time=_TIME - timedelta(days=1),
    delete_time=_TIME,
)

EXAMPLES: dict[str, Event] = {
    "version_registered": VersionRegistered(_VERSION, _SCHEMA, (_REFERENCE, Reference("b.json", "b", 1)), True),
    "version_updated": VersionUpdated(_VERSION),
    "version_transitioned": VersionTransitioned(_VERSION, State.ACTIVE, accepted_undecided=True),
    "subject_rolled_back": SubjectRolledBack("orders.order-created", 3, (4, 7)),
    "versions_deleted": VersionsDeleted("orders.order-created", (1, 2)),
    "versions_purged": VersionsPurged("orders.order-created", (1, 2), (5, 2147483647), settings_removed=True),
    "config_updated": SettingsChanged(
        "orders.order-created", Settings("FULL_TRANSITIVE", Policy.LENIENT, False, True, True)
    ),
    "config_updated-removed": SettingsChanged("orders.order-created", NOTHING_SET),
    "config_updated-global": SettingsChanged("", Settings("NONE")),
    "epoch_started": EpochStarted(2, 1, 9007199254740993),
}
"""By name of their golden file: the kind, and after a dash what is special."""

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_numbers = st.integers(1, 2**31 - 1)
_ascending = st.sets(_numbers, max_size=5).map(lambda found: tuple(sorted(found)))
_zones = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-8))])
times = st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=_zones)  # noqa: DTZ001 - the zone is drawn
_references = st.lists(st.builds(Reference, _texts, _texts, _numbers), max_size=3).map(tuple)
_fingerprints = st.binary(min_size=33, max_size=33)
schemas = st.builds(
    Schema, _numbers, st.sampled_from(Format), _texts, _references, _fingerprints, _fingerprints, times, _texts
)
_switches = st.none() | st.booleans()
_settings = st.builds(
    Settings,
    st.none() | st.sampled_from(sorted(LEVELS)),
    st.none() | st.sampled_from(Policy),
    _switches,
    _switches,
    _switches,
)
versions = st.builds(
    Version,
    subject=_texts,
    number=_numbers,
    schema_id=_numbers,
    state=st.sampled_from(State),
    description=_texts,
    owner=_texts,
    tags=st.sets(_texts, max_size=3).map(lambda tags: tuple(sorted(tags))),
    metadata=st.dictionaries(_texts, _texts, max_size=3),
    create_time=times,
    update_time=times,
    activate_time=st.none() | times,
    delete_time=st.none() | times,
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(VersionRegistered, versions, schemas, _references, st.booleans()),
    st.builds(VersionUpdated, versions),
    st.builds(VersionTransitioned, versions, st.sampled_from(State), st.booleans()),
    st.builds(SubjectRolledBack, _texts, _numbers, _ascending),
    st.builds(VersionsDeleted, _texts, _ascending),
    st.builds(VersionsPurged, _texts, _ascending, _ascending, st.booleans()),
    st.builds(SettingsChanged, _texts, _settings),
    st.builds(EpochStarted, _numbers, _numbers, st.integers(0, 2**63 - 1)),
)
changes = st.builds(Change, _numbers, st.integers(1, 2**63 - 1), times, _texts, events)
