"""Backups without the service and without the database: `python -m services.backup …` on what a disaster left over."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from deploy.local.launcher import prepare_database
from deploy.local.postgres import Install
from llm_schema_registry import errors
from llm_schema_registry.backup.v1 import backup_pb2, backup_service_pb2, backup_service_pb2_grpc
from llm_schema_registry.operation.v1 import operation_service_pb2, operation_service_pb2_grpc
from llm_schema_registry.operations import keys
from llm_schema_registry.registry.v1 import schema_service_pb2, schema_service_pb2_grpc
from services.backup import offline
from services.backup.adapters.recipients import generate_key_file, load_recipient, load_verifier
from services.backup.domain import layout
from tests.fix_backup import BlockingSchemas, backup_environment, fill
from tests.fix_postgres import FAST, OwnPostgres
from tests.fix_service import ROOT, MakeService, Service, environment

RUN_SECONDS_MAX = 110
ROLE = "registry"
BEFORE, LATER, TAIL, LOST = 5, 3, 2, 2
"""Schemas registered before the first backup, before the second, after it, and after the archive's end."""
ARCHIVED = BEFORE + LATER + TAIL


@dataclass(frozen=True, slots=True)
class Result:
    """What a command left: its exit status, its JSON lines, its notes."""

    status: int
    lines: list[dict[str, Any]]
    notes: str
    output: str


@dataclass(slots=True)
class Disaster:
    """A bucket and keys; the database is gone. backups: ids, oldest first."""

    store: Path
    keys: Path
    backups: list[str]
    options: dict[str, object] = field(default_factory=dict)

    def environment(self, url: str = "") -> dict[str, str]:
        """Of a command, with what the interpreter needs."""
        paths = {
            "backup__directory": self.store,
            "backup__signing_key_path": self.keys / "signing.pem",
            "backup__key_paths": self.keys / "recipient.key",
        }
        given = backup_environment(url, {**paths, **self.options})
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SCHEMA_REGISTRY")}
        return {**kept, **given, "PYTHONPATH": os.pathsep.join([str(ROOT / "shared"), str(ROOT)])}

    def launch(self, *arguments: str, url: str = "", failpoints: str = "") -> subprocess.Popen[str]:
        """Starts a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "services.backup", *arguments],
            cwd=ROOT,
            env={**self.environment(url), "LLMSR_FAILPOINTS": failpoints},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, url: str = "", failpoints: str = "") -> Result:
        """Runs a command to its end."""
        return ended(self.launch(*arguments, url=url, failpoints=failpoints))

    def data(self, backup_id: str) -> Path:
        """The file of a backup's data."""
        return self.store / layout.data(backup_id, 1)


def ended(process: subprocess.Popen[str]) -> Result:
    """What a command left, once it has ended."""
    try:
        said, notes = process.communicate(timeout=RUN_SECONDS_MAX)
    finally:
        process.kill()
    assert "Traceback" not in notes, notes
    return Result(process.returncode, [json.loads(line) for line in said.splitlines()], notes, said + notes)


def backed_up(service: Service) -> str:
    """The id of a new backup."""
    with grpc.insecure_channel(service.target) as channel:
        answer = backup_service_pb2_grpc.BackupServiceStub(channel).CreateBackup(
            backup_service_pb2.CreateBackupRequest()
        )
        request = operation_service_pb2.WatchOperationRequest(name=answer.operation.name)
        made = backup_pb2.Backup()
        for response in operation_service_pb2_grpc.OperationServiceStub(channel).WatchOperation(request, timeout=60):
            if response.event.WhichOneof("event") == "ended":
                assert response.event.ended.response.Unpack(made), response
    return made.id


