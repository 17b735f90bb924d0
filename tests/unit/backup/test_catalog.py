"""The catalog: what backups there are by the store's own word, and how far each can be trusted."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from llm_schema_registry import errors
from services.backup.domain import layout, remarks
from services.backup.domain.documents import Signer, encode_signed
from services.backup.domain.model import Kind, Level, Verification
from services.backup.domain.remarks import Tombstone
from services.backup.usecases.catalog import Entry
from services.backup.usecases.make_backup import BackupRules
from services.backup.usecases.remarks import Evidence
from tests.backup_parts import NOON, Parts, again, make_parts
from tests.fix_fault_table import FaultTable
from tests.object_faults import Flip, Raise, RaiseAfter

DOWN = errors.ObjectStoreUnavailable("the store of the test is down")


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    """Use cases over an empty folder, beside a registry with some content."""
    parts = make_parts(tmp_path)
    parts.registry.write(10)
    return parts


async def test_a_backup_is_verified_to_v2_when_it_is_listed(parts: Parts) -> None:
    """The first listing that shows a backup shows it as opened by the keys of a restore."""
    made = await parts.backup(Kind.DAILY, slot=NOON)

    assert made.level is Level.V2
    assert (made.manifest.slot, made.manifest.place.position) == (NOON, 10)


def _entry(*evidence: tuple[Level, bool]) -> Entry:
    times = [NOON + timedelta(minutes=number) for number in range(len(evidence))]
    found = [Evidence(level, time, passed) for (level, passed), time in zip(evidence, times, strict=True)]
    return Entry(manifest=None, sha256=b"", evidence=tuple(reversed(found)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("evidence", "level"),
    [
        ([], Level.V0),
        ([(Level.V2, True), (Level.V3, True)], Level.V3),
        ([(Level.V4, True), (Level.V2, True)], Level.V4),
        ([(Level.V4, True), (Level.V3, False)], Level.V2),
        ([(Level.V4, True), (Level.V1, False)], Level.V0),
        ([(Level.V3, True), (Level.V4, False)], Level.V3),
        ([(Level.V3, False), (Level.V3, True)], Level.V3),
    ],
)
def test_level_after_several_verifications(evidence: list[tuple[Level, bool]], level: Level) -> None:
    """The level is the highest that passed, unless a later verification found damage at it or below."""
    assert _entry(*evidence).level is level


async def test_damage_counts_at_the_level_that_found_it(parts: Parts) -> None:
    """An object that is missing takes a proven backup's level away, however far the verification was to go."""
    made = await parts.proven()
    parts.path(made.manifest.objects[-1].key).unlink()

    found = await parts.look(made.id, Level.V3)

    assert (found.level, found.passed) == (Level.V1, False)
    assert made.manifest.objects[-1].key in found.problems[0]
    assert (await parts.repository.catalog.get(made.id)).level is Level.V0


@pytest.mark.parametrize("offset", [0, 3, 40, -3])
async def test_damaged_manifests_are_problems_and_hide_nothing(parts: Parts, offset: int) -> None:
    """A manifest that was changed is named, with what is wrong, and the others are listed."""
    damaged, whole = await parts.backup(), await parts.backup()
    parts.flip(layout.manifest(damaged.id), offset)

    listing = await again(parts).repository.catalog.listing()

    assert [entry.id for entry in listing.entries] == [whole.id]
    assert listing.untrusted == {damaged.id}
    assert layout.manifest(damaged.id) in listing.problems[0]
    with pytest.raises(errors.BackupDamaged, match=layout.manifest(damaged.id)):
        await again(parts).repository.catalog.get(damaged.id)


async def test_a_manifest_that_was_read_wrong_once_is_read_again(parts: Parts) -> None:
    """What a store returned wrongly in one answer is no damage for ever."""
    made = await parts.backup()
    process = again(parts)
    process.plan.add("get", None, Flip(50))

    first = await process.repository.catalog.listing()
    second = await process.repository.catalog.listing()

    assert first.untrusted == {made.id}
    assert [entry.id for entry in second.entries] == [made.id]


