"""The Avro language: what is a schema, what is none and where, what is remarked, and how references are found."""

from __future__ import annotations

import contextlib
import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_schema_registry.errors import InvalidSchema
from services.registry.domain.evolution.policy import Policy, Rules
from services.registry.domain.formats import DataRules
from services.registry.domain.formats.avro import Avro
from services.registry.domain.formats.avro.language import ParsedAvro
from services.registry.domain.formats.avro.model import Fixed, Primitive, Record
from tests.counting import calls_of

STRICT = Rules(Policy.STRICT)
FORMAT = Avro()
INTS = {"type": "array", "items": "int"}


def parse(schema: object, sources: dict[str, str] | None = None) -> ParsedAvro:
    text = schema if isinstance(schema, str) and schema[:1] in ("{", "[", '"', "") else json.dumps(schema)
    return FORMAT.parse(text, sources or {})


def refused(schema: object, sources: dict[str, str] | None = None) -> InvalidSchema:
    with pytest.raises(InvalidSchema) as caught:
        parse(schema, sources)
    return caught.value


def record(*fields: object, name: str = "R", **more: object) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields), **more}


def field(kind: object, name: str = "a", **more: object) -> dict[str, Any]:
    return {"name": name, "type": kind, **more}


def enum(*symbols: str, **more: object) -> dict[str, Any]:
    return {"type": "enum", "name": "E", "symbols": list(symbols), **more}


def fixed(size: object = 4, **more: object) -> dict[str, Any]:
    return {"type": "fixed", "name": "F", "size": size, **more}


ACCEPTED: list[object] = [
    '"null"',
    {"type": "string"},
    {"type": "string", "avro.java.string": "String", "name": "metadata"},
    [],
    ["null", "int", {"type": "array", "items": "int"}, {"type": "map", "values": "int"}],
    ["int", "long", "float", "double", "bytes", "string", "boolean"],
    [record(name="a.R"), record(name="b.R"), enum("A"), fixed()],
    record(),
    {"type": "error", "name": "Oops", "fields": [field("string", "message")]},
    record(field(["null", "R"])),
    record(field({"type": "array", "items": "R"})),
    record(name="a.b.R", namespace="not a namespace, but ignored"),
    record(name="R", namespace=""),
    record(name="record"),
    record(field("int", order="ignore"), field("int", "b", order="descending")),
    record(aliases=["any string at all", "a.b"]),
    record(aliases=["R"]),
    enum(),
    enum("A", "B", default="B"),
    fixed(0),
    {"type": "array", "items": "int", "default": []},
    [record(), {"type": "map", "values": {"type": "R"}}],
    record(field(enum("A")), field("E", "b", default="A")),
]

