"""Data against stored schemas: encodings, frames, modes and streams."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator, Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import validation_service_pb2 as pb
from llm_schema_registry.registry.v1 import version_pb2
from tests.fix_calls import Registry

Name = Callable[..., str]
RECORD = json.dumps({"type": "record", "name": "R", "fields": [{"name": "n", "type": "int"}]})
FRAMED = pb.DATA_ENCODING_FRAMED
BINARY = pb.DATA_ENCODING_BINARY


def frame(schema_id: int, body: bytes) -> bytes:
    """What the ecosystem's serializers write."""
    return b"\0" + schema_id.to_bytes(4, "big") + body


async def check(calls: Registry, data: bytes, **fields: object) -> pb.ValidateDataResponse:
    """The answer to one payload."""
    return await calls.call(calls.validation.ValidateData, pb.ValidateDataRequest(data=data, **fields))  # type: ignore[arg-type]


async def test_a_frame_names_its_schema(calls: Registry, name: Name) -> None:
    """The five bytes are enough to find it; JSON Schema's body is JSON, Avro's is binary."""
    made = await calls.register(name(), {"type": "integer"})
    record = await calls.register(name(), RECORD, format="SCHEMA_FORMAT_AVRO")

    valid = await check(calls, frame(made.schema.id, b"1"), encoding=FRAMED)
    invalid = await check(calls, frame(made.schema.id, b'"x"'), encoding=FRAMED)
    binary = await check(calls, frame(record.schema.id, b"\x02"), encoding=FRAMED)

    assert (valid.valid, valid.schema_id) == (True, made.schema.id)
    assert not invalid.valid
    assert (binary.valid, binary.schema_id) == (True, record.schema.id)


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\x01\0\0\0\x01{}", b"\0\0\0\0\0{}", b"\0\xff\xff\xff\xff{}"])
async def test_what_is_no_frame_is_refused(calls: Registry, data: bytes) -> None:
    """Too short, another first byte, an id that none can be."""
    with pytest.raises(errors.InvalidField) as caught:
        await check(calls, data, encoding=FRAMED)

    assert [violation.field for violation in caught.value.violations] == ["data"]


async def test_a_frame_must_agree_with_the_request(calls: Registry, name: Name) -> None:
    """A payload of another schema than the caller expects is not checked against either."""
    one, two = await calls.register(name(), {"minimum": 1}), await calls.register(name(), {"minimum": 2})

    with pytest.raises(errors.InvalidField):
        await check(calls, frame(one.schema.id, b"1"), encoding=FRAMED, schema_id=two.schema.id)
    with pytest.raises(errors.SchemaNotFound):
        await check(calls, frame(2**31 - 1, b"1"), encoding=FRAMED)


async def test_avro_in_both_encodings(calls: Registry, name: Name) -> None:
    """Its JSON encoding and its binary one."""
    made = await calls.register(name(), RECORD, format="SCHEMA_FORMAT_AVRO")

    assert (await check(calls, b'{"n": 1}', schema_id=made.schema.id)).valid
    assert (await check(calls, b"\x02", schema_id=made.schema.id, encoding=BINARY)).valid
    broken = await check(calls, b"\x80", schema_id=made.schema.id, encoding=BINARY)
    assert not broken.valid
    assert broken.errors[0].message


async def test_json_schema_has_no_binary_encoding(calls: Registry, name: Name) -> None:
    """The error names the field and what is allowed."""
    made = await calls.register(name(), {})

    with pytest.raises(errors.InvalidField) as caught:
        await check(calls, b"{}", schema_id=made.schema.id, encoding=BINARY)

    assert [violation.field for violation in caught.value.violations] == ["encoding"]


