"""`llmsr schema` against a real registry: what is written where, and the exit status."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fix_cli import Run

Name = Callable[..., str]
Write = Callable[[str, object], str]

ORDER = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
STRICTER = {**ORDER, "required": ["id", "total"]}
USER_AVRO = {"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}]}
SHOP_PROTO = 'syntax = "proto3";\npackage shop;\nmessage Order { string id = 1; }\n'


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file and returns its path; what is not text is written as JSON."""

    def write(name: str, content: object) -> str:
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return str(path)

    return write


@pytest.fixture
def orders(llmsr: Run, write: Write, name: Name) -> str:
    """A subject with ORDER as its version 1."""
    subject = name("orders")
    assert llmsr("schema", "register", subject, write("order.json", ORDER)).status == 0
    return subject


def test_register_tells_what_was_made(llmsr: Run, write: Write, name: Name) -> None:
    """A registration names subject, version, id and state; the same again finds that version."""
    subject, file = name(), write("order.json", ORDER)

    first = llmsr("schema", "register", subject, file)
    second = llmsr("schema", "register", subject, file)

    assert (first.status, first.stderr) == (0, "")
    assert first.stdout.startswith(f"Registered {subject} version 1, id ")
    assert second.stdout == first.stdout.replace("Registered", "Found")


def test_register_as_json_is_the_response(llmsr: Run, write: Write, name: Name) -> None:
    """JSON output is RegisterSchemaResponse with the protos' field names, everything that was given in it."""
    subject, file = name(), write("order.json", ORDER)
    given = ["--description", "Orders", "--owner", "red", "--tag", "b", "--tag", "a", "--metadata", "cost=a=b"]

    ran = llmsr("schema", "register", subject, file, *given, "--draft", "--output", "json")

    assert ran.status == 0
    version = ran.document["version"]
    assert ran.document["created"] is True
    assert (version["subject"], version["number"], version["state"]) == (subject, 1, "VERSION_STATE_DRAFT")
    assert (version["description"], version["owner"], version["tags"]) == ("Orders", "red", ["a", "b"])
    assert version["metadata"] == {"cost": "a=b"}
    assert json.loads(ran.document["schema"]["text"]) == ORDER


def test_register_reads_standard_input(llmsr_process: Run, name: Name) -> None:
    """`-` is standard input, and then the language is said."""
    ran = llmsr_process("schema", "register", name(), "-", "--format", "json", given=json.dumps(ORDER).encode())

    assert (ran.status, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [("u.avsc", USER_AVRO, "SCHEMA_FORMAT_AVRO"), ("s.proto", SHOP_PROTO, "SCHEMA_FORMAT_PROTOBUF")],
)
def test_the_name_of_a_file_tells_the_language(
    llmsr: Run, write: Write, name: Name, file: str, content: object, told: str
) -> None:
    """`.avsc` is Avro, `.proto` is Protobuf."""
    ran = llmsr("schema", "register", name(), write(file, content), "--output", "json")

    assert ran.document["schema"]["format"] == told


def test_references_are_taken(llmsr: Run, write: Write, orders: str, name: Name) -> None:
    """`--reference NAME=SUBJECT:VERSION` says what a name in the schema stands for."""
    file = write("list.json", {"type": "array", "items": {"$ref": "order.json"}})

    ran = llmsr("schema", "register", name(), file, "--reference", f"order.json={orders}:1", "--output", "json")

    assert ran.document["schema"]["references"] == [{"name": "order.json", "subject": orders, "version": 1}]


def test_an_incompatible_schema_is_refused(llmsr: Run, write: Write, orders: str) -> None:
    """A refusal is status 1 and a paragraph with the reason on standard error."""
    ran = llmsr("schema", "register", orders, write("stricter.json", STRICTER))

    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr.startswith("Error: ")
    assert "Reason: INCOMPATIBLE_SCHEMA" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_refusal_as_json(llmsr: Run, write: Write, orders: str) -> None:
    """With JSON output the error is one document on standard error and standard output stays empty."""
    ran = llmsr("schema", "register", orders, write("stricter.json", STRICTER), "--output", "json")

    assert ran.status == 1
    assert (ran.error["reason"], ran.error["code"]) == ("INCOMPATIBLE_SCHEMA", "FAILED_PRECONDITION")


def test_fields_at_fault_are_named(llmsr: Run, write: Write) -> None:
    """The fields that the service refuses are listed, for people and for programs."""
    arguments = ["schema", "register", " spaces ", write("order.json", ORDER)]

    human, machine = llmsr(*arguments), llmsr(*arguments, "--output=json")

    assert (human.status, machine.status) == (1, 1)
    assert [one["field"] for one in machine.error["violations"]] == ["subject"]
    assert "subject: " in human.stderr