REFUSED: list[tuple[object, str, str]] = [
    # Schema, place, part of the message.
    ("", "text", "not JSON"),
    ("{", "text", "line 1, column 2"),
    ('{"type": "int", "type": "int"}', "text", "stands twice"),
    ('{"type": NaN}', "text", "NaN"),
    ('"\ud800"', "text", "surrogate"),
    (3, "text", "a schema is a string"),
    (None, "text", "a schema is a string"),
    ({}, "text", "`type` is missing"),
    ({"type": 3}, "text/type", "must be a string"),
    ({"type": ["null"]}, "text/type", "without the object"),
    ({"type": {"type": "int"}}, "text/type", "without the object"),
    ("Int", "text", "no primitive type"),
    ({"type": "strng"}, "text/type", "did you mean `string`"),
    ("union", "text", "no primitive type"),
    (["int", ["null"]], "text/1", "another union"),
    (["int", {"type": "int"}], "text/1", "twice"),
    (["int", {"type": "int", "logicalType": "date"}], "text/1", "twice"),
    ([{"type": "array", "items": "int"}, {"type": "array", "items": "long"}], "text/1", "twice"),
    ([record(), "R"], "text/1", "twice"),
    ({"type": "array"}, "text", "`items` is missing"),
    ({"type": "map", "values": 1}, "text/values", "a schema is"),
    ({"type": "record", "fields": []}, "text", "`name` is missing"),
    ({"type": "record", "name": "R"}, "text", "`fields` must be"),
    ({"type": "record", "name": "R", "fields": {}}, "text/fields", "`fields` must be"),
    (record(3), "text/fields/0", "a field is"),
    (record({"name": "a"}), "text/fields/0", "`type` is missing"),
    (record({"type": "int"}), "text/fields/0", "`name` is missing"),
    (record(field("int", "1a")), "text/fields/0/name", "must match"),
    (record(field("int", "a.b")), "text/fields/0/name", "must match"),
    (record(field("int"), field("int")), "text/fields/1", "twice"),
    (record(field("int", order="up")), "text/fields/0/order", "ascending"),
    (record(field("int", aliases="b")), "text/fields/0/aliases", "array of strings"),
    (record(field("int", aliases=[1])), "text/fields/0/aliases/0", "a string"),
    (record(field("int", aliases=["b"]), field("int", "b")), "text/fields/0/aliases/0", "unique"),
    (record(field("int", aliases=["c"]), field("int", "b", aliases=["c"])), "text/fields/1/aliases/0", "unique"),
    (record(field("int", doc=1)), "text/fields/0/doc", "a string"),
    (record(name="a..b"), "text/name", "must match"),
    (record(name=".R"), "text/name", "must match"),
    (record(name="R."), "text/name", "must match"),
    (record(name=""), "text/name", "must match"),
    (record(name="R\n"), "text/name", "must match"),
    (record(name="é"), "text/name", "must match"),
    (record(name="\uff32"), "text/name", "must match"),
    (record(name="R\u200b"), "text/name", "must match"),
    (record(name="R\u0663"), "text/name", "must match"),
    (record(name="a" * 1025), "text/name", "1024"),
    ({**record(), "name": 3}, "text/name", "must match"),
    (record(name="int"), "text/name", "primitive"),
    (record(name="a.string"), "text/name", "primitive"),
    (record(namespace="a b"), "text/namespace", "separated by dots"),
    (record(namespace=1), "text/namespace", "a string"),
    (record(field(record())), "text/fields/0/type/name", "already defined at the root"),
    ([record(aliases=["S"]), record(name="S")], "text/0/aliases/0", "unique"),
    ([record(aliases=["X"]), record(name="S", aliases=["X"])], "text/1/aliases/0", "unique"),
    (record(field("B"), field(record(name="B"), "b")), "text/fields/0/type", "before its definition at /fields/1/type"),
    (record(field("S"), namespace="x"), "text/fields/0/type", "nor defined"),
    ({"type": "enum", "name": "E"}, "text", "`symbols` must be"),
    (enum("A", "A"), "text/symbols/1", "twice"),
    (enum("a-b"), "text/symbols/0", "must match"),
    (enum("A\n"), "text/symbols/0", "must match"),
    ({"type": "enum", "name": "E", "symbols": [1]}, "text/symbols/0", "a string"),
    (enum("A", default="B"), "text/default", "one of the enum"),
    (enum("A", default=None), "text/default", "one of the enum"),
    ({"type": "fixed", "name": "F"}, "text", "`size` must be"),
    (fixed(-1), "text/size", "from 0"),
    (fixed("4"), "text/size", "from 0"),
    (fixed(4.5), "text/size", "from 0"),
    (fixed(True), "text/size", "from 0"),
    (fixed(1 << 31), "text/size", "from 0"),
]


@pytest.mark.parametrize("schema", ACCEPTED, ids=str)
def test_the_whole_language_is_read(schema: object) -> None:
    """What the specification allows is a schema."""
    parsed = parse(schema)

    assert list(FORMAT.diff(parsed, parsed, STRICT)) == []


@pytest.mark.parametrize(("schema", "place", "says"), REFUSED, ids=lambda value: ascii(value)[:60])
def test_what_is_no_schema_is_refused_with_place_and_reason(schema: object, place: str, says: str) -> None:
    """The first violation names the place in the text and says what is wrong and what is allowed."""
    error = refused(schema)

    assert (error.violations[0].field, says in error.violations[0].description) == (place, True), error.violations


def test_every_place_at_fault_is_named() -> None:
    """Mistakes of all kinds come in one answer."""
    bad = record(field("strng"), field(["int", "int"], "b"), field("int", "c", default="x"), name="1R", doc=1)

    error = refused(bad)

    assert {violation.field for violation in error.violations} == {
        *("text/doc", "text/name", "text/fields/0/type", "text/fields/1/type/1", "text/fields/2/default"),
    }