async def test_swapped_manifests_are_refused(parts: Parts, fault_table: FaultTable) -> None:
    """T11: an old manifest in another backup's place is not that backup."""
    one, other = await parts.backup(), await parts.backup()
    old = parts.path(layout.manifest(one.id)).read_bytes()
    parts.path(layout.manifest(other.id)).write_bytes(old)

    listing = await again(parts).repository.catalog.listing()

    assert listing.untrusted == {other.id}
    assert f"it is the manifest of {one.id}" in listing.problems[0]
    fault_table("T11", "an old manifest in another backup's place", "refused, named, the other one listed")


async def test_a_manifest_that_comes_back_is_no_backup_to_restore(parts: Parts, fault_table: FaultTable) -> None:
    """T11: a manifest that is put back after its backup was deleted counts as not verified, and V1 finds it out."""
    made = await parts.backup()
    manifest = parts.path(layout.manifest(made.id)).read_bytes()
    await parts.prune.delete(made.id, dry_run=False)
    await parts.store.put(layout.manifest(made.id), manifest)

    replayed = await parts.repository.catalog.get(made.id)
    found = await parts.look(made.id, Level.V1)

    assert replayed.level is Level.V0
    assert found.problems == (f"{made.manifest.objects[0].key} is not in the store",)
    fault_table("T11", "a deleted backup's manifest comes back", "level V0, V1 names the missing object")


async def test_another_registrys_backup_is_not_ours(parts: Parts, tmp_path: Path) -> None:
    """A manifest of another registry is refused, also when the same key signed it."""
    made = await parts.backup()
    (tmp_path / "elsewhere").mkdir()
    stranger = make_parts(tmp_path / "elsewhere", recipients=parts.recipients)
    stranger.registry.cluster_id = "another-registry"
    stranger.clock.move(hours=1)
    theirs = await stranger.backup()
    await parts.store.put(layout.manifest(theirs.id), stranger.path(layout.manifest(theirs.id)).read_bytes())

    listing = await parts.repository.catalog.listing()

    assert [entry.id for entry in listing.entries] == [made.id]
    assert listing.untrusted == {theirs.id}
    assert "another-registry" in listing.problems[0]


async def test_a_store_of_another_registry_takes_nothing(parts: Parts) -> None:
    """WRONG_CLUSTER before a byte is stored."""
    await parts.backup()
    stranger = again(parts)
    stranger.registry.cluster_id = "another-registry"
    before = await parts.keys("backups/")

    with pytest.raises(errors.WrongCluster):
        await stranger.backup()

    assert await parts.keys("backups/") == before


async def test_whose_repository_it_is_cannot_be_forged(parts: Parts) -> None:
    """A repository.json that nobody signed who is trusted is an error that names it, and stops backups."""
    await parts.backup()
    body = {"format": "llm-schema-registry repository/1", "cluster_id": parts.registry.cluster_id}
    await parts.store.put(layout.REPOSITORY, encode_signed("repository", body, Signer.of(b"x" * 32)))

    with pytest.raises(errors.BackupDamaged, match=r"repository\.json"):
        await again(parts).backup()


async def test_rebuild_names_everything_that_is_wrong(parts: Parts) -> None:
    """Missing objects, other sizes, missing keys, and objects of no backup are each named; the page is written."""
    made, other, third = await parts.backup(), await parts.backup(), await parts.backup()
    parts.path(made.manifest.objects[0].key).unlink()
    parts.path(other.manifest.objects[0].key).write_bytes(b"short")
    assert third.manifest.encryption is not None
    await parts.repository.keys.remove(third.manifest.encryption.key_id)
    await parts.store.put(layout.data(parts.repository.new_id(), 1), b"nobody's")

    listing, problems = await parts.repository.catalog.rebuild()

    assert len(listing.entries) == 3
    told = "\n".join(problems)
    assert f"{made.manifest.objects[0].key} is missing" in told
    assert f"{other.manifest.objects[0].key} has 5 bytes" in told
    assert f"{third.manifest.encryption.key_id} of backup {third.id} is missing" in told
    assert "belongs to no backup" in told
    assert len(problems) == 4
    page = json.loads(parts.path(layout.CATALOG).read_bytes())
    assert len(page["backups"]) == 3


