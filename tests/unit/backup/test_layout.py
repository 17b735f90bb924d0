"""Keys of objects and ids: what is made is read back, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_schema_registry.operations import ids
from llm_schema_registry.operations import keys as operation_keys
from services.backup.domain import layout
from services.backup.domain.layout import SegmentKey, VerificationKey
from services.backup.domain.model import Level

NOON = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ID = ids.new_id(NOON, bytes(range(10)))
OTHER_ID = ids.new_id(NOON + timedelta(milliseconds=1), bytes(10))
KEY_ID = "0123456789abcdef" * 2
MOMENTS = st.integers(0, 8000 * 365 * 86_400 * 1_000_000).map(
    lambda microseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)


def test_ids_are_ulids() -> None:
    """The example of the specification's layout: 48 bits of time, 80 random bits, Crockford's alphabet."""
    time = datetime.fromtimestamp(1469918176.385, tz=UTC)

    assert ids.new_id(time, bytes(10)) == "01ARYZ6S410000000000000000"
    assert ids.new_id(time, b"\xff" * 10) == "01ARYZ6S41" + "Z" * 16


@given(
    times=st.lists(MOMENTS, min_size=2),
    random=st.binary(min_size=10, max_size=10),
)
@settings(max_examples=50)
def test_ids_order_by_time(times: list[datetime], random: bytes) -> None:
    """Ids of later milliseconds are greater, and tell their time."""
    made = [ids.new_id(time, random) for time in sorted(times)]

    assert made == sorted(made)
    for each, time in zip(made, sorted(times), strict=True):
        assert timedelta(0) <= time - ids.time_of(each) < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    "text", ["", ID[:-1], ID + "0", ID.lower(), "8" + ID[1:], ID[:-1] + "U", ID[:-1] + "\n", "é" * 26]
)
def test_other_texts_are_no_ids(text: str) -> None:
    """Wrong length, case, letters or an overflow: no id."""
    assert not ids.is_id(text)
    with pytest.raises(ValueError, match="not an id"):
        ids.time_of(text)


def test_ids_that_no_calendar_has_tell_no_time() -> None:
    """The largest id lies after the year 9999."""
    with pytest.raises(ValueError, match="9999"):
        ids.time_of("7" + "Z" * 25)


@pytest.mark.parametrize(("time", "random"), [(NOON, bytes(9)), (datetime(1969, 1, 1, tzinfo=UTC), bytes(10))])
def test_ids_need_their_parts(time: datetime, random: bytes) -> None:
    """Too few random bytes, or a time before 1970, make no id."""
    with pytest.raises(ValueError, match="id"):
        ids.new_id(time, random)


def test_tokens_fit_names_of_databases() -> None:
    """Twelve lower-case letters and digits, of the id's random part."""
    token = ids.token(ID)

    assert len(token) == 12
    assert token.isascii()
    assert token.isalnum()
    assert token == token.lower()
    assert ids.token(OTHER_ID) != token


def test_the_keys_are_as_documented() -> None:
    """The layout, key by key: what other programs and runbooks rely on."""
    assert {
        operation_keys.lease("archiver"),
        layout.manifest(ID),
        layout.data(ID, 1),
        layout.key(KEY_ID, 1),
        layout.segment(1, 1, 250),
        layout.verification(ID, Level.V3, NOON, passed=True),
        layout.verification(ID, Level.V4, NOON, passed=False),
        layout.pin(ID),
        layout.tombstone(ID),
        operation_keys.operation("operations-1"),
        layout.restore_entry(ID, 7),
        layout.drill(NOON),
    } == {
        "leases/archiver.json",
        f"backups/{ID}/manifest.json",
        f"backups/{ID}/data-00001",
        f"keys/{KEY_ID}/0001.json",
        "archive/0000000001/00000000000000000001-00000000000000000250",
        f"verifications/{ID}/V3-20260301T120000.123456Z-passed.json",
        f"verifications/{ID}/V4-20260301T120000.123456Z-failed.json",
        f"pins/{ID}",
        f"tombstones/{ID}.json",
        "operations/operations-1.json",
        f"restores/{ID}/000007.json",
        "drills/20260301T120000.123456Z.json",
    }