DEFAULTS: list[tuple[object, object, bool]] = [
    ("null", None, True),
    ("null", 0, False),
    ("boolean", True, True),
    ("boolean", 1, False),
    ("boolean", "true", False),
    ("int", 2**31 - 1, True),
    ("int", 2**31, False),
    ("int", 1.0, False),
    ("int", True, False),
    ("int", "1", False),
    ("long", -(2**63), True),
    ("long", 2**63, False),
    ("float", 1, True),
    ("float", 1e39, False),
    ("float", "NaN", False),
    ("double", 1.5, True),
    ("double", 10**400, False),
    ("bytes", "\u00ff", True),
    ("bytes", "\u0100", False),
    ("string", "é\u4e2d", True),
    ("string", None, False),
    (enum("A"), "A", True),
    (enum("A"), "B", False),
    (enum("A"), ["A"], False),
    (fixed(2), "ab", True),
    (fixed(2), "abc", False),
    ({"type": "array", "items": "int"}, [1, 2], True),
    ({"type": "array", "items": "int"}, [1, "2"], False),
    ({"type": "array", "items": "int"}, {}, False),
    ({"type": "map", "values": "int"}, {"a": 1}, True),
    ({"type": "map", "values": "int"}, {"a": None}, False),
    (["null", "int"], None, True),
    (["null", "int"], 1, True),  # Since 1.12 any branch; before, the first.
    (["null", "int"], "x", False),
    (["null", "int"], {"int": 1}, False),
    ([], None, False),
    (record(field("int"), name="N"), {"a": 1}, True),
    (record(field("int"), name="N"), {"a": "x"}, False),
    (record(field("int"), name="N"), {}, False),
    (record(field("int", default=1), name="N"), {}, True),
    (record(field("int"), name="N"), {"a": 1, "b": 2}, False),
    (record(field("int"), name="N"), 3, False),
]


@pytest.mark.parametrize(("kind", "default", "good"), DEFAULTS, ids=lambda value: ascii(value)[:40])
def test_defaults_must_fit(kind: object, default: object, *, good: bool) -> None:
    """A default is checked against the field's type; a union's against any branch, as since 1.12."""
    schema = record(field(kind, default=default))

    if good:
        parse(schema)
    else:
        assert refused(schema).violations[0].field.startswith("text/fields/0/default")


def test_a_fault_deep_in_a_default_is_named() -> None:
    """The pointer goes into the default."""
    schema = record(field({"type": "map", "values": {"type": "array", "items": "int"}}, default={"a/b": [1, "x"]}))

    assert refused(schema).violations[0].field == "text/fields/0/default/a~1b/1"


def test_a_default_that_never_ends_is_refused() -> None:
    """A default that leaves out members whose defaults lead back to it cannot be filled in by any reader."""
    schema = record(field(["null", "R"], default={}))
    circle = record(field(record(field(["null", "R"], "r", default={}), name="S"), "s", default={}))

    assert "takes in itself" in refused(schema).message
    assert "takes in itself" in refused(circle).message
    parse(record(field(["null", "R"], default={"a": None})))


LOGICAL: list[tuple[dict[str, Any], bool]] = [
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 4}, True),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4}, True),
    ({"type": "bytes", "logicalType": "decimal"}, False),
    ({"type": "bytes", "logicalType": "decimal", "precision": 0}, False),
    ({"type": "bytes", "logicalType": "decimal", "precision": True}, False),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 5}, False),
    ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": -1}, False),
    ({"type": "int", "logicalType": "decimal", "precision": 4}, False),
    (fixed(4, logicalType="decimal", precision=9), True),
    (fixed(4, logicalType="decimal", precision=10), False),
    (fixed(0, logicalType="decimal", precision=1), False),
    ({"type": "bytes", "logicalType": "big-decimal"}, True),
    ({"type": "string", "logicalType": "uuid"}, True),
    (fixed(16, logicalType="uuid"), True),
    (fixed(15, logicalType="uuid"), False),
    ({"type": "int", "logicalType": "date"}, True),
    ({"type": "long", "logicalType": "date"}, False),
    ({"type": "int", "logicalType": "time-millis"}, True),
    ({"type": "long", "logicalType": "time-micros"}, True),
    ({"type": "long", "logicalType": "time-nanos"}, False),
    *(
        ({"type": "long", "logicalType": f"{local}timestamp-{unit}"}, True)
        for local in ("", "local-")
        for unit in ("millis", "micros", "nanos")
    ),
    (fixed(12, logicalType="duration"), True),
    (fixed(11, logicalType="duration"), False),
    ({"type": "string", "logicalType": "my-own"}, False),
    ({"type": "string", "logicalType": 3}, False),
    ({"type": "array", "items": "int", "logicalType": "set"}, False),
    (record(logicalType="date"), False),
]


@pytest.mark.parametrize(("schema", "valid"), LOGICAL, ids=lambda value: str(value)[:60])
def test_invalid_logical_types_are_ignored_and_remarked(schema: dict[str, Any], *, valid: bool) -> None:
    """As the specification demands the underlying type stays; the remark says that and why."""
    parsed = parse(schema)

    item = parsed.schema.resolve(parsed.schema.root)
    kept = item.logical is not None if isinstance(item, Primitive | Fixed) else False
    remarks = [remark.instance_path for remark in FORMAT.lint(parsed)]
    assert (kept, remarks) == ((True, []) if valid else (False, ["/logicalType"]))