@pytest.mark.regression("B8")
async def test_the_catalog_comes_back_from_the_bucket_alone(parts: Parts, fault_table: FaultTable) -> None:
    """T31: with no database and no catalog.json a new process lists every backup as it was."""
    made = [await parts.proven(), await parts.backup()]
    parts.path(layout.CATALOG).unlink()
    parts.registry.down = True

    listing, problems = await again(parts).repository.catalog.rebuild()

    assert [(entry.id, entry.level) for entry in listing.entries] == [
        (made[1].id, Level.V2),
        (made[0].id, Level.V3),
    ]
    assert not problems
    fault_table("T31", "database and catalog.json gone", "the bucket alone lists all backups with their levels")


async def test_a_wiped_bucket_starts_again(parts: Parts, fault_table: FaultTable) -> None:
    """T31: after everything was deleted the next backup is made without anybody's help."""
    await parts.backup()
    for key in [each.key async for each in parts.store.list("")]:
        await parts.store.delete(key)

    made = await parts.backup()

    assert await parts.ids() == [made.id]
    assert made.manifest.previous_sha256 is None
    fault_table("T31", "bucket wiped, database alive", "the next backup begins a new repository")


async def test_pins_come_and_go(parts: Parts) -> None:
    """A pin is an object beside the backup; both ways may be repeated."""
    made = await parts.backup(pinned=True)
    assert made.pinned

    for wanted in (True, True, False, False):
        changed = await parts.repository.catalog.pin(made.id, pinned=wanted)
        assert changed.pinned is wanted
        assert (await parts.repository.catalog.get(made.id)).pinned is wanted


async def test_a_damaged_record_of_a_verification_hides_no_other(parts: Parts) -> None:
    """Evidence that cannot be read does not count, and the rest does."""
    made = await parts.backup()
    parts.clock.move(minutes=1)
    await parts.look(made.id)
    keys = await parts.keys(layout.verifications(made.id))
    await parts.store.put(keys[-1], b"{")

    found = await parts.repository.catalog.verifications(made.id)

    assert [(each.level, each.passed) for each in found] == [(Level.V2, True)]
    assert (await parts.repository.catalog.get(made.id)).level is Level.V2
    assert keys[-1] in (await parts.repository.catalog.listing()).problems[0]
    with pytest.raises(errors.BackupDamaged, match=keys[-1]):
        await parts.repository.catalog.verification(keys[-1])


async def test_evidence_that_was_read_wrong_once_is_read_again(parts: Parts) -> None:
    """What a store returned wrongly in one answer takes no level away for ever."""
    made = await parts.backup()
    process = again(parts)
    process.plan.add("get", Flip(50))

    first = await process.repository.catalog.listing()
    second = await process.repository.catalog.listing()

    assert first.entries[0].level is Level.V0
    assert (second.entries[0].level, second.problems) == (Level.V2, ())
    assert second.entries[0].id == made.id


@pytest.mark.parametrize("remark", ["verification", "pin", "tombstone"])
@pytest.mark.parametrize("forgery", ["unsigned", "of an unknown key", "of another backup"])
async def test_what_nobody_signed_who_is_trusted_does_not_count(parts: Parts, remark: str, forgery: str) -> None:
    """T11: a forged verification proves nothing, a forged pin keeps nothing, a forged tombstone buries nothing.

    Each is told, and the real one takes its place.
    """
    made, other = await parts.backup(), await parts.backup()
    stranger = parts.repository.signer if forgery == "of another backup" else Signer.of(b"x" * 32)
    about = other.id if forgery == "of another backup" else made.id
    forged = {
        "verification": (
            layout.verification(made.id, Level.V3, NOON, passed=True),
            remarks.encode_verification(Verification(about, Level.V3, NOON, (), 1.0), stranger),
        ),
        "pin": (layout.pin(made.id), remarks.encode_pin(about, stranger)),
        "tombstone": (
            layout.tombstone(made.id),
            remarks.encode_tombstone(Tombstone(about, made.sha256, "forged"), stranger),
        ),
    }
    key, content = forged[remark]
    await parts.store.put(key, b"{}" if forgery == "unsigned" else content)

    listing = await parts.repository.catalog.listing()
    entry = listing.entry(made.id)
    assert entry is not None
    assert (entry.level, entry.pinned, entry.buried) == (Level.V2, False, None)
    assert entry == await parts.repository.catalog.get(made.id)
    assert [problem.startswith(f"{key} does not count") for problem in listing.problems] == [True]

    await parts.repository.catalog.remarks.record(Verification(made.id, Level.V3, NOON, (), 1.0))
    await parts.repository.catalog.pin(made.id, pinned=True)
    await parts.repository.catalog.remarks.bury(Tombstone(made.id, made.sha256, "real"))
    entry = await parts.repository.catalog.get(made.id)
    assert (entry.level, entry.pinned, entry.buried) == (Level.V3, True, parts.clock.now())
    assert (await parts.repository.catalog.listing()).problems == ()


