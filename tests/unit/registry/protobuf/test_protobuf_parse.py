"""Protobuf texts: both forms, identity and meaning, references, limits, and what hostile texts come to."""

from __future__ import annotations

import base64
import hashlib
import os
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidSchema
from services.registry.adapters.protoc import compile_files
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.formats import DataRules, Encoding
from services.registry.domain.formats.protobuf import ParsedProtobuf, Protobuf, descriptors
from services.registry.domain.formats.protobuf.compiling import Files
from services.registry.domain.formats.protobuf.schema import HELD_FIELDS_MAX
from services.registry.domain.formats.protobuf.source_text import DEPTH_MAX, text_fault
from services.registry.domain.formats.protobuf.source_text import files as files_of
from tests.counting import calls_of
from tests.unit.registry.protobuf.proto_schemas import File, files

FORMAT = Protobuf(compile_files)
FULL = """
syntax = "proto2";
package p.q;
import "google/protobuf/descriptor.proto";
import "google/protobuf/any.proto";
import public "dep.proto";
option java_package = "x";
extend google.protobuf.FieldOptions { optional Rule rule = 50001; repeated string tags = 50002; }
message Rule { optional string pattern = 1; repeated int32 sizes = 2; }
// A message.
message M {
  // A field.
  required int32 a = 1 [(rule) = { pattern: "x" sizes: [1, 2] }, (tags) = "t", (tags) = "u"];
  optional group G = 2 { optional Dep dep = 1; }
  map<string, Dep> m = 3;
  oneof o { string s = 4; google.protobuf.Any any = 5; }
  repeated int64 packed = 6 [packed = true];
  optional E e = 7 [default = B];
  extensions 100 to 199;
  reserved 50 to 60, 70;
  reserved "gone";
  message Inner { optional M back = 1; extend M { optional Inner inner = 101; } }
}
extend M { optional string extra = 100; }
// An enum.
enum E { option allow_alias = true; A = 1; B = 2; C = 2; reserved 9; }
// A service.
service S {
  // A method.
  rpc R(stream M) returns (Dep) { option deprecated = true; }
}
"""
DEP = 'syntax = "proto3"; package p; message Dep { optional int32 x = 1; }'
FULL_SOURCES = {"dep.proto": DEP}


def parse(text: str, sources: dict[str, str] | None = None) -> ParsedProtobuf:
    return FORMAT.parse(text, sources or {})


def packed(parsed: ParsedProtobuf, *, name: str = "") -> str:
    """The text's file in the other form."""
    file = descriptors.FileDescriptorSet.FromString(parsed.descriptor_set).file[-1]
    file.name = name
    return base64.b64encode(file.SerializeToString()).decode()


def refusal(text: str, sources: dict[str, str] | None = None) -> InvalidSchema:
    with pytest.raises(InvalidSchema) as caught:
        parse(text, sources)
    return caught.value


def test_text_and_descriptor_are_one_schema() -> None:
    """A serialized FileDescriptorProto in base64 has the identity and the meaning of the text it was made of."""
    text = parse(FULL, FULL_SOURCES)

    for name in ("", "some/name.proto"):
        form = packed(text, name=name)
        wrapped = "\n".join(form[start : start + 76] for start in range(0, len(form), 76)) + "\n"
        for given_form in (form, wrapped):
            other = parse(given_form, FULL_SOURCES)

            assert other.identity_body == text.identity_body
            assert other.semantic_body == text.semantic_body


def test_identity_and_meaning_stay_what_they_were() -> None:
    """Stored ids depend on these bytes: an upgrade of protoc or of the library that changes them needs a migration."""
    parsed = parse(FULL, FULL_SOURCES)

    assert (
        hashlib.sha256(parsed.identity_body).hexdigest()
        == "4c19b4aeb82f80ec41c96e82460afcb5bcb1ef83bde34695c5001f526114f4b9"
    )
    assert (
        hashlib.sha256(parsed.semantic_body).hexdigest()
        == "987d876a7fc4c5f6d17abbba7fefb15fcb352eadf9a2e4de8721ae3be9ffb7d0"
    )


def test_messages_of_many_fields_that_others_hold_are_costly() -> None:
    """Two bytes of data are laid out with every field: such schemas check data where it can be stopped."""

    def explosive(count: int, root: str) -> bool:
        fields = "".join(f"double f{number} = {number + 10};" for number in range(count))
        return parse(f'syntax = "proto3"; message M {{ {root} }} message W {{ {fields} }}').explosive

    assert explosive(HELD_FIELDS_MAX + 1, "repeated W w = 1;")
    assert explosive(HELD_FIELDS_MAX + 1, "map<string, W> w = 1;")
    assert not explosive(HELD_FIELDS_MAX, "repeated W w = 1;")
    assert not explosive(HELD_FIELDS_MAX + 1, "")


