"""Protobuf compatibility: every rule in both directions, proofs that hold, witnesses that show, and places."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, seed, settings
from hypothesis import strategies as st

from services.registry.adapters.protoc import compile_files
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.evolution.report import Finding, Verdict, worst
from services.registry.domain.formats import DataRules, Difference, Kind
from services.registry.domain.formats.protobuf import ParsedProtobuf, Protobuf, exact, kinds, reading
from services.registry.domain.formats.protobuf.schema import load, relative
from tests.counting import calls_of
from tests.unit.registry.protobuf.proto_schemas import File, files, message_of, mutated

FORMAT = Protobuf(compile_files)
ROWS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[3] / "corpora" / "compatibility" / "protobuf.json").read_text()
)
SIDES = ("as_written", "swapped")
LONG_RUN_EXAMPLES = 3000
LONG_RUN_SEED = 20261123
LONG_RUN_MESSAGES = 10
CALLS_PER_FIELD_MAX = 16
CALLS_PER_PAIR_MAX = 300


def parse(text: str, **sources: str) -> ParsedProtobuf:
    return FORMAT.parse(text, {f"{name}.proto": source for name, source in sources.items()})


def message(body: str, syntax: str = "proto3") -> str:
    return f'syntax = "{syntax}"; package p; message M {{ {body} }}'


def diff(reader: str, writer: str, policy: Policy = Policy.EXACT) -> list[Finding]:
    return list(FORMAT.diff(parse(reader), parse(writer), Rules(policy)))


def harmful(found: list[Finding]) -> set[str]:
    return {finding.rule for finding in found if finding.verdict is not Verdict.COMPATIBLE}


def pair(row: dict[str, Any], side: str) -> tuple[str, str]:
    return (row["reader"], row["writer"]) if side == "as_written" else (row["writer"], row["reader"])


@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_the_rules(row: dict[str, Any]) -> None:
    """Kinds and verdicts are those of the table under each policy, for the pair as it stands and the swapped one."""
    for side in SIDES:
        for policy in Policy:
            expected = row[side][policy.name]
            found = diff(*pair(row, side), policy)

            if policy is Policy.STRICT:
                assert {finding.rule for finding in found} == set(expected["kinds"]), (side, policy)
            else:
                assert harmful(found) == set(expected["harmful"]), (side, policy)
            assert worst(found).name == expected["verdict"], (side, policy)


def test_the_table_has_every_rule_in_both_directions() -> None:
    """Every one of the 26 kinds is expected for some pair as it stands and for some swapped one."""
    every = kinds.FINE | set(kinds.BREAKING)

    assert len(every) == 26
    for side in SIDES:
        assert {kind for row in ROWS for kind in row[side]["STRICT"]["kinds"]} == every
    assert len({row["name"] for row in ROWS}) == len(ROWS)


def test_every_finding_is_explained() -> None:
    """Each has a message; harmful ones have a remedy too, and under EXACT a witness when they are refuted."""
    for row in ROWS:
        for policy in Policy:
            for finding in diff(row["reader"], row["writer"], policy):
                assert finding.message
                if finding.verdict is not Verdict.COMPATIBLE:
                    assert finding.remedy
                assert (finding.witness is not None) == (
                    policy is Policy.EXACT and finding.verdict is Verdict.INCOMPATIBLE
                )


def test_every_witness_is_a_message_of_the_writer_that_the_reader_gets_wrong() -> None:
    """Read again from its bytes by the writer, each witness says its text, and judged again it is wrong again."""
    count = 0
    for row in ROWS:
        for side in SIDES:
            reader, writer = (load(parse(text).descriptor_set) for text in pair(row, side))
            for finding in diff(*pair(row, side)):
                if finding.witness is None or finding.rule == "MESSAGE_REMOVED":
                    continue
                count += 1
                judged = [
                    reading.judged(writer, reader, target, sent)
                    for kind in writer.all_messages()
                    for target in reader.all_messages()
                    if relative(kind) == relative(target)
                    and (sent := reading.from_binary(writer, kind, finding.witness.binary)) is not None
                    and reading.to_json(writer, sent) == finding.witness.text
                ]

                assert finding.witness in judged, (row["name"], side, finding)
    assert count > 50


def test_a_witness_lies_where_the_fault_is_reached() -> None:
    """A type that has another name at the reader is shown inside of the message that holds it."""
    reader = message("L l = 1;") + " message K { int64 n = 1; } message L { K k = 1; }"
    (finding,) = (
        one
        for one in diff(reader.replace("int64", "int32"), reader.replace(" K ", " Q ").replace("{ K ", "{ Q "))
        if one.rule != "MESSAGE_REMOVED"
    )

    assert finding.rule == "FIELD_SCALAR_KIND_CHANGED"
    assert finding.witness is not None
    assert json.loads(finding.witness.text) == {"k": {"n": "2147483648"}}
    assert json.loads(finding.witness.read) == {"k": {"n": -2147483648}}


def test_places_name_both_sides() -> None:
    """Places are pointers by name, in nested messages and in imports too."""
    text = 'syntax = "proto3"; package p; import "n.proto"; message M { message I { int32 a = 1; } I i = 1; N n = 2; }'
    imported = 'syntax = "proto3"; package p; message N { int32 b = 1; }'
    reader = parse(text.replace("int32 a", "float a"), n=imported.replace("int32 b", "float c"))
    writer = parse(text, n=imported)

    found = list(FORMAT.diff(reader, writer, Rules(Policy.STRICT)))

    assert {(finding.reader_path, finding.writer_path) for finding in found} == {
        ("/messages/M/messages/I/fields/a", "/messages/M/messages/I/fields/a"),
        ("/imports/n.proto/messages/N/fields/c", "/imports/n.proto/messages/N/fields/b"),
    }
    assert [finding.rule for finding in found if not finding.remedy] == ["FIELD_NAME_CHANGED"]


def test_every_place_is_reported_once() -> None:
    """A recursive type that is used in many places is reported where it is defined."""
    uses = " ".join(f"N f{number} = {number};" for number in range(2, 50))
    text = 'syntax = "proto3"; message M {{ {uses} }} message N {{ {kind} a = 1; repeated N n = 2; M m = 3; }}'

    for policy in Policy:
        found = diff(text.format(uses=uses, kind="int32"), text.format(uses=uses, kind="float"), policy)

        assert [finding.rule for finding in found] == ["FIELD_SCALAR_KIND_CHANGED"]


def test_a_message_that_cannot_be_written_shows_nothing() -> None:
    """Messages that require themselves are never written: there is no witness, and no false one."""
    text = 'syntax = "proto2"; message M {{ required M m = 1; optional {kind} a = 2; }}'

    (finding,) = diff(text.format(kind="int32"), text.format(kind="float"))

    assert finding.verdict is Verdict.UNDECIDED
    assert finding.witness is None


def test_a_hundred_versions_of_a_large_message_cost_a_few_steps_for_each_field() -> None:
    """100 comparisons of messages of 200 fields, each with one change; the bench has the time that they take."""
    fields = "".join(f"string name_{number} = {number};" for number in range(1, 201))
    versions = [parse(message(fields + f"int32 extra_{version} = {1000 + version};")) for version in range(101)]

    def compare(policy: Policy) -> list[Finding]:
        return [finding for old in versions[:-1] for finding in FORMAT.diff(versions[-1], old, Rules(policy))]

    for policy in Policy:
        calls = calls_of(partial(compare, policy))

        assert worst(compare(policy)) is Verdict.COMPATIBLE
        assert calls < 100 * 200 * CALLS_PER_FIELD_MAX


def circles(one: int, other: int) -> tuple[ParsedProtobuf, ParsedProtobuf]:
    """Two schemas in which messages of other names hold one another in circles of these lengths."""
    head = 'syntax = "proto3"; message M { X0 m = 1; } '

    def circle(name: str, length: int) -> str:
        return "".join(f"message {name}{n} {{ {name}{(n + 1) % length} m = 1; int32 a = 2; }}" for n in range(length))

    return parse(head + circle("X", one)), parse(head.replace("X", "Y") + circle("Y", other))


def test_circles_of_renamed_messages_are_not_compared_without_end() -> None:
    """Circles of 120 and 121 messages meet in 14 520 pairs: what goes beyond the limit is said, and not looked at."""
    reader, writer = circles(120, 121)
    found: list[Finding] = []

    calls = calls_of(lambda: found.extend(FORMAT.diff(reader, writer, Rules(Policy.LENIENT))))

    assert [finding.rule for finding in found if finding.verdict is Verdict.UNDECIDED] == ["NOT_DECIDED"]
    assert found[-1].remedy
    assert calls < kinds.PAIRS_MAX * CALLS_PER_PAIR_MAX
    assert worst(FORMAT.diff(*circles(10, 11), Rules(Policy.LENIENT))) is Verdict.COMPATIBLE


def test_what_must_be_filled_in_for_each_try_counts() -> None:
    """Tries to show faults in a message that requires 400 fields end when they have cost, not numbered, too much."""
    inner = "".join(f"required int32 a{n} = {n + 1};" for n in range(20))
    outer = "".join(f"required I i{n} = {n + 1};" for n in range(20))
    enums = "".join(f"optional E e{n} = {n + 2};" for n in range(60))
    head = f'syntax = "proto2"; message I {{ {inner} }} message J {{ {outer} }} enum E {{ A = 0; }} '
    writer = head + f"message M {{ required J j = 1; {enums} }}"
    reader = writer.replace("optional E", "optional float")
    found: list[Finding] = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "STEPS_MAX", 100_000)
        calls = calls_of(lambda: found.extend(diff(reader, writer)))

    verdicts = [finding.verdict for finding in found]
    assert len(found) == 60
    assert verdicts[0] is Verdict.INCOMPATIBLE
    assert verdicts[-1] is Verdict.UNDECIDED
    assert calls < 500_000


def test_long_chains_of_messages_are_compared_and_checked() -> None:
    """A thousand messages that hold one another in a circle neither hang nor exhaust the stack."""
    chain = "".join(f"message M{n} {{ M{(n + 1) % 1000} m = 1; int32 a = 2; }}" for n in range(1000))
    writer, reader = 'syntax = "proto3";' + chain, 'syntax = "proto3";' + chain.replace("int32", "float")

    for policy in Policy:
        assert len(diff(reader, writer, policy)) == 1000
    assert FORMAT.validator(parse(writer), DataRules()).check(b'{"m": {"m": {"a": 1}}}').problems == ()


def test_what_is_too_deep_to_be_read_shows_nothing() -> None:
    """Types that only a chain of 150 renamed messages leads to: where no parser comes, there is no harm to show."""

    def chain(name: str, kind: str, change_at: int) -> str:
        types = [kind if number == change_at else "int32" for number in range(150)]
        inner = "".join(f"message {name}{n} {{ {name}{n + 1} m = 1; {one} a = 2; }}" for n, one in enumerate(types))
        return message(f"{name}0 m = 1;") + inner + f"message {name}150 {{ }}"

    for change_at, expected in [(10, Verdict.INCOMPATIBLE), (120, None)]:
        found = diff(chain("X", "int32", 0), chain("Y", "int64", change_at))
        shown = [finding for finding in found if finding.rule == "FIELD_SCALAR_KIND_CHANGED"]

        assert [finding.verdict for finding in shown] == ([expected] if expected else [])


def test_what_the_writer_itself_misreads_is_no_witness() -> None:
    """ProtoJSON of the largest float is beyond the range of floats when read again: no reader is to blame."""
    schema = load(parse(message("float a = 1;")).descriptor_set)
    sent = reading.from_binary(schema, schema.message("p.M"), b"\x0d\xff\xff\x7f\x7f")

    assert sent is not None
    assert reading.judged(schema, schema, schema.message("p.M"), sent) is None


def test_large_enums_are_compared() -> None:
    """Enums of ten thousand values, all renamed: EXACT tells of them once, STRICT of each."""
    head = 'syntax = "proto3"; message M { E e = 1; } enum E { '
    writer = head + "".join(f"A{n} = {n};" for n in range(10_000)) + "}"

    assert harmful(diff(writer.replace("A", "B"), writer)) == {"ENUM_CONST_CHANGED"}
    assert len(diff(writer.replace("A", "B"), writer, Policy.STRICT)) == 10_000


def test_differences_name_every_part_once_with_both_directions() -> None:
    """A difference has the places before and after, and whether either side copes."""
    before = parse(message("oneof o { string a = 1; string b = 2; } int32 c = 3; string gone = 4;"))
    after = parse(
        message("oneof o { string a = 1; } int64 c = 3; float d = 5;") + " service S { rpc R(M) returns (M); }"
    )

    found = FORMAT.differences(before, after)

    summary = {(one.kind, one.rule, one.before_path, one.after_path, one.backward, one.forward) for one in found}
    fine, bad = Verdict.COMPATIBLE, Verdict.INCOMPATIBLE
    m = "/messages/M/fields"
    assert summary == {
        (Kind.REMOVED, "ONEOF_FIELD_REMOVED", f"{m}/b", "", bad, fine),
        (Kind.REMOVED, "FIELD_REMOVED", f"{m}/gone", "", fine, fine),
        (Kind.ADDED, "FIELD_ADDED", "", f"{m}/d", fine, fine),
        (Kind.CHANGED, "FIELD_TYPE_CHANGED", f"{m}/c/type", f"{m}/c/type", fine, fine),
        (Kind.ADDED, "SERVICE_ADDED", "", "/services/S", fine, fine),
    }
    assert len(summary) == len(found)


def test_no_differences_without_a_change() -> None:
    """A schema does not differ from itself, nor from itself with other comments."""
    text = message('string a = 1 [deprecated = true]; map<string, int32> m = 2; reserved 9; reserved "z";')

    assert FORMAT.differences(parse(text), parse("// Comment.\n" + text)) == []


@given(file=files())
@settings(max_examples=40, deadline=None)
def test_every_schema_is_compatible_with_itself(file: File) -> None:
    """Under every policy, also when nothing tells at once that it is the same schema."""
    one = parse(file.text())
    other = parse(file.text() + "\nmessage Unrelated { }")

    for policy in Policy:
        assert list(FORMAT.diff(one, one, Rules(policy))) == []
        assert worst(FORMAT.diff(other, one, Rules(policy))) is Verdict.COMPATIBLE


@given(file=files())
@settings(max_examples=40, deadline=None)
def test_what_means_the_same_does_no_harm(file: File) -> None:
    """Another order of fields and definitions is the same meaning, with no harmful findings when compared in full."""
    one, other = parse(file.text()), parse(file.text(order=-1, comment="// Comment.\n"))

    assert one.semantic_body == other.semantic_body
    for policy in (Policy.STRICT, Policy.LENIENT):
        lenient = policy is Policy.LENIENT
        found = kinds.findings(load(one.descriptor_set), load(other.descriptor_set), lenient=lenient)
        assert worst(found) is Verdict.COMPATIBLE


def check_soundness(file: File, data: st.DataObject, messages: int) -> None:
    """Random messages of the writer of a pair that is proven compatible are read right."""
    writer, reader = parse(file.text()), parse(data.draw(mutated(file)).text())
    found = list(FORMAT.diff(reader, writer, Rules(Policy.EXACT)))
    verdict = worst(found)
    event(verdict.name)
    for finding in found:
        if finding.verdict is Verdict.UNDECIDED:
            event(finding.rule)
    if verdict is not Verdict.COMPATIBLE:
        return
    read, written = load(reader.descriptor_set), load(writer.descriptor_set)
    targets = {relative(target): target for target in read.all_messages()}
    for kind in written.all_messages():
        for _ in range(messages):
            sent = message_of(data, written, kind)
            if not sent.IsInitialized():
                continue
            assert reading.judged(written, read, targets[relative(kind)], sent) is None


@given(file=files(), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_proven_compatible_is_read_right(file: File, data: st.DataObject) -> None:
    """No message of the writer is misread where EXACT has a proof."""
    check_soundness(file, data, 2)


@pytest.mark.slow
@pytest.mark.rotating(3, "long runs")
@pytest.mark.timeout(900)
@seed(LONG_RUN_SEED)
@given(file=files(), data=st.data())
@settings(max_examples=LONG_RUN_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_proven_compatible_is_read_right_in_a_long_run(file: File, data: st.DataObject) -> None:
    """The same for thousands of pairs and many messages each; the seed is LONG_RUN_SEED."""
    check_soundness(file, data, LONG_RUN_MESSAGES)


def test_difference_has_no_pair_of_empty_places() -> None:
    """A package that changed is at its place on both sides."""
    (found,) = FORMAT.differences(parse(message("")), parse(message("").replace("package p", "package q")))

    assert found == Difference(
        Kind.CHANGED,
        "PACKAGE_CHANGED",
        "the later schema's package is `q`, the earlier schema's `p`",
        "/package",
        "/package",
        Verdict.INCOMPATIBLE,
        Verdict.INCOMPATIBLE,
    )