@pytest.fixture(scope="module")
def left_over(
    tmp_path_factory: pytest.TempPathFactory, postgres_install: Install, postgres_cluster: Path
) -> Iterator[Disaster]:
    """Two backups and an archive of a registry whose server is no more. Do not change it: take `disaster`."""
    folder = tmp_path_factory.mktemp("disaster")
    shutil.copytree(postgres_cluster, folder / "server")
    server = OwnPostgres(folder / "server", install=postgres_install, options=FAST)
    server.start()
    url = prepare_database(server, "old-password")
    assert offline.main(["keygen", str(folder / "keys")]) == 0
    left = Disaster(folder / "store", folder / "keys", [])
    both = f"{left.keys / 'recipient.key'}:{left.keys / 'offline.pub.pem'}"
    recipients = {"SCHEMA_REGISTRY__BACKUP__KEY_PATHS": both}
    (folder / "registry").mkdir()
    (folder / "backup").mkdir()
    registry = Service(folder / "registry", environment(url, None, {}))
    backup = Service(folder / "backup", left.environment(url) | recipients, "backup")
    try:
        registry.start()
        backup.start()
        fill(registry, "before", BEFORE)
        left.backups.append(backed_up(backup))
        fill(registry, "later", LATER)
        left.backups.append(backed_up(backup))
        fill(registry, "tail", TAIL)
        assert backup.stop() == 0, backup.log
        fill(registry, "lost", LOST)
        assert registry.stop() == 0, registry.log
    finally:
        for service in (backup, registry):
            service.kill()
        server.stop()
    shutil.rmtree(folder / "server")
    yield left
    shutil.rmtree(folder)


@pytest.fixture
def disaster(left_over: Disaster, tmp_path: Path) -> Disaster:
    """What is left over of a registry, for a test to use and to damage."""
    shutil.copytree(left_over.store, tmp_path / "store")
    shutil.copytree(left_over.keys, tmp_path / "keys")
    return Disaster(tmp_path / "store", tmp_path / "keys", list(left_over.backups))


@dataclass(frozen=True, slots=True)
class Fresh:
    """A server that has never seen the registry: a role that may create databases and log in, nothing else."""

    server: OwnPostgres
    password: str

    @property
    def url(self) -> str:
        """Of the database that is to be."""
        return self.server.database_url(ROLE, role=ROLE, password=self.password)

    def databases(self) -> list[str]:
        """Names of the databases that a restore has made."""
        with psycopg.connect(self.server.url) as connection:
            found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'registry%' ORDER BY 1")
            return [name for (name,) in found.fetchall()]