def test_references_may_be_descriptors_too() -> None:
    """A source in base64 serves as an import, whatever the name inside of it."""
    dep = packed(parse(DEP), name="elsewhere.proto")

    assert parse(FULL, {"dep.proto": dep}).identity_body == parse(FULL, FULL_SOURCES).identity_body


def test_comments_and_white_space_are_no_content() -> None:
    """They change nothing but the annotations."""
    bare = parse('syntax="proto3";message M{int32 a=1;}')
    wordy = parse('// Top.\nsyntax = "proto3";\n\n/* Of M. */\nmessage M {\n  // Of a.\n  int32 a = 1;\n}\n')

    assert wordy.identity_body == bare.identity_body
    assert (bare.annotations, wordy.annotations) == ((), ("Of M.", "Of a."))


def test_annotations_are_the_comments_of_definitions() -> None:
    """Messages, fields, enums, services and methods, in the order of the text."""
    found = parse(FULL, FULL_SOURCES).annotations

    assert found == ("A message.", "A field.", "An enum.", "A service.", "A method.")


IDENTITY_ONLY = [
    (
        'syntax = "proto3"; message M { int32 a = 1; int32 b = 2; }',
        'syntax = "proto3"; message M { int32 b = 2; int32 a = 1; }',
    ),
    (
        'syntax = "proto3"; enum E { A = 0; B = 1; }',
        'syntax = "proto3"; enum E { A = 0; B = 1; } option go_package = "x";',
    ),
    ('syntax = "proto3"; message M { reserved 1 to 3; }', 'syntax = "proto3"; message M { reserved 3, 2, 1; }'),
    (
        'syntax = "proto3"; enum E { A = 0; } enum F { B = 0; }',
        'syntax = "proto3"; enum F { B = 0; } enum E { A = 0; }',
    ),
    (
        'syntax = "proto3"; message M { optional int32 a = 1; }',
        'syntax = "proto3"; message M { optional int32 a = 1 [deprecated = true]; }',
    ),
    (
        'syntax = "proto3"; enum E { A = 0; B = 1; }',
        'syntax = "proto3"; enum E { A = 0; B = 1; } import "google/protobuf/any.proto";',
    ),
    (
        'syntax = "proto3"; message M { repeated int32 a = 1; }',
        'syntax = "proto3"; message M { repeated int32 a = 1 [packed = true]; }',
    ),
    (
        'syntax = "proto3"; message M { int32 a_b = 1; }',
        'edition = "2023"; message M { int32 a_b = 1 [features.field_presence = IMPLICIT]; }',
    ),
]


@pytest.mark.parametrize(("one", "other"), IDENTITY_ONLY)
def test_what_has_no_meaning(one: str, other: str) -> None:
    """Such texts are two contents of one meaning."""
    first, second = parse(one), parse(other)

    assert first.identity_body != second.identity_body
    assert first.semantic_body == second.semantic_body


MEANING = [
    ('syntax = "proto3"; message M { } message N { }', 'syntax = "proto3"; message N { } message M { }'),
    ('syntax = "proto3"; message M { int32 a = 1; }', 'syntax = "proto3"; message M { optional int32 a = 1; }'),
    (
        'syntax = "proto3"; message M { repeated int32 a = 1; }',
        'syntax = "proto2"; message M { repeated int32 a = 1; }',
    ),
    (
        'syntax = "proto3"; message M { int32 a = 1; }',
        'syntax = "proto3"; message M { int32 a = 1 [json_name = "b"]; }',
    ),
    (
        'syntax = "proto2"; message M { optional int32 a = 1; }',
        'syntax = "proto2"; message M { optional int32 a = 1 [default = 1]; }',
    ),
    ('syntax = "proto2"; enum E { A = 0; B = 1; }', 'syntax = "proto2"; enum E { B = 1; A = 0; }'),
    ('syntax = "proto2"; enum E { A = 0; }', 'syntax = "proto3"; enum E { A = 0; }'),
    ('syntax = "proto3"; message M { }', 'syntax = "proto3"; message M { reserved 1; }'),
    ('syntax = "proto3"; message M { }', 'syntax = "proto3"; package p; message M { }'),
]


@pytest.mark.parametrize(("one", "other"), MEANING)
def test_what_has_meaning(one: str, other: str) -> None:
    """Order of messages, presence, packing, JSON names, defaults, first values, closedness, reservations, package."""
    assert parse(one).semantic_body != parse(other).semantic_body