async def test_unknown_fields_are_faults_in_strict_mode(calls: Registry, name: Name) -> None:
    """A misspelt optional property is accepted by an open object, and found in strict mode."""
    made = await calls.register(name(), {"type": "object", "properties": {"colour": {"type": "string"}}})

    assert (await check(calls, b'{"color": "red"}', schema_id=made.schema.id)).valid
    strict = await check(calls, b'{"color": "red"}', schema_id=made.schema.id, mode=pb.VALIDATION_MODE_STRICT)
    assert [error.instance_path for error in strict.errors] == ["/color"]
    assert (await check(calls, b'{"colour": "red"}', schema_id=made.schema.id, mode=pb.VALIDATION_MODE_STRICT)).valid


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [({}, "key"), ({"schema_id": 1, "encoding": 9}, "encoding"), ({"schema_id": 1, "mode": 9}, "mode")],
)
async def test_bad_rules_are_named(calls: Registry, fields: dict[str, object], at_fault: str) -> None:
    """Also in a stream, where the answer says so and the stream goes on."""
    with pytest.raises(errors.InvalidField) as caught:
        await check(calls, b"{}", **fields)
    rules = pb.ValidationRules(**fields)  # type: ignore[arg-type]
    answers = await converse(calls, pb.StreamValidateDataRequest(rules=rules, payloads=[b"1"]))

    assert {violation.field for violation in caught.value.violations} == {at_fault}
    assert [violation.field for violation in answers[0].error.violations] == [f"rules.{at_fault}"]


async def converse(calls: Registry, *requests: pb.StreamValidateDataRequest) -> list[pb.StreamValidateDataResponse]:
    """All answers to some requests of one stream."""

    async def sent() -> AsyncIterator[pb.StreamValidateDataRequest]:
        for request in requests:
            yield request

    return [answer async for answer in calls.client.converse(calls.validation.StreamValidateData, sent())]


async def test_a_bad_payload_is_one_bad_result(calls: Registry, name: Name) -> None:
    """Indexes count through the stream; what is not listed is valid; rules hold until others are sent."""
    first, second = await calls.register(name(), {"type": "integer"}), await calls.register(name(), {"type": "string"})
    key = version_pb2.VersionKey(subject=second.version.subject)

    answers = await converse(
        calls,
        pb.StreamValidateDataRequest(
            rules=pb.ValidationRules(schema_id=first.schema.id), payloads=[b"1", b'"x"', b"{", b"\xff", b"2"]
        ),
        pb.StreamValidateDataRequest(payloads=[b'"y"', b"3"]),
        pb.StreamValidateDataRequest(rules=pb.ValidationRules(version=key), payloads=[b'"z"', b"4"]),
    )

    assert [(answer.first_index, answer.valid_count) for answer in answers] == [(0, 2), (5, 1), (7, 1)]
    assert [[bad.index for bad in answer.invalid] for answer in answers] == [[1, 2, 3], [5], [8]]
    assert all(bad.errors[0].message for answer in answers for bad in answer.invalid)
    assert [bad.schema_id for answer in answers for bad in answer.invalid] == [first.schema.id] * 4 + [second.schema.id]


async def test_a_bad_batch_is_one_bad_answer(calls: Registry, name: Name) -> None:
    """Rules that fail, or are missing, and too large payloads; the stream goes on."""
    made = await calls.register(name(), {})
    good = pb.ValidationRules(schema_id=made.schema.id)

    answers = await converse(
        calls,
        pb.StreamValidateDataRequest(payloads=[b"1"]),
        pb.StreamValidateDataRequest(rules=pb.ValidationRules(schema_id=2**31 - 1), payloads=[b"1"]),
        pb.StreamValidateDataRequest(payloads=[b"1", b"2"]),
        pb.StreamValidateDataRequest(rules=good, payloads=[b"1"] * 10_001),
        pb.StreamValidateDataRequest(payloads=[b" " * (1 << 20) + b"1"]),
        pb.StreamValidateDataRequest(payloads=[b"1"]),
    )

    assert [answer.error.reason for answer in answers] == [
        "INVALID_FIELD",
        "SCHEMA_NOT_FOUND",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "INVALID_FIELD",
        "",
    ]
    assert [answer.first_index for answer in answers] == [0, 1, 2, 4, 10_005, 10_006]
    assert answers[4].error.violations[0].field == "payloads[0]"
    assert answers[-1].valid_count == 1