async def test_remarks_of_a_key_that_is_trusted_count(parts: Parts) -> None:
    """After the signing key was changed, what the one before said still holds where that one is trusted."""
    made = await parts.proven(pinned=True)
    successor = again(parts, seed=b"y" * 32, trusted=[parts.repository.signer.verifier])

    entry = await successor.repository.catalog.get(made.id)

    assert (entry.level, entry.pinned) == (Level.V3, True)


# The chain


async def _take(parts: Parts, backup_id: str) -> None:
    """Removes all of a backup behind the service's back."""
    for prefix in (layout.backup(backup_id), layout.verifications(backup_id), layout.pin(backup_id)):
        for key in await parts.keys(prefix):
            await parts.store.delete(key)


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_backup_that_was_taken_out_silently_is_missed(
    parts: Parts, victim: int, fault_table: FaultTable
) -> None:
    """T11: what was removed from the middle, or from the beginning, without a tombstone is told, with its digest."""
    made = [await parts.backup() for _ in range(3)]
    await _take(parts, made[victim].id)

    listing = await again(parts).repository.catalog.listing()
    _, rebuilt = await again(parts).repository.catalog.rebuild()

    assert len(listing.problems) == 1
    assert made[victim].sha256.hex() in listing.problems[0]
    assert f"{made[victim + 1].id} is gone too" in listing.problems[0]
    assert rebuilt == list(listing.problems)
    fault_table("T11", f"backup {victim + 1} of 3 removed without a tombstone", "told by listing and rebuild")


async def test_a_backup_that_was_deleted_in_order_is_not_missed(parts: Parts) -> None:
    """A tombstone that is signed says so; one that is not hides nothing."""
    made = [await parts.backup() for _ in range(3)]
    await parts.prune.delete(made[1].id, dry_run=False)

    assert (await again(parts).repository.catalog.listing()).problems == ()

    await parts.store.put(layout.tombstone(made[1].id), b"{}")
    told = (await again(parts).repository.catalog.listing()).problems
    assert [made[1].sha256.hex() in problem for problem in told] == [True, False]


async def test_what_follows_a_damaged_manifest_is_not_missed(parts: Parts) -> None:
    """A manifest that cannot be read is one problem, not two."""
    made = [await parts.backup() for _ in range(3)]
    parts.flip(layout.manifest(made[1].id), 40)

    problems = (await again(parts).repository.catalog.listing()).problems

    assert [layout.manifest(made[1].id) in problem for problem in problems] == [True]


async def test_a_backup_that_was_taken_back_is_not_missed(parts: Parts, fault_table: FaultTable) -> None:
    """T17: one that another process saw, before its own process took it back, leaves a tombstone."""
    process = again(parts)

    class Sleep:
        async def reached(self, name: str) -> None:
            if name == "backup.committed":
                parts.clock.move(seconds=45)
                await process.backup()

    with pytest.raises(errors.LeaseLost):
        await again(parts, failpoints=Sleep(), owner="process-c").backup()

    listing = await again(parts).repository.catalog.listing()
    assert len(listing.entries) == 1
    assert listing.entries[0].manifest.previous_sha256 is not None
    assert listing.problems == ()
    fault_table("T17", "taken back after another backup named it", "a tombstone says so, no problem")