def test_custom_options_have_meaning_in_any_order() -> None:
    """Rules for data are written in them; which of two comes first does not matter."""
    text = FULL.replace('(tags) = "t", (tags) = "u"', '(tags) = "t"')
    turned = FULL.replace(
        '(rule) = { pattern: "x" sizes: [1, 2] }, (tags) = "t", (tags) = "u"',
        '(tags) = "t", (tags) = "u", (rule) = { pattern: "x" sizes: [1, 2] }',
    )

    assert parse(turned, FULL_SOURCES).identity_body == parse(FULL, FULL_SOURCES).identity_body
    assert parse(text, FULL_SOURCES).semantic_body != parse(FULL, FULL_SOURCES).semantic_body


def test_imported_types_are_part_of_the_meaning() -> None:
    """A field's type means what its definition says, wherever that is."""
    other = {"dep.proto": DEP.replace("int32", "int64")}

    assert parse(FULL, other).identity_body == parse(FULL, FULL_SOURCES).identity_body
    assert parse(FULL, other).semantic_body != parse(FULL, FULL_SOURCES).semantic_body


def test_parsed_schemas_and_the_format_can_be_pickled() -> None:
    """What a worker parsed works in another process."""
    copy, parsed = pickle.loads(pickle.dumps((FORMAT, parse(FULL, FULL_SOURCES))))

    assert (
        copy.validator(parsed, DataRules(encoding=Encoding.BINARY, message_type="p.q.M")).check(b"\x08\x01").problems
        == ()
    )


@pytest.mark.parametrize("edition", ["2023", "2024"])
def test_editions_are_read(edition: str) -> None:
    """The editions that the installed protoc knows."""
    text = f'edition = "{edition}"; package p; message M {{ int32 a = 1 [features.field_presence = LEGACY_REQUIRED]; }}'

    assert FORMAT.validator(parse(text), DataRules()).check(b"{}").problems != ()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('syntax = "proto3";\nmessage M {\n  foo a = 1;\n}', "line 3, column 3"),
        ("message M {", "line 1, column 12"),
        ('syntax = "proto3"; message M { string a = "', "line 1"),
        ("/* no end", "line 1, column 10"),
        ('syntax = "proto9";', "proto9"),
        ('syntax = "proto3"; message M { int32 a = 19000; }', "19000"),
        ('syntax = "proto3"; message M { int32 a = 1; int32 b = 1; }', "line 1"),
        ('edition = "2099"; message M { }', "2099"),
        ("message M\u00e9 { }", "line 1"),
        ("AAAA", "base64"),
        ("zzzzzzzz", "base64"),
        ("////", "base64"),
        ("message M { }\0", "NUL"),
        ("\ud800", "surrogate"),
        ('syntax = "proto3"; import "google/protobuf/nothing.proto";', "google/protobuf/nothing.proto"),
    ],
)
def test_what_is_no_schema_is_refused_with_its_place(text: str, place: str) -> None:
    """The error names the text, the place where there is one, and nothing of the server."""
    error = refusal(text)

    assert place in error.message
    assert error.violations[0].field == "text"
    assert "/tmp" not in error.message


def test_all_errors_of_a_text_are_named() -> None:
    """Each place at fault is a violation of its own."""
    error = refusal('syntax = "proto3"; message M { foo a = 1; bar b = 2; }')

    assert len(error.violations) == 2


@pytest.mark.parametrize("name", ["other.proto", "/etc/passwd", "../x.proto", "a//b.proto", "a\\\\b.proto"])
def test_imports_lead_to_references_alone(name: str) -> None:
    """An import that is not among the references is named, with what to do; nothing of the disk is ever read."""
    error = refusal(f'syntax = "proto3"; import "{name}"; message M {{ }}')

    assert "references" in error.message
    assert [violation.field for violation in error.violations] == ["text"]


def test_a_file_of_the_server_cannot_be_imported() -> None:
    """No spelling of a path leads out of the folder, to the modules of this program for example."""
    for name in (__file__, os.path.relpath(__file__, "/tmp"), "google/protobuf/../../../protoc.py"):
        assert "is not among the references" in refusal(f'import "{name}";').message


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x.proto",
        "/x.proto",
        "a/../b",
        "a//b",
        "a/",
        "a\\b",
        "a\x00b",
        "a\nb",
        "google/protobuf/any.proto",
        "\ud800",
        "x" * 300,
        "google/protobuf/mine.proto",
        "/".join(["x" * 250] * 20),
    ],
)
def test_bad_names_of_references_are_refused(name: str) -> None:
    """Each is an error about `references`."""
    error = refusal("message M { }", {name: DEP})

    assert [violation.field for violation in error.violations] == ["references"]