async def test_framed_payloads_of_several_schemas(calls: Registry, name: Name) -> None:
    """Each is checked against the schema that its frame names; an unknown one is one bad result."""
    one, two = await calls.register(name(), {"type": "integer"}), await calls.register(name(), {"type": "string"})
    payloads = [
        frame(one.schema.id, b"1"),
        frame(two.schema.id, b'"a"'),
        frame(two.schema.id, b"1"),
        frame(2**31 - 1, b"1"),
        b"nothing",
        frame(one.schema.id, b"2"),
    ]

    (answer,) = await converse(
        calls, pb.StreamValidateDataRequest(rules=pb.ValidationRules(encoding=FRAMED), payloads=payloads)
    )

    assert answer.valid_count == 3
    assert [(bad.index, bad.schema_id) for bad in answer.invalid] == [(2, two.schema.id), (3, 2**31 - 1), (4, 0)]


async def test_an_answer_lists_a_bounded_number_of_errors(calls: Registry, name: Name) -> None:
    """Every bad payload is listed; beyond a thousand errors without reasons."""
    made = await calls.register(name(), {"items": {"type": "string"}})
    payloads = [json.dumps(list(range(150))).encode()] * 20

    (answer,) = await converse(
        calls, pb.StreamValidateDataRequest(rules=pb.ValidationRules(schema_id=made.schema.id), payloads=payloads)
    )

    assert len(answer.invalid) == 20
    assert sum(len(bad.errors) for bad in answer.invalid) == 1000
    assert all(bad.truncated for bad in answer.invalid)


async def test_a_payload_that_never_ends_is_one_bad_result(calls: Registry, name: Name) -> None:
    """Checking it is given up; the payloads beside it are checked, and the server answers others meanwhile."""
    either = {"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}]}
    schema = {"properties": {"a": either, "x": {"type": "integer"}}, "not": {"const": 1}}
    made = await calls.register(name(), schema)
    deep = '{"a":' * 60 + "1" + "}" * 60
    payloads = [b'{"x": 1}', deep.encode(), b'{"x": "1"}']

    (answer,) = await converse(
        calls, pb.StreamValidateDataRequest(rules=pb.ValidationRules(schema_id=made.schema.id), payloads=payloads)
    )

    assert answer.valid_count == 1
    assert [bad.index for bad in answer.invalid] == [1, 2]
    assert "longer than" in answer.invalid[0].errors[0].message


async def test_paths_are_cut(calls: Registry, name: Name) -> None:
    """Data cannot make an answer that is larger than a message may be."""
    made = await calls.register(name(), {"additionalProperties": {"items": {"type": "string"}}})
    data = json.dumps({"x" * 100_000: list(range(100))}).encode()

    found = await check(calls, data, schema_id=made.schema.id)

    assert len(found.errors) == 100
    assert all(len(error.instance_path) == 2048 and error.instance_path.endswith("…") for error in found.errors)


async def test_a_receiver_that_waits_holds_the_sender_up(calls: Registry, name: Name) -> None:
    """Nothing is buffered without limit: requests are taken as answers are. When it reads on, every answer is there."""
    made = await calls.register(name(), {"additionalProperties": {"type": "string"}})
    # Names that do not compress, so that the answers are as large as the requests.
    names = [base64.b64encode(hashlib.shake_256(str(number).encode()).digest(1500)).decode() for number in range(500)]
    batch = [json.dumps({found: 1}).encode() for found in names]
    requests = 40
    asked = 0

    async def sent() -> AsyncIterator[pb.StreamValidateDataRequest]:
        nonlocal asked
        for asked in range(1, requests + 1):  # noqa: B007 - the test looks at it meanwhile
            yield pb.StreamValidateDataRequest(rules=pb.ValidationRules(schema_id=made.schema.id), payloads=batch)

    stream = calls.client.converse(calls.validation.StreamValidateData, sent())
    first = await anext(stream)
    settled, before = 0, -1
    while settled < 10:
        await asyncio.sleep(0.05)
        settled, before = (settled + 1, asked) if asked == before else (0, asked)
    rest = [answer async for answer in stream]

    assert before < requests
    assert [answer.first_index for answer in (first, *rest)] == [500 * number for number in range(requests)]