def test_validate_only_writes_nothing(llmsr: Run, write: Write, orders: str) -> None:
    """`--validate-only` tells the verdict, with status 1 for one that would be refused, and registers nothing."""
    fine = llmsr("schema", "register", orders, write("order.json", ORDER), "--validate-only")
    bad = llmsr("schema", "register", orders, write("stricter.json", STRICTER), "--validate-only")
    bad_json = llmsr(
        "schema", "register", orders, write("stricter.json", STRICTER), "--validate-only", "--output", "json"
    )

    assert (fine.status, bad.status, bad_json.status) == (0, 1, 1)
    assert "The subject has it already." in fine.stdout
    assert bad.stdout.startswith("INCOMPATIBLE")
    assert bad_json.document["report"]["verdict"] == "VERDICT_INCOMPATIBLE"
    assert len(llmsr("schema", "list", orders, "--output", "json").document["versions"]) == 1


def test_a_request_id_is_used(llmsr: Run, write: Write, name: Name) -> None:
    """The same request id with another request is refused by the service."""
    subject, other, token = name(), name(), name("request")
    llmsr("schema", "register", subject, write("order.json", ORDER), "--request-id", token)

    ran = llmsr("schema", "register", other, write("order.json", ORDER), "--request-id", token, "--output", "json")

    assert ran.error["reason"] == "REQUEST_ID_REUSED"


def test_get_shows_a_version(llmsr: Run, orders: str) -> None:
    """People see facts line by line and the text, programs GetVersionResponse."""
    human, machine = (
        llmsr("schema", "get", orders),
        llmsr("schema", "get", orders, "--version", "1", "--output", "json"),
    )

    facts = dict(line.split(maxsplit=1) for line in human.stdout.partition("\n\n")[0].splitlines())
    assert (facts["subject"], facts["version"], facts["state"], facts["format"]) == (orders, "1", "ACTIVE", "JSON")
    assert json.loads(human.stdout.partition("\n\n")[2]) == ORDER
    assert sorted(machine.document) == ["schema", "version"]
    assert str(machine.document["version"]["schema_id"]) == facts["id"]


def test_get_by_id_gives_the_text_byte_for_byte(llmsr: Run, write: Write, name: Name) -> None:
    """`--text` writes what was registered, not a byte more."""
    text = f'{{ "title":"{name()} é",\n  "type": "object"}}  \n'
    made = llmsr("schema", "register", name(), write("order.json", text), "--output", "json").document

    by_id = llmsr("schema", "get", "--id", str(made["schema"]["id"]), "--text")
    shown = llmsr("schema", "get", "--id", str(made["schema"]["id"]), "--output", "json")

    assert by_id.stdout == text
    assert shown.document == {"schema": made["schema"]}


def test_get_of_nothing_is_refused(llmsr: Run, name: Name) -> None:
    """A subject that does not exist is status 1 with its reason."""
    ran = llmsr("schema", "get", name(), "--output", "json")

    assert (ran.status, ran.error["reason"]) == (1, "SUBJECT_NOT_FOUND")


def test_list_has_every_page(llmsr: Run, write: Write, name: Name) -> None:
    """More versions than a page holds are listed in order, up to the limit, whose token goes on."""
    subject = name("many")
    for number in range(1, 6):
        llmsr("schema", "register", subject, write("order.json", {"title": f"{subject} {number}"}))

    everything = llmsr("schema", "list", subject, "--output", "json").document
    cut = llmsr("schema", "list", subject, "--limit", "3", "--output", "json").document
    rest = llmsr("schema", "list", subject, "--output", "json", "--page-token", cut["next_page_token"]).document

    assert everything["next_page_token"] == ""
    assert [one["number"] for one in everything["versions"]] == [1, 2, 3, 4, 5]
    assert [one["number"] for one in cut["versions"] + rest["versions"]] == [1, 2, 3, 4, 5]


def test_a_cut_list_says_so(llmsr: Run, write: Write, name: Name) -> None:
    """People are told on standard error that there is more; standard output holds the rows alone."""
    subject = name()
    for number in (1, 2):
        llmsr("schema", "register", f"{subject}-{number}", write("order.json", ORDER))

    ran = llmsr("schema", "list", "--prefix", subject, "--limit", "1")

    assert len(ran.stdout.splitlines()) == 2
    assert "--page-token" in ran.stderr