def test_a_reference_cannot_lie_below_another() -> None:
    """One name cannot be a file and a folder."""
    error = refusal("message M { }", {"a": DEP, "a/b.proto": DEP})

    assert error.violations[0].field == "references"


def test_names_may_be_of_any_script() -> None:
    """A reference's name is an import path in Unicode."""
    name = "\u043f\u0430\u043f\u043a\u0430/\u2603 \U0001f600.proto"

    assert parse(f'syntax = "proto3"; import "{name}"; message M {{ p.Dep d = 1; }}', {name: DEP}).identity_body


def test_faults_in_a_reference_name_it() -> None:
    """A broken source, one that lacks an import of its own, and sources that import each other."""
    text = 'syntax = "proto3"; import "a.proto"; message M { }'

    for source, said in [
        ("message {", "line 1, column 9"),
        ('import "b.proto";', '"b.proto"'),
        ('import "a.proto";', "recursively"),
        ("AAAA", "base64"),
        ("{" * 100, "nested deeper"),
    ]:
        error = refusal(text, {"a.proto": source})

        assert [violation.field for violation in error.violations] == ["references"], source
        assert "a.proto" in error.message
        assert said in error.message


def test_a_reference_that_clashes_with_a_well_known_type_is_told_as_such() -> None:
    """The import is there, and what is wrong is that a reference defines the same name."""
    source = 'syntax = "proto3"; package google.protobuf; message Any { }'
    text = 'import "a.proto"; import "google/protobuf/any.proto"; message M { optional google.protobuf.Any a = 1; }'

    error = refusal(text, {"a.proto": source})

    assert '"google.protobuf.Any" is already defined' in error.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (r'optional int32 a = 1 [json_name = "\377"];', "json_name of field `a`"),
        (r'reserved "\377";', "a reserved name of `M`"),
        (r'enum E { A = 0; reserved "\377"; }', "a reserved name of `E`"),
        ("optional int32 SerializeToString = 1;", "`SerializeToString`"),
        ("message I { repeated int32 DESCRIPTOR = 7; }", "field 7 of `I`"),
        ("optional int32 Extensions = 1; extensions 100 to 200;", "`Extensions`"),
    ],
)
def test_names_that_the_library_cannot_work_with_are_refused(body: str, said: str) -> None:
    """The compiler takes escaped bytes that are no UTF-8, and fields called like a method of every message."""
    assert said in refusal(f'syntax = "proto2"; message M {{ {body} }}').message


def test_types_may_be_called_like_methods_of_messages() -> None:
    """Names that only fields cannot have: of messages, enums, their values, oneofs and extensions."""
    text = """
    syntax = "proto2"; message M {
      message FromString { optional int32 a = 1; } enum ByteSize { HasField = 0; IsInitialized = 1; }
      oneof ListFields { FromString f = 1; ByteSize b = 2; } extensions 100 to 200;
      message Plain { optional int32 Extensions = 1; }
    }
    extend M { optional int32 Clear = 100; }
    """
    parsed = parse(text)

    for encoding, data in (
        (Encoding.JSON, b'{"f": {"a": 1}, "[Clear]": 1}'),
        (Encoding.BINARY, b"\x18\x03"),
    ):
        assert FORMAT.validator(parsed, DataRules(encoding)).check(data).problems == ()
    assert list(FORMAT.diff(parse(text + "message Unrelated { }"), parsed, Rules(Policy.EXACT))) == []


def test_cycles_among_references_are_refused() -> None:
    """Files that import each other are an error, not a hang."""
    sources = {"a.proto": 'import "b.proto";', "b.proto": 'import "a.proto";'}

    assert refusal('import "a.proto"; message M { }', sources).violations[0].field == "references"


def test_lint_finds_what_is_odd() -> None:
    """Unused imports, no package, required fields, gaps, reserved words, and a first value that is not zero."""
    text = """
    syntax = "proto2"; import "google/protobuf/any.proto";
    message M { required int32 a = 1; optional int32 class = 3; } enum E { A = 1; }
    """
    found = [(problem.keyword, problem.instance_path) for problem in FORMAT.lint(parse(text))]

    assert found == [
        ("compiler", ""),
        ("package", ""),
        ("enum", "/enums/E"),
        ("required", "/messages/M/fields/a"),
        ("name", "/messages/M/fields/class"),
        ("reserved", "/messages/M"),
    ]
    assert FORMAT.lint(parse('syntax = "proto3"; package p; message M { int32 a = 1; }')) == ()