async def test_evidence_of_a_failure_is_kept(parts: Parts) -> None:
    """A verification that found damage is read back with its problems."""
    made = await parts.backup()
    failed = Verification(made.id, Level.V3, NOON + timedelta(seconds=1), ("part 3 is wrong",), 1.5)
    parts.clock.move(seconds=1)
    key = await parts.repository.catalog.record(failed)

    assert await parts.repository.catalog.verification(key) == failed


# The run of a backup


async def test_a_slot_has_one_backup(parts: Parts, fault_table: FaultTable) -> None:
    """T17: two processes that make the same slot's backup make one."""
    first = await parts.backup(Kind.HOURLY, slot=NOON)
    second = await again(parts).backup(Kind.HOURLY, slot=NOON)

    assert first.id == second.id
    fault_table("T17", "two processes make one slot's backup", "one backup, both say so")


async def test_backup_ids_grow_although_the_clock_went_back(parts: Parts, fault_table: FaultTable) -> None:
    """T24: the newest backup is the one that was made last, whatever the clock said."""
    first = await parts.backup()
    parts.clock.time -= timedelta(hours=5)
    second = await parts.backup()

    assert second.id > first.id
    assert second.manifest.previous_sha256 == first.sha256
    fault_table("T24", "clock 5 h back between two backups", "ids keep their order")


@pytest.mark.parametrize("days", [1, -1])
async def test_a_wrong_clock_makes_no_backup(parts: Parts, days: int, fault_table: FaultTable) -> None:
    """T24: a machine whose clock is far from the store's is told so, and nothing is dated wrongly."""
    stopped = parts.clock.now()
    process = make_parts(parts.folder.parent, recipients=parts.recipients, registry=parts.registry)
    process.repository.store._inner._clock = lambda: stopped  # type: ignore[attr-defined]
    process.clock.move(days=days)

    with pytest.raises(errors.BackupFailed, match="clock of this machine"):
        await process.backup()

    assert await parts.ids() == []
    fault_table("T24", f"machine's clock {days:+d} day against the store's", "BACKUP_FAILED names the clock")


async def test_a_dump_that_fails_leaves_nothing(parts: Parts, fault_table: FaultTable) -> None:
    """T12: objects, key and pin of a run that failed are removed, and the next one succeeds."""
    kept = await parts.backup()
    before = await parts.keys()
    parts.registry.dump_error = errors.BackupFailed("pg_dump ended with status 1")

    with pytest.raises(errors.BackupFailed):
        await parts.backup(pinned=True)

    assert await parts.keys() == before
    parts.registry.dump_error = None
    assert (await parts.backup()).manifest.previous_sha256 == kept.sha256
    fault_table("T12", "pg_dump fails after its last byte", "nothing stored stays, the next run succeeds")


async def test_an_empty_dump_is_no_backup(parts: Parts) -> None:
    """A dump too small for a registry is refused."""
    parts.registry.dump_bytes = 100

    with pytest.raises(errors.BackupFailed, match="100 bytes"):
        await parts.backup()

    assert await parts.ids() == []


async def test_a_loss_of_versions_stops_the_schedule_until_somebody_looks(parts: Parts) -> None:
    """A scheduled backup of far fewer versions is refused; one by hand is made, and the schedule goes on."""
    await parts.backup(Kind.HOURLY, slot=NOON)
    parts.registry.put_back(4)

    with pytest.raises(errors.BackupFailed, match="looks like a loss"):
        await parts.backup(Kind.HOURLY, slot=NOON + timedelta(hours=1))
    await parts.backup(Kind.MANUAL)
    made = await parts.backup(Kind.HOURLY, slot=NOON + timedelta(hours=2))

    assert made.manifest.facts.rows("versions") == 4