def test_a_piped_table_loses_nothing(llmsr: Run, write: Write, name: Name) -> None:
    """Away from a terminal a row is a line, however wide, with no drawing, and empty cells are dashes."""
    subject = name("x" * 200)
    description = "word " * 60 + "red\tend\nlast"
    llmsr("schema", "register", subject, write("order.json", ORDER), "--description", description)

    head, row = llmsr("schema", "list", subject).stdout.splitlines()
    listed = llmsr("schema", "list", "--prefix", subject).stdout.splitlines()
    found = llmsr("schema", "search", "xx", "word").stdout.splitlines()

    assert head.split() == ["VERSION", "ID", "STATE", "CREATED", "OWNER", "TAGS", "DESCRIPTION"]
    assert row.endswith("word " * 60 + r"red\tend\nlast")
    assert row.split()[4:6] == ["-", "-"]
    assert [line.split()[0] for line in listed] == ["SUBJECT", subject]
    assert subject in [line.split()[0] for line in found]


def test_search_finds_by_words(llmsr: Run, write: Write, name: Name) -> None:
    """Words, tags and states are conditions that all must hold."""
    subject, word = name(), name("word").replace("-", "")
    llmsr("schema", "register", subject, write("order.json", ORDER), "--description", word, "--tag", "t1")

    found = llmsr("schema", "search", word, "--tag", "t1", "--state", "active", "--output", "json").document
    missed = llmsr("schema", "search", word, "--state", "draft", "--output", "json").document

    assert [one["subject"] for one in found["versions"]] == [subject]
    assert missed == {"versions": [], "next_page_token": ""}


def test_check_tells_rule_place_message_remedy_and_witness(llmsr: Run, write: Write, orders: str) -> None:
    """An incompatible candidate is status 1; every finding says what and where, and shows data that breaks."""
    file = write("stricter.json", STRICTER)

    human, machine = llmsr("schema", "check", orders, file), llmsr("schema", "check", orders, file, "--output", "json")

    assert (human.status, machine.status) == (1, 1)
    [finding] = machine.document["report"]["findings"]
    assert human.stdout.startswith("INCOMPATIBLE  level BACKWARD, policy EXACT, compared with version 1\n")
    words = " ".join(human.stdout.split())
    for part in (finding["rule"], finding["message"], finding["remedy"], finding["witness"]["text"]):
        assert part
        assert " ".join(part.split()) in words


def test_check_of_a_compatible_schema_is_fine(llmsr: Run, write: Write, orders: str) -> None:
    """A compatible candidate is status 0; the level and the policy can be chosen."""
    file = write("stricter.json", STRICTER)

    ran = llmsr("schema", "check", orders, file, "--level", "forward", "--policy", "exact")

    assert ran.status == 0, ran.stdout
    assert ran.stdout.startswith("COMPATIBLE  level FORWARD, policy EXACT")


def test_diff_tells_what_changed(llmsr: Run, write: Write, orders: str) -> None:
    """A version is compared with a file; the difference is told, status 0."""
    file = write("stricter.json", STRICTER)

    human = llmsr("schema", "diff", orders, "--from", "1", "--file", file)
    machine = llmsr("schema", "diff", orders, "--from", "1", "--file", file, "--output", "json")

    assert (human.status, machine.status) == (0, 0)
    assert machine.document["suggested_step"] == "VERSION_STEP_MAJOR"
    assert human.stdout.startswith("MAJOR  backward INCOMPATIBLE")
    assert machine.document["differences"][0]["rule"] in human.stdout


def test_diff_of_a_version_with_itself(llmsr: Run, orders: str) -> None:
    """Nothing differs."""
    ran = llmsr("schema", "diff", orders, "--from", "1")

    assert (ran.status, ran.stdout.splitlines()[-1]) == (0, "No differences.")


def test_validate_tells_each_file(llmsr: Run, write: Write, orders: str) -> None:
    """Each file has its verdict; one invalid file is status 1."""
    good, bad = write("good.json", {"id": "a"}), write("bad.json", {"id": 1})

    human = llmsr("schema", "validate", orders, good, bad)
    machine = llmsr("schema", "validate", orders, good, bad, "--output", "json")

    assert (human.status, machine.status) == (1, 1)
    assert machine.document["valid"] is False
    assert [(one["file"], one["valid"]) for one in machine.document["results"]] == [(good, True), (bad, False)]
    assert machine.document["results"][1]["errors"][0]["instance_path"] == "/id"
    assert f"{good}: valid" in human.stdout
    assert "  /id: " in human.stdout
    assert llmsr("schema", "validate", orders, good).status == 0