@pytest.fixture
def fresh(own_postgres: Callable[..., OwnPostgres]) -> Fresh:
    """A fresh server of the test's own."""
    made = Fresh(own_postgres(), secrets.token_hex(12))
    with psycopg.connect(made.server.url, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{made.password}'".encode())
    return made


def subjects(registry: Service) -> dict[int, str]:
    """Texts of the archived schemas, by id."""
    with grpc.insecure_channel(registry.target) as channel:
        stub = schema_service_pb2_grpc.SchemaServiceStub(channel)
        return {
            number: stub.GetSchema(schema_service_pb2.GetSchemaRequest(id=number), timeout=30).schema.text
            for number in range(1, ARCHIVED + 1)
        }


def flip(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


# Reading


def test_list_verify_and_rebuild_need_no_database(disaster: Disaster) -> None:
    """With bucket and keys alone every backup is listed, newest first, read whole, and the catalog written anew."""
    (disaster.store / layout.CATALOG).unlink()

    listed = disaster.run("list")
    verified = disaster.run("verify", disaster.backups[0])
    rebuilt = disaster.run("rebuild-catalog")

    assert listed.status == verified.status == rebuilt.status == 0, listed.notes + verified.notes + rebuilt.notes
    assert [line["id"] for line in listed.lines] == disaster.backups[::-1]
    assert [line["versions"] for line in listed.lines] == [BEFORE + LATER, BEFORE]
    assert verified.lines == [{"backup_id": disaster.backups[0], "level": "V3", "passed": True, "problems": []}]
    assert rebuilt.lines == [{"backups": 2, "problems": []}]
    assert [each["id"] for each in json.loads((disaster.store / layout.CATALOG).read_text())["backups"]] == (
        disaster.backups[::-1]
    )


def test_damage_is_told_by_the_exit_status(disaster: Disaster) -> None:
    """A flipped bit, and a manifest that cannot be trusted: exit status 1, and the object is named."""
    damaged, other = disaster.backups
    flip(disaster.data(damaged))
    manifest = disaster.store / layout.manifest(other)
    manifest.chmod(0o600)
    manifest.write_text(manifest.read_text().replace('"MANUAL"', '"DAILY"').replace('"manual"', '"daily"'))

    verified = disaster.run("verify", damaged)
    listed = disaster.run("list")

    assert (verified.status, verified.lines[0]["passed"]) == (1, False)
    assert layout.data(damaged, 1) in verified.lines[0]["problems"][0]
    assert listed.status == 1
    assert [line["id"] for line in listed.lines] == [damaged]
    assert layout.manifest(other) in listed.notes


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["verify", "no-id"], "must be a backup's id"),
        (["restore", "--time", "yesterday"], "must be a time such as"),
        (["restore", "--place", "340"], "must be EPOCH/POSITION"),
        (["restore"], "one of the arguments"),
        (["restore", "--latest"], "database.url: required"),
    ],
)
def test_wrong_arguments_end_with_2(
    disaster: Disaster, arguments: Sequence[str], told: str, capfd: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    """What is wrong with the arguments or the settings is named, and the exit status is 2."""
    for name, value in disaster.environment().items():
        monkeypatch.setenv(name, value)

    try:
        status: Any = offline.main(arguments)
    except SystemExit as ending:
        status = ending.code

    assert status == 2
    assert told in capfd.readouterr().err


def test_keys_that_cannot_be_used_end_with_2(disaster: Disaster) -> None:
    """A key file that holds no key is named."""
    (disaster.keys / "recipient.key").write_text("not a key")

    result = disaster.run("list")

    assert result.status == 2
    assert "recipient.key cannot be used" in result.notes


def test_an_unreachable_store_ends_with_3(disaster: Disaster) -> None:
    """A store that cannot be read is no empty one."""
    shutil.rmtree(disaster.store)
    disaster.store.symlink_to(disaster.store)

    result = disaster.run("list")

    assert (result.status, result.lines[0]["reason"]) == (3, errors.ObjectStoreUnavailable.reason)


# Restoring


def test_restore_onto_a_fresh_server(
    disaster: Disaster, fresh: Fresh, make_service: MakeService, tmp_path: Path, postgres_install: Install
) -> None:
    """A server with the role alone gets the whole registry: every archived id leads to its content, no id that was
    ever given is given again, and the password shows nowhere."""
    disaster.options["backup__tool_folders"] = watched_programs(tmp_path / "programs", postgres_install)

    restored = disaster.run("restore", "--latest", url=fresh.url)

    assert restored.status == 0, restored.output
    assert restored.lines[-1]["state"] == "active"
    assert restored.lines[-1]["place"] == f"1/{ARCHIVED}"
    assert fresh.databases() == [ROLE]
    assert fresh.password not in restored.output
    assert "pg_restore" in (tmp_path / "programs" / "log").read_text()
    assert fresh.password not in (tmp_path / "programs" / "log").read_text()
    registry = make_service(fresh.url)
    registry.start()
    texts = subjects(registry)
    assert [json.loads(text)["title"].split()[0] for text in texts.values()] == (
        ["before"] * BEFORE + ["later"] * LATER + ["tail"] * TAIL
    )
    with BlockingSchemas(registry.target) as schemas:
        assert schemas.register("new", '{"title": "new"}') > ARCHIVED + LOST


def test_a_bucket_and_what_was_taken_away_restore(
    disaster: Disaster, fresh: Fresh, make_service: MakeService, tmp_path: Path
) -> None:
    """On a new machine that has the bucket, the offline key and the public signing key, and nothing else of before,
    everything is read, verified and restored; a new signing key signs from there on."""
    away = tmp_path / "away"
    away.mkdir()
    for name in ("offline.pem", "signing.pub.pem"):
        (disaster.keys / name).rename(away / name)
    shutil.rmtree(disaster.keys)
    disaster.options = {
        "backup__signing_key_path": "",
        "backup__trusted_key_paths": away / "signing.pub.pem",
        "backup__key_paths": away / "offline.pem",
    }
    before = {path for path in disaster.store.rglob("*.json") if "verifications" in path.parts}
    read = [disaster.run(*each) for each in (["list"], ["rebuild-catalog"], ["verify", disaster.backups[0]])]
    refused = disaster.run("restore", "--latest", url=fresh.url)
    assert offline.main(["keygen", str(tmp_path / "new")]) == 0
    disaster.options["backup__signing_key_path"] = tmp_path / "new" / "signing.pem"

    restored = disaster.run("restore", "--latest", url=fresh.url)

    assert [each.status for each in read] == [0, 0, 0], [each.output for each in read]
    assert read[2].lines[0]["passed"]
    assert {path for path in disaster.store.rglob("*.json") if "verifications" in path.parts} == before
    assert (refused.status, "keygen" in refused.notes) == (2, True)
    assert restored.status == 0, restored.output
    registry = make_service(fresh.url)
    registry.start()
    assert len(subjects(registry)) == ARCHIVED


def test_without_the_public_key_that_signed_nothing_is_trusted(disaster: Disaster, tmp_path: Path) -> None:
    """With a new signing key alone every manifest is refused, and the settings without any key are."""
    assert offline.main(["keygen", str(tmp_path / "new")]) == 0
    disaster.options["backup__signing_key_path"] = tmp_path / "new" / "signing.pem"
    strange = disaster.run("list")
    disaster.options["backup__signing_key_path"] = ""
    without = disaster.run("list")

    assert (strange.status, strange.lines) == (1, [])
    assert (without.status, "backup.signing_key_path" in without.notes) == (2, True), without.notes


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_restore_over_a_live_registry(disaster: Disaster, fresh: Fresh, make_service: MakeService) -> None:
    """What the database has and a backup has not must be given up in so many words: without them nothing changes, with
    them what was prepared is used."""
    restored = disaster.run("restore", "--latest", url=fresh.url)
    assert restored.status == 0, restored.output
    registry = make_service(fresh.url)
    registry.start()
    with BlockingSchemas(registry.target) as schemas:
        schemas.register("new", '{"title": "new"}')
    texts = subjects(registry)

    refused = disaster.run("restore", "--backup", disaster.backups[0], url=fresh.url)

    assert (refused.status, refused.lines[-1]["reason"]) == (1, errors.LossWindowChanged.reason)
    confirmation = refused.lines[-1]["metadata"]["confirmation"]
    assert confirmation in refused.lines[-1]["error"]
    assert subjects(registry) == texts

    confirmed = disaster.run("restore", "--backup", disaster.backups[0], "--confirm", confirmation, url=fresh.url)

    assert confirmed.status == 0, confirmed.output
    assert confirmed.lines[-1]["restore_id"] == refused.lines[0]["restore_id"], "what was prepared is used"
    assert confirmed.lines[-1]["place"] == f"1/{BEFORE}"
    assert confirmed.lines[-1]["next_schema_id"] > restored.lines[-1]["next_schema_id"]


def watched_programs(folder: Path, install: Install) -> Path:
    """A folder with client programs that write their command lines to `log`."""
    folder.mkdir()
    for name in ("pg_dump", "pg_restore", "psql"):
        script = f'#!/bin/sh\necho "{name} $*" >> "{folder}/log"\nexec "{install.bin / name}" "$@"\n'
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    return folder


def test_a_wrong_key_restores_nothing(disaster: Disaster, fresh: Fresh) -> None:
    """With another key than the data was sealed for nothing reaches the server; the recipients are named."""
    names = [load_recipient(disaster.keys / "recipient.key").recipient.name]
    (disaster.keys / "recipient.key").unlink()
    generate_key_file(disaster.keys / "recipient.key")

    result = disaster.run("restore", "--latest", url=fresh.url)

    assert (result.status, result.lines[-1]["reason"]) == (1, errors.KeyUnavailable.reason)
    assert all(name in result.lines[-1]["error"] for name in names)
    assert fresh.databases() == []


def test_a_damaged_object_restores_nothing(disaster: Disaster, fresh: Fresh) -> None:
    """A flipped bit ends the restore, which names the object, and the server is as it was."""
    damaged = disaster.backups[1]
    flip(disaster.data(damaged))

    refused = disaster.run("restore", "--latest", url=fresh.url)

    assert (refused.status, refused.lines[-1]["reason"]) == (1, errors.BackupDamaged.reason)
    assert layout.data(damaged, 1) in refused.lines[-1]["error"]
    assert fresh.databases() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_older_backup_alone_leads_as_far(disaster: Disaster, fresh: Fresh) -> None:
    """Without the newest backup the one before it and the archive lead to the same place."""
    (disaster.store / layout.manifest(disaster.backups[1])).unlink()

    restored = disaster.run("restore", "--latest", url=fresh.url)

    assert restored.status == 0, restored.output
    assert (restored.lines[-1]["backup_id"], restored.lines[-1]["place"]) == (disaster.backups[0], f"1/{ARCHIVED}")


@pytest.mark.slow
@pytest.mark.rotating(2)
@pytest.mark.parametrize("point", ["place.restored", "journaled.activating", "swap.renamed"])
def test_a_killed_restore_is_ended_by_the_next_run(disaster: Disaster, fresh: Fresh, point: str) -> None:
    """kill -9 in the middle of a restore: the same command again leads to the end, and nothing is left over."""
    killed = disaster.run("restore", "--latest", url=fresh.url, failpoints=f"{point}:kill")
    # As it is half a minute later, when the lease of a process that is gone has expired.
    (disaster.store / keys.lease("restore")).unlink()

    again = disaster.run("restore", "--latest", url=fresh.url)

    assert killed.status == -signal.SIGKILL
    assert again.status == 0, again.output
    assert (again.lines[-1]["state"], again.lines[-1]["place"]) == ("active", f"1/{ARCHIVED}")
    assert fresh.databases() == [ROLE]


def test_an_interrupted_restore_is_undone(disaster: Disaster, fresh: Fresh) -> None:
    """SIGTERM in the middle of a restore: what was begun is dropped, and the exit status names the signal."""
    process = disaster.launch("restore", "--latest", url=fresh.url, failpoints="place.created:pause:600")
    end = time.monotonic() + RUN_SECONDS_MAX
    while not fresh.databases():
        assert process.poll() is None, ended(process).output
        assert time.monotonic() < end, "the restore did not begin"
        time.sleep(0.02)

    process.send_signal(signal.SIGTERM)
    result = ended(process)

    assert result.status == 128 + signal.SIGTERM, result.output
    assert fresh.databases() == []


def test_an_unreachable_database_ends_with_3(disaster: Disaster, fresh: Fresh) -> None:
    """A restore without a server changes nothing and says so."""
    fresh.server.stop()

    result = disaster.run("restore", "--latest", url=fresh.url)

    assert (result.status, result.lines[-1]["reason"]) == (3, errors.DatabaseUnavailable.reason)
    assert fresh.password not in result.output


# Keys


def test_new_keys(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A signing pair, a key file and an offline pair, each readable to its owner alone, and all of use."""
    folder = tmp_path / "new" / "keys"

    status = offline.main(["keygen", str(folder)])

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    said = json.loads(capfd.readouterr().out)
    assert (status, said["folder"]) == (0, str(folder))
    assert all(name in said["take_away"] for name in ("offline.pem", "signing.pub.pem"))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {modes.pop("signing.pub.pem"), modes.pop("offline.pub.pem")} == {0o644}
    assert modes == {"signing.pem": 0o600, "recipient.key": 0o600, "offline.pem": 0o600}
    assert [load_recipient(folder / name).recipient.opens for name in ("offline.pem", "offline.pub.pem")] == [
        True,
        False,
    ]


def test_keys_stay(tmp_path: Path) -> None:
    """A second keygen changes no key; one whose private half was taken away stays too."""
    offline.main(["keygen", str(tmp_path)])
    (tmp_path / "offline.pem").unlink()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    assert offline.main(["keygen", str(tmp_path)]) == 0

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("pair", "load"), [("signing", load_verifier), ("offline", load_recipient)])
def test_a_half_finished_keygen_is_finished(tmp_path: Path, pair: str, load: Callable[[Path], Any]) -> None:
    """A run that ended between the halves of a pair, and left its unfinished files: the public half is made from the
    private one, which stays."""
    offline.main(["keygen", str(tmp_path)])
    private, public = tmp_path / f"{pair}.pem", tmp_path / f"{pair}.pub.pem"
    before = private.read_bytes(), public.read_bytes()
    public.unlink()
    (tmp_path / f"{offline.UNFINISHED}x").mkdir()

    assert offline.main(["keygen", str(tmp_path)]) == 0

    assert (private.read_bytes(), public.read_bytes()) == before
    assert load(public)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_keygen_says_why_not(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A folder that cannot be made is told in words."""
    (tmp_path / "file").write_text("")

    status = offline.main(["keygen", str(tmp_path / "file")])

    assert status == 1
    assert f"no keys can be made in {tmp_path / 'file'}: File exists" in capfd.readouterr().err