REMARKS: list[tuple[object, str, str]] = [
    (record(field("int", logicalType="date")), "/fields/0/logicalType", "inside the field's type"),
    (record(field("int", defualt=1)), "/fields/0/defualt", "did you mean `default`"),
    (record(nampspace="a"), "/nampspace", "did you mean `namespace`"),
    (record(field("int", "ab"), field("int", "aB")), "/fields/1", "only by case"),
    (enum("A", "a"), "/symbols/1", "only by case"),
    (enum(), "/symbols", "no data"),
    ([], "", "no data"),
    (record(aliases=["R"]), "/aliases/0", "no effect"),
    (record(aliases=["a b"]), "/aliases/0", "no valid name"),
    (record(name="a.R", namespace="b"), "/namespace", "ignored"),
    ([record(), record(field("R"), name="x.S")], "/1/fields/0/type", "null namespace"),
    ([record(name="array")], "/0", "mistaken"),
    (
        record(field(fixed()), field({"type": "F", "logicalType": "uuid"}, "b")),
        "/fields/1/type/logicalType",
        "definition",
    ),
]


@pytest.mark.parametrize(("schema", "place", "says"), REMARKS, ids=lambda value: str(value)[:40])
def test_what_is_probably_not_meant_is_remarked(schema: object, place: str, says: str) -> None:
    """The remark names place and reason."""
    (remark,) = FORMAT.lint(parse(schema))

    assert (remark.instance_path, says in remark.message) == (place, True), remark


def test_metadata_is_no_mistake() -> None:
    """Attributes that look like nothing we know are left in peace, as the specification allows them."""
    schema = record(field("string", "a", **{"x-pii": True, "sinceVersion": 3}), owner="team", **{"connect.name": "R"})

    assert list(FORMAT.lint(parse(schema))) == []


def test_names_take_the_namespace_around_them() -> None:
    """The specification's example of names: inherited, explicit, full."""
    inner = enum("d", name="Understanding")
    schema = record(
        field(enum("a", name="Simple")),
        field(fixed(12, name="Simple", namespace="explicit"), "b"),
        field(record(field(inner), field("Understanding", "b"), name="a.full.Name", namespace="ignored"), "c"),
        name="Example",
    )

    assert set(parse(schema).schema.types) == {
        *("Example", "Simple", "explicit.Simple", "a.full.Name", "a.full.Understanding"),
    }


def test_docs_are_collected_for_the_search() -> None:
    """Documentation of types and fields."""
    parsed = parse(record(field(enum("A", doc="of the enum"), doc="of the field"), doc="of the record"))

    assert set(parsed.annotations) == {"of the record", "of the field", "of the enum"}


def test_references_bring_their_types_in_any_order() -> None:
    """Sources are read in the order of their needs; each defines the type that it is named after, and may more."""
    sources = {
        "a.C": json.dumps(record(field("a.B"), field("Extra", "x"), name="C", namespace="a")),
        "a.B": json.dumps(record(field(enum("A", name="Extra")), name="B", namespace="a")),
    }

    for order in (sources, dict(reversed(sources.items()))):
        parsed = parse(record(field("C"), field("Extra", "b"), namespace="a"), order)
        assert isinstance(parsed.schema.types["a.C"], Record)


@pytest.mark.parametrize(
    ("schema", "sources", "field", "says"),
    [
        (record(field("S")), {"S": "{"}, "references", "'S'"),
        (record(field("S")), {"S": '{"type": "fixed", "name": "T", "size": 1}'}, "references", "does not define"),
        (record(field("S")), {"S": '"S"'}, "references", "circle"),
        ("int", {"S": json.dumps(record(field("T"), name="S")), "T": '["S"]'}, "references", "circle"),
        ("int", {"S": json.dumps(record(field("R"), name="S"))}, "references", "at /fields/0/type"),
        (record(), {"R": json.dumps(record())}, "text/name", "by a reference"),
        (record(field("T")), {"S": json.dumps(record(name="S"))}, "text/fields/0/type", "by a reference"),
        (record(aliases=["S"]), {"S": json.dumps(record(name="S"))}, "text/aliases/0", "unique"),
    ],
)
def test_bad_references_are_refused(schema: object, sources: dict[str, str], field: str, says: str) -> None:
    """A source at fault is named as a reference, a use at fault as a place in the text."""
    error = refused(schema, sources)

    assert error.violations[0].field == field
    assert says in error.violations[0].description