async def test_the_manifest_is_refused_to_a_stale_generation(parts: Parts, fault_table: FaultTable) -> None:
    """T17: a process whose lease ran out during its dump commits nothing."""

    class Sleep:
        async def reached(self, name: str) -> None:
            if name == "backup.before_commit":
                parts.clock.move(seconds=45)

    with pytest.raises(errors.LeaseLost):
        await again(parts, failpoints=Sleep()).backup()

    assert await parts.ids() == []
    assert await parts.keys("backups/") == []
    fault_table("T17", "lease runs out before the commit", "LEASE_LOST, nothing listed, data removed")


async def test_who_slept_through_the_commit_takes_it_back(parts: Parts, fault_table: FaultTable) -> None:
    """T17: a process that wakes up after its manifest was written removes it again."""

    class Sleep:
        async def reached(self, name: str) -> None:
            if name == "backup.committed":
                parts.clock.move(seconds=45)

    with pytest.raises(errors.LeaseLost):
        await again(parts, failpoints=Sleep()).backup()

    assert await parts.keys("backups/") == []
    fault_table("T17", "lease runs out within the commit", "LEASE_LOST, the manifest is taken back")


@pytest.mark.parametrize("method", ["put", "upload", "write", "complete", "head", "read", "list", "get"])
@pytest.mark.parametrize("denied", [False, True])
async def test_a_store_that_fails_fails_the_run_and_not_the_next(
    parts: Parts, method: str, denied: bool, fault_table: FaultTable
) -> None:
    """T5, T20: whichever call fails, and however often, what is listed is whole, and the next run succeeds."""
    await parts.proven()
    error: errors.Error = errors.ObjectStoreDenied("denied") if denied else DOWN
    outcomes = []
    for number in range(8):
        fault = Raise(error) if number % 2 else RaiseAfter(error)
        parts.plan.add(method, *[None] * number, fault)  # type: ignore[arg-type]
        try:
            await parts.backup()
            outcomes.append("made")
        except (errors.ObjectStoreUnavailable, errors.ObjectStoreDenied) as failed:
            outcomes.append(failed.reason)
        parts.plan._faults.clear()
        parts.clock.move(minutes=1)

    listing = await again(parts).repository.catalog.listing()
    assert not listing.problems
    for entry in listing.entries:
        assert (await parts.verify.verify(entry.id, Level.V3, parts.running())).passed
    assert (await parts.backup()).level is Level.V2
    name = "AccessDenied" if denied else "no answer"
    failed_runs = sum(outcome != "made" for outcome in outcomes)
    fault_table("T20" if denied else "T5", f"{name} on {method}", f"{failed_runs} of 8 runs failed, all listed whole")


async def test_a_store_that_is_gone_during_the_cleaning_is_swept_later(parts: Parts, fault_table: FaultTable) -> None:
    """T20: what cannot be removed after a failed run is no backup, and the retention of the next day removes it."""
    kept = await parts.proven()
    parts.registry.dump_bytes = 3_000_000
    parts.registry.dump_error = errors.BackupFailed("pg_dump ended with status 1")
    parts.plan.add("delete", *[Raise(errors.ObjectStoreDenied("no right to delete"))] * 20)
    with pytest.raises(errors.BackupFailed):
        await parts.backup()
    parts.plan._faults.clear()
    parts.registry.dump_error = None
    left = await parts.keys("backups/")
    assert await parts.ids() == [kept.id]

    parts.clock.move(hours=25)
    await parts.prune.apply()

    assert len(await parts.keys("backups/")) < len(left)
    assert {layout.backup_of(key) for key in await parts.keys("backups/")} == {kept.id}
    assert len({key.split("/")[1] for key in await parts.keys("keys/")}) == 1
    fault_table("T20", "AccessDenied on every delete of the cleaning", "not listed; swept with its key a day later")


async def test_a_backup_without_keys_is_made_and_said_to_be(tmp_path: Path) -> None:
    """Without recipients a backup is not sealed, and its manifest says so."""
    parts = make_parts(tmp_path, recipients=(), rules=BackupRules("1.0", compression="gzip"))
    parts.registry.write(3)

    made = await parts.proven()

    assert made.manifest.encryption is None
    assert made.level is Level.V3