HOSTILE = {
    "braces": "{" * (1 << 20),
    "balanced braces": "{" * (1 << 19) + "}" * (1 << 19),
    "messages": "message M {" * 60_000,
    "options": 'syntax = "proto2"; option (x) = ' + "{ o: " * 20_000 + "}" * 20_000 + ";",
    "angle brackets": "option (x) = { " + "o < } " * 20_000 + "};",
    "brackets behind a comment": '/* " */' + "[" * 20_000,
    "brackets behind a broken string": 'option x = "\\\n' + "{" * 20_000,
    "strings": '"' * (1 << 20),
    "comments": "/*" * (1 << 19),
    "semicolons": ";" * (1 << 20),
    "backslashes": "'" + "\\" * (1 << 20),
    "words": "message " * (1 << 17),
    "base64": "QUFB" * (1 << 18),
    "nested descriptors": base64.b64encode(b"\x22\x7e\x1a\x7c" * 50_000).decode(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_come_to_an_answer(name: str) -> None:
    """A megabyte of anything is refused with a short message, or is a schema; it neither hangs nor crashes."""
    message = ""

    try:
        parse(HOSTILE[name])
    except InvalidSchema as error:  # Some of these are schemas.
        message = error.message

    assert len(message) < 2000


def test_a_text_full_of_names_does_not_keep_the_search_for_a_free_one_busy() -> None:
    """However many names a text holds, its own file has one that nothing can import, found in a few steps."""
    names = "// " + " ".join(f"schema{number or ''}.proto" for number in range(20_000)) + "\n"
    text = f'{names}syntax = "proto3"; message M {{ }}'

    calls = calls_of(lambda: files_of(text, {}))

    assert calls < 1000
    assert "not among the references" in refusal(f'import "{files_of(text, {}).root}";').message


def test_too_many_definitions_are_refused() -> None:
    """Fields and enum values are limited, and the error says by how many."""
    values = "".join(f"V{number}={number};" for number in range(descriptors.ENUM_VALUES_MAX + 1))

    assert f"{descriptors.ENUM_VALUES_MAX} are allowed" in refusal('syntax="proto3"; enum E {' + values + "}").message


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        ("{" * DEPTH_MAX, False),
        ("{" * (DEPTH_MAX + 1), True),
        ("{}" * 1000, False),
        ("// " + "{" * 100, False),
        ("/* " + "{" * 100 + "*/", False),
        ('"' + "{" * 100 + '"', False),
        ('"\\"' + "{" * 100 + '"', False),
        ('"\n' + "{" * 100, True),
        ("'\\'" + "{" * 100, False),
        ("/**/" + "(" * 100, True),
        ("{" + "[" * 30 + "<" * 30 + "(" * 4, True),
    ],
)
def test_depth_is_counted_as_the_compiler_reads(text: str, deep: bool) -> None:
    """Brackets in comments and strings do not count; a string ends with its line."""
    assert ("nested deeper" in text_fault(text)) == deep


@given(blob=st.binary(min_size=1, max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_descriptor_is_read_or_refused(blob: bytes) -> None:
    """Whatever base64 holds, there is a schema or an InvalidSchema."""
    violations: object = None
    try:
        parsed = parse(base64.b64encode(blob).decode())
    except InvalidSchema as error:
        violations = error.violations
    else:
        violations = parsed.identity_body + b"read"

    assert violations


@given(file=files(), data=st.data())
@settings(max_examples=60, deadline=None)
def test_broken_descriptors_are_read_or_refused(file: File, data: st.DataObject) -> None:
    """Descriptors with some bytes changed are read or refused, and what is read can be compared and written again."""
    blob = bytearray(base64.b64decode(packed(parse(file.text()))))
    for _ in range(data.draw(st.integers(1, 3))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse(base64.b64encode(blob).decode())
    except InvalidSchema:
        return

    assert parse(packed(parsed)).identity_body == parsed.identity_body


@given(file=files())
@settings(max_examples=40, deadline=None)
def test_random_schemas_are_one_in_both_forms(file: File) -> None:
    """Text, text with comments, and descriptor have one identity."""
    text = parse(file.text())

    assert parse(file.text(comment="// Comment.\n")).identity_body == text.identity_body
    assert parse(packed(text)).identity_body == text.identity_body
    assert parse(packed(text)).semantic_body == text.semantic_body


def test_the_compiler_alone_refuses_to_leave_its_folder() -> None:
    """Should a bad name ever get there, nothing is written."""
    with pytest.raises(ValueError, match="within the folder"):
        compile_files(Files("a.proto", {"../a.proto": ""}))