def test_a_long_chain_of_sources_is_read() -> None:
    """Hundreds of sources, each needing the next, are read once or twice each, without recursion."""
    sources = {f"T{i}": json.dumps(record(field(f"T{i + 1}"), name=f"T{i}")) for i in range(255)}
    sources["T255"] = json.dumps(record(name="T255"))

    assert len(parse(record(field("T0")), sources).schema.types) == 257


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"type":"array","items":' * 5000 + '"int"' + "}" * 5000,
        '{"type":"array","items":' * 101 + '"int"' + "}" * 101,
    ],
    ids=["brackets", "arrays", "one too many"],
)
def test_deep_nesting_is_refused(text: str) -> None:
    """Nesting beyond the limit is an error, never a crash."""
    assert "nested deeper" in refused(text).message


def test_what_is_parsed_can_go_to_another_process() -> None:
    """Any schema survives pickling, at full depth and with recursion, and means the same there."""
    deep: object = "R"
    for _ in range(95):
        deep = {"type": "array", "items": deep}
    parsed = parse(record(field(deep)))

    copy = pickle.loads(pickle.dumps(parsed))

    assert copy == parsed
    assert list(FORMAT.diff(copy, parse(record(field(deep, default=[]))), STRICT)) == []


def test_too_many_types_are_refused() -> None:
    """The number of named types is bounded, references included."""
    types = [{"type": "fixed", "name": f"F{i}", "size": 1} for i in range(5001)]

    assert "5000 types" in refused(types).message


def test_defaults_that_fit_in_exponentially_many_ways_are_refused() -> None:
    """Each level of a default doubles the ways to read it: the work is bounded by the length of the text."""
    types = record(field(["null", record(field(["null", "L", "M"], "x"), name="M"), "L"], "x"), name="L")
    value: object = "nothing"
    for _ in range(60):
        value = {"x": value}

    error = refused([types, record(field(["L", "M"], default=value))])

    assert "too many ways" in error.message


@pytest.mark.parametrize(
    "make",
    [
        lambda n: record(*(field("int", f"f{i}", default=i) for i in range(n // 45))),
        lambda n: enum(*(f"SYMBOL{i}" for i in range(n // 15))),
        lambda n: record(field({"type": "array", "items": enum("A")}, default=["A"] * (n // 5))),
        lambda n: record(field({"type": "map", "values": INTS}, default={"k" * (n // 2): [1] * (n // 6)})),
        lambda n: record(*(field("int", f"f{i}", defualt=i) for i in range(n // 45))),
        lambda n: ["int"] * (n // 7),
        lambda n: record(*(field("x" * 1000, f"f{i}") for i in range(n // 1000)), namespace="n" * 1000),
    ],
    ids=["fields", "symbols", "items", "long key", "misspelt", "twice", "long names"],
)
def test_large_texts_take_work_in_proportion(make: Any) -> None:
    """Four times the text takes about four times the calls, nowhere near sixteen times."""

    def calls(characters: int) -> int:
        text = json.dumps(make(characters))

        def read() -> None:
            with contextlib.suppress(InvalidSchema):
                parse(text)

        return calls_of(read, builtin=True)

    assert calls(100_000) < 5 * calls(25_000) + 1000


@given(st.text(max_size=300))
def test_any_text_is_a_schema_or_an_error_of_ours(text: str) -> None:
    """No text brings anything but an answer or InvalidSchema."""
    try:
        parsed = FORMAT.parse(text, {})
    except InvalidSchema:
        return
    assert parsed.text == text


WORDS = st.sampled_from(
    [
        *("type", "name", "fields", "symbols", "items", "values", "size", "default", "aliases", "namespace"),
        *("record", "enum", "fixed", "array", "map", "int", "string", "null", "bytes", "decimal", "R", "a.R"),
        *("logicalType", "precision", "scale", "order", "doc", ""),
    ]
)
NEARLY = st.recursive(
    WORDS | st.integers(-2, 20) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)


@given(NEARLY)
def test_anything_that_looks_like_a_schema_is_one_or_an_error_of_ours(value: object) -> None:
    """Words of the language in any arrangement bring an answer or InvalidSchema, and a schema compiles."""
    try:
        parsed = FORMAT.parse(json.dumps(value), {})
    except InvalidSchema:
        return
    FORMAT.lint(parsed)
    FORMAT.validator(parsed, DataRules(assert_formats=True)).check(b"{}")