def test_what_is_made_is_read_back() -> None:
    """Every parser reads its own key."""
    assert layout.manifest_of(layout.manifest(ID)) == ID
    assert layout.backup_of(layout.data(ID, 3)) == ID
    assert layout.data_of(layout.data(ID, 99_999)) == (ID, 99_999)
    assert layout.key_of(layout.key(KEY_ID, 12)) == (KEY_ID, 12)
    assert layout.pin_of(layout.pin(ID)) == ID
    assert layout.tombstone_of(layout.tombstone(ID)) == ID
    assert operation_keys.operation_of(operation_keys.operation("a.b_c-d")) == "a.b_c-d"
    assert layout.restore_entry_of(layout.restore_entry(ID, 2)) == (ID, 2)
    assert layout.drill_of(layout.drill(NOON)) == NOON
    evidence = layout.verification(ID, Level.V2, NOON, passed=False)
    assert layout.verification_of(evidence) == VerificationKey(ID, Level.V2, NOON, passed=False)


@given(
    epoch=st.integers(1, layout.EPOCH_MAX),
    ends=st.tuples(st.integers(1, layout.POSITION_MAX), st.integers(1, layout.POSITION_MAX)).map(sorted),
)
@settings(max_examples=50)
def test_segments_are_read_back(epoch: int, ends: list[int]) -> None:
    """A segment's key tells its epoch and positions, and lies behind what lists from its position."""
    key = layout.segment(epoch, *ends)

    assert layout.segment_of(key) == SegmentKey(epoch, *ends)
    assert layout.segments_from(epoch, ends[0]) < key
    assert layout.segments_from(epoch, ends[0] + 1 if ends[0] < layout.POSITION_MAX else ends[0]) != key


def test_segments_are_listed_in_order() -> None:
    """The order of keys is that of epochs and positions, also past powers of ten."""
    keys = [layout.segment(*each) for each in [(1, 1, 9), (1, 10, 99), (1, 100, 1000), (2, 5, 5), (10, 1, 1)]]

    assert keys == sorted(keys)


PARSERS = [
    layout.backup_of,
    layout.manifest_of,
    layout.data_of,
    layout.key_of,
    layout.segment_of,
    layout.verification_of,
    layout.pin_of,
    layout.tombstone_of,
    operation_keys.operation_of,
    layout.restore_entry_of,
    layout.drill_of,
]


@pytest.mark.parametrize(
    "key",
    [
        "",
        "repository.json",
        "catalog.json",
        layout.HEARTBEAT,
        f"backups/{ID}",
        f"backups/{ID}/",
        f"backups/{ID.lower()}/manifest.json",
        f"backup/{ID}/manifest.json",
        f"keys/{KEY_ID}/0000.json",
        f"keys/{KEY_ID.upper()}/0001.json",
        "archive/0000000000/00000000000000000001-00000000000000000002",
        "archive/0000000001/00000000000000000002-00000000000000000001",
        "archive/0000000001/1-2",
        "archive/0000000001/00000000000000000001-99999999999999999999",
        "archive/\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u0660\u06601/00000000000000000001-00000000000000000002",
        f"verifications/{ID}/V5-20260301T120000.123456Z-passed.json",
        f"verifications/{ID}/V3-20261301T120000.123456Z-passed.json",
        f"verifications/{ID}/V3-20260301T120000.123456Z-perhaps.json",
        f"pins/{ID}.json",
        f"tombstones/{ID}",
        "operations/.json",
        "operations/../x.json",
        "operations/a\n.json",
        f"restores/{ID}/000000.json",
        "drills/20260301T120000.json",
        "drills/20260230T120000.000000Z.json",
    ],
)
def test_other_keys_are_not_ours(key: str) -> None:
    """A key that another version or a person wrote is passed over by every parser."""
    assert [parser(key) for parser in PARSERS] == [None] * len(PARSERS)


def test_other_objects_of_a_backup_are_told_apart() -> None:
    """A stray object below a backup belongs to it, and is neither manifest nor data."""
    stray = f"backups/{ID}/data-00000"

    assert layout.backup_of(stray) == ID
    assert layout.manifest_of(stray) is None
    assert layout.data_of(stray) is None
    assert layout.data_of(f"backups/{ID}/deeper/data-00001") is None


REFUSED: list[Callable[[], str]] = [
    lambda: layout.manifest("../../etc"),
    lambda: layout.data(ID, 0),
    lambda: layout.data(ID, 100_000),
    lambda: layout.key("x", 1),
    lambda: layout.key(KEY_ID, 10_000),
    lambda: layout.segment(0, 1, 1),
    lambda: layout.segment(1, 2, 1),
    lambda: operation_keys.lease("a/b"),
    lambda: operation_keys.operation(""),
    lambda: layout.restore_entry(ID, 1_000_000),
]


@pytest.mark.parametrize("make", REFUSED)
def test_what_fits_no_key_is_refused(make: Callable[[], str]) -> None:
    """A key is never made of what could lead elsewhere, or could not be read back."""
    with pytest.raises(ValueError, match=r"id|within|name|segment"):
        make()