def test_validate_reads_frames(llmsr: Run, write: Write, orders: str) -> None:
    """`--framed-id` takes the schema that the frame names."""
    schema_id = llmsr("schema", "get", orders, "--output", "json").document["schema"]["id"]
    frame = write("frame.bin", b"\0" + struct.pack(">i", schema_id) + b'{"id": "a"}')

    ran = llmsr("schema", "validate", "--framed-id", "--encoding", "framed", frame, "--output", "json")

    assert (ran.status, ran.document["results"][0]["schema_id"]) == (0, schema_id)


def test_lines_are_checked_in_one_stream(llmsr: Run, write: Write, orders: str) -> None:
    """Each bad line is told by file and number, blank lines count but are not checked, the sum comes last."""
    lines = ['{"id": "a"}', "", '{"id": 1}', "  ", "not json", '{"id": "b"}']
    first, second = write("first.jsonl", "\n".join(lines)), write("second.jsonl", '{"id": 2}\n')

    ran = llmsr("schema", "validate", orders, first, second, "--lines", "--output", "json")

    assert ran.status == 1
    *bad, total = ran.lines
    assert [(one["file"], one["line"]) for one in bad] == [(first, 3), (first, 5), (second, 1)]
    assert total == {"summary": {"checked": 5, "valid": 2, "invalid": 3}}


def test_many_batches_keep_their_places(llmsr: Run, write: Write, orders: str) -> None:
    """With more lines than all batches on their way hold, every bad line still has its number."""
    count, bad = 12_000, {1, 999, 1000, 1001, 7777, 12_000}
    text = "\n".join('{"id": 1}' if number in bad else '{"id": "a"}' for number in range(1, count + 1))

    ran = llmsr("schema", "validate", orders, write("many.jsonl", text), "--lines", "--output", "json")

    assert {one["line"] for one in ran.lines[:-1]} == bad
    assert ran.lines[-1] == {"summary": {"checked": count, "valid": count - len(bad), "invalid": len(bad)}}


def test_lines_of_an_unknown_subject_fail(llmsr: Run, write: Write, name: Name) -> None:
    """A batch that cannot be checked ends the command with the service's reason."""
    ran = llmsr("schema", "validate", name(), write("data.jsonl", "{}\n"), "--lines", "--output", "json")

    assert (ran.status, ran.error["reason"]) == (1, "SUBJECT_NOT_FOUND")


def test_lines_of_a_missing_file_are_a_fault_of_usage(llmsr: Run, write: Write, orders: str, tmp_path: Path) -> None:
    """A file that cannot be read ends the stream, and the command with status 2."""
    ran = llmsr("schema", "validate", orders, write("data.jsonl", '{"id": "a"}\n'), str(tmp_path / "no"), "--lines")

    assert ran.status == 2
    assert "No such file" in ran.stderr


def test_delete_without_apply_changes_nothing(llmsr: Run, orders: str) -> None:
    """A dry run says what would happen and exits 0; `--apply` does it."""
    dry = llmsr("schema", "delete", orders)
    kept = llmsr("schema", "get", orders)
    done = llmsr("schema", "delete", orders, "--apply")
    gone = llmsr("schema", "get", orders)

    assert (dry.status, dry.stdout) == (0, f"Would delete version 1 of {orders}\n")
    assert "--apply" in dry.stderr
    assert (kept.status, done.status, gone.status) == (0, 0, 1)
    assert done.stdout == f"Deleted version 1 of {orders}\n"


def test_a_dry_run_tells_a_refusal(llmsr: Run, write: Write, orders: str, name: Name) -> None:
    """What others reference cannot be deleted; the dry run says so with the reason that `--apply` has."""
    file = write("list.json", {"type": "array", "items": {"$ref": "order.json"}})
    llmsr("schema", "register", name(), file, "--reference", f"order.json={orders}:1")

    dry = llmsr("schema", "delete", orders, "--output", "json")
    wet = llmsr("schema", "delete", orders, "--output", "json", "--apply")

    assert (dry.status, dry.error["reason"]) == (1, "VERSION_REFERENCED")
    assert (wet.status, wet.error["reason"]) == (1, "VERSION_REFERENCED")


def test_purge_goes_the_same_way(llmsr: Run, orders: str) -> None:
    """A purge of what is live is refused; of what is deleted it is planned, then done, with the ids that are gone."""
    purge: list[Any] = ["schema", "delete", orders, "--purge", "--output", "json"]
    live = llmsr(*purge)
    llmsr("schema", "delete", orders, "--version", "1", "--apply")

    planned, done = llmsr(*purge), llmsr(*purge, "--apply")

    assert (live.status, live.error["reason"]) == (1, "NOT_DELETED")
    assert planned.document == {"applied": False, "subject": orders, "versions": [1]}
    assert {**done.document, "schema_ids": []} == {**planned.document, "applied": True, "schema_ids": []}
