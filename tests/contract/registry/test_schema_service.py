"""registry.v1.SchemaService over a real channel, against the registry as a process with PostgreSQL and Valkey."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Callable

import pytest

from llm_schema_registry import errors
from llm_schema_registry.registry.v1 import compatibility_pb2, schema_pb2, version_pb2
from llm_schema_registry.registry.v1 import schema_service_pb2 as pb
from llm_schema_registry.registry.v1 import subject_service_pb2 as subject_pb
from services.registry.ports import VersionFilter
from services.registry.usecases import paging
from tests.fix_calls import Registry

JSON = schema_pb2.SCHEMA_FORMAT_JSON
Name = Callable[..., str]


async def test_what_is_registered_is_read_back(calls: Registry, name: Name) -> None:
    """The answer of the registration, of GetSchema and of GetVersion are one and the same."""
    subject = name()
    text = f'{{ "title": "{subject}" }}'

    made = await calls.register(
        subject,
        text,
        description="Orders\nof all shops",
        owner="team-red",
        tags=["pii", "eu", "pii"],
        metadata={"cost": "low"},
    )

    assert made.created
    assert (made.version.number, made.version.state) == (1, version_pb2.VERSION_STATE_ACTIVE)
    assert list(made.version.tags) == ["eu", "pii"]
    assert made.schema.text == text
    assert await calls.schema(made.schema.id) == made.schema
    latest = await calls.call(calls.subjects.GetVersion, subject_pb.GetVersionRequest(subject=subject, latest=True))
    assert (latest.version, latest.schema) == (made.version, made.schema)


async def test_registering_again_changes_nothing(calls: Registry, name: Name) -> None:
    """The same content under the same subject, white space aside, is the same version."""
    subject = name()
    first = await calls.register(subject, f'{{"title":"{subject}"}}')

    again = await calls.register(subject, f' {{"title" :\n"{subject}"}} ')

    assert not again.created
    assert (again.version, again.schema) == (first.version, first.schema)


async def test_the_same_content_has_one_id_everywhere(calls: Registry, name: Name) -> None:
    """An id belongs to content, a number to a subject."""
    text = json.dumps({"title": name()})

    answers = await asyncio.gather(*(calls.register(name(), text) for _ in range(10)))

    assert len({answer.schema.id for answer in answers}) == 1
    assert {answer.version.number for answer in answers} == {1}


async def test_the_first_text_of_a_content_stays(calls: Registry, name: Name) -> None:
    """Whoever registers the same content with other white space gets the text that was there first."""
    title = name()
    first = await calls.register(name(), f'{{"title":"{title}"}}')

    other = await calls.register(name(), f'{{ "title": "{title}" }}')

    assert other.created
    assert other.schema == first.schema


async def test_fifty_clients_under_one_subject(calls: Registry, name: Name) -> None:
    """Fifty different schemas at once get the numbers 1 to 50; registering them again gives the same."""
    subject = name()
    await calls.level(subject)
    texts = [json.dumps({"title": subject, "maximum": number}) for number in range(50)]

    made = await asyncio.gather(*(calls.register(subject, text) for text in texts))
    again = await asyncio.gather(*(calls.register(subject, text) for text in texts))

    assert sorted(answer.version.number for answer in made) == list(range(1, 51))
    assert [answer.version for answer in again] == [answer.version for answer in made]


async def test_fifty_clients_with_the_same_schema(calls: Registry, name: Name) -> None:
    """Fifty clients with one schema make one version; one of them made it."""
    subject, text = name(), json.dumps({"title": name()})

    made = await asyncio.gather(*(calls.register(subject, text) for _ in range(50)))

    assert {answer.version.number for answer in made} == {1}
    assert sum(answer.created for answer in made) == 1


async def test_an_incompatible_schema_is_refused_with_its_findings(calls: Registry, name: Name) -> None:
    """The error names the level, the version and the remedy, and nothing is written."""
    subject = name()
    await calls.register(subject, {"type": "object"})

    with pytest.raises(errors.IncompatibleSchema) as caught:
        await calls.register(subject, {"type": "array"})

    assert caught.value.metadata["level"] == "BACKWARD"
    assert caught.value.metadata["verdict"] == "INCOMPATIBLE"
    assert caught.value.metadata["policy"] == "EXACT"
    assert "version 1" in caught.value.message
    assert any("TYPE_REJECTS" in violation.description for violation in caught.value.violations)
    versions = await calls.call(calls.subjects.ListVersions, subject_pb.ListVersionsRequest(subject=subject))
    assert [version.number for version in versions.versions] == [1]


async def test_level_none_lets_everything_in(calls: Registry, name: Name) -> None:
    """Under NONE nothing is checked."""
    subject = name()
    await calls.level(subject)
    await calls.register(subject, {"type": "object"})

    made = await calls.register(subject, {"type": "array"})

    assert made.version.number == 2


async def test_a_change_without_meaning_is_compatible(calls: Registry, name: Name) -> None:
    """Another member order is another content, and compatible at every level."""
    subject = name()
    await calls.level(subject, compatibility_pb2.COMPATIBILITY_LEVEL_FULL_TRANSITIVE)
    first = await calls.register(subject, '{"type":"number","minimum":1}')

    second = await calls.register(subject, '{"minimum":1.0,"type":"number"}')

    assert second.version.number == 2
    assert second.schema.id != first.schema.id
    assert second.schema.semantic_fingerprint == first.schema.semantic_fingerprint


async def test_normalize_uses_the_content_that_is_there(calls: Registry, name: Name) -> None:
    """With `normalize` equal meaning is one id, under the same subject and under another."""
    title = name()
    first = await calls.register(name(), json.dumps({"pattern": title, "minimum": 1}))

    other = await calls.register(name(), json.dumps({"minimum": 1.0, "pattern": title}), normalize=True)

    assert other.schema.id == first.schema.id
    assert other.schema.text == first.schema.text


async def test_a_dry_run_reports_and_writes_nothing(calls: Registry, name: Name) -> None:
    """`validate_only` gives the report and the version as it would be."""
    subject = name()
    await calls.register(subject, {"type": "object"})

    refused = await calls.register(subject, {"title": subject, "type": "array"}, validate_only=True)

    assert refused.report.verdict == compatibility_pb2.VERDICT_INCOMPATIBLE
    assert (refused.version.number, refused.schema.id, refused.created) == (2, 0, False)
    with pytest.raises(errors.VersionNotFound):
        await calls.version(subject, 2)


async def test_a_dry_run_of_what_is_there_is_compatible(calls: Registry, name: Name) -> None:
    """Registering it would return the version and check nothing; what is new and fits would be made."""
    subject = name()
    first = await calls.register(subject, {"type": "object"})
    await calls.level(subject)
    await calls.register(subject, {"type": "array"})
    await calls.level(subject, compatibility_pb2.COMPATIBILITY_LEVEL_FULL_TRANSITIVE)

    there = await calls.register(subject, {"type": "object"}, validate_only=True)
    fresh = await calls.register(name(), {"type": "object"}, validate_only=True)

    assert (there.version, there.created) == (first.version, False)
    assert there.report.verdict == compatibility_pb2.VERDICT_COMPATIBLE
    assert fresh.created


async def test_a_dry_run_of_a_new_subject_makes_no_subject(calls: Registry, name: Name) -> None:
    """Nothing is left of it."""
    subject = name()

    answer = await calls.register(subject, {}, validate_only=True)

    assert (answer.version.number, answer.report.verdict) == (1, compatibility_pb2.VERDICT_COMPATIBLE)
    with pytest.raises(errors.SubjectNotFound):
        await calls.call(calls.subjects.GetSubject, subject_pb.GetSubjectRequest(subject=subject))


async def test_a_draft_is_not_checked_and_is_not_latest(calls: Registry, name: Name) -> None:
    """Drafts do not count until they become active."""
    subject = name()
    first = await calls.register(subject, {"type": "object"})

    draft = await calls.register(subject, {"type": "array"}, state=version_pb2.VERSION_STATE_DRAFT)

    assert draft.version.number == 2
    assert not draft.version.HasField("activate_time")
    latest = await calls.call(calls.subjects.GetVersion, subject_pb.GetVersionRequest(subject=subject, latest=True))
    assert latest.version == first.version


async def test_a_repeated_request_gets_the_first_answer(calls: Registry, name: Name) -> None:
    """With a request id a repeat is answered like the first attempt, whatever happened in between."""
    subject, key = name(), name("request")
    first = await calls.register(subject, {"type": "object"}, request_id=key)
    await calls.delete(subject, 1)

    again = await calls.register(subject, {"type": "object"}, request_id=key)

    assert (again.version, again.created) == (first.version, True)
    versions = await calls.call(
        calls.subjects.ListVersions, subject_pb.ListVersionsRequest(subject=subject, include_deleted=True)
    )
    assert [version.number for version in versions.versions] == [1]


async def test_a_request_id_belongs_to_one_request(calls: Registry, name: Name) -> None:
    """The same id with another body is refused."""
    key = name("request")
    await calls.register(name(), {"type": "object"}, request_id=key)

    with pytest.raises(errors.RequestIdReused):
        await calls.register(name(), {"type": "object"}, request_id=key)


async def test_a_registration_after_a_deletion_gets_a_new_number(calls: Registry, name: Name) -> None:
    """Numbers are never reused; the id stays that of the content."""
    subject = name()
    first = await calls.register(subject, {"title": subject})
    await calls.delete(subject, 1)

    second = await calls.register(subject, {"title": subject})

    assert (second.version.number, second.schema.id) == (2, first.schema.id)


async def test_purged_content_is_gone_and_its_id_stays_taken(calls: Registry, name: Name) -> None:
    """After a purge the id is not found; the same content, registered again, gets it back."""
    subject, schema = name(), {"title": name()}
    first = await calls.register(subject, schema)
    await calls.schema(first.schema.id)
    await calls.delete(subject, 1)
    assert await calls.schema(first.schema.id) == first.schema

    assert await calls.purge(subject, 1) == [first.schema.id]

    with pytest.raises(errors.SchemaNotFound):
        await calls.schema(first.schema.id)
    again = await calls.register(subject, schema)
    assert (again.schema.id, again.version.number) == (first.schema.id, 2)
    assert (await calls.schema(first.schema.id)).text == first.schema.text


async def test_content_that_another_subject_holds_survives_a_purge(calls: Registry, name: Name) -> None:
    """Only what nobody holds is removed."""
    schema = {"title": name()}
    first, second = name(), name()
    made = await calls.register(first, schema)
    await calls.register(second, schema)
    await calls.delete(first, 1)

    assert await calls.purge(first, 1) == []

    assert (await calls.schema(made.schema.id)).text == made.schema.text


async def test_schemas_are_found_by_fingerprint(calls: Registry, name: Name) -> None:
    """The identity fingerprint names a content like its id does."""
    made = await calls.register(name(), {"title": name()})

    request = pb.GetSchemaRequest(identity_fingerprint=made.schema.identity_fingerprint)

    assert (await calls.call(calls.schemas.GetSchema, request)).schema == made.schema


async def test_a_batch_keeps_the_order_and_names_what_is_missing(calls: Registry, name: Name) -> None:
    """Each id once, in the order asked; unknown ones are listed."""
    ids = [(await calls.register(name(), {"title": name()})).schema.id for _ in range(3)]

    batch = await calls.call(
        calls.schemas.BatchGetSchemas, pb.BatchGetSchemasRequest(ids=[ids[2], ids[0], 2_000_000_000, ids[2], ids[1]])
    )

    assert [schema.id for schema in batch.schemas] == [ids[2], ids[0], ids[1]]
    assert list(batch.missing_ids) == [2_000_000_000]
    assert list(batch.unprocessed_ids) == []


async def test_a_batch_is_capped_in_bytes(calls: Registry, name: Name) -> None:
    """What does not fit is listed to be asked for again, and nothing is lost."""
    padding = "x" * 900_000
    ids = [(await calls.register(name(), {"title": name(), "description": padding})).schema.id for _ in range(5)]

    seen: list[int] = []
    asked = ids
    while asked:
        batch = await calls.call(calls.schemas.BatchGetSchemas, pb.BatchGetSchemasRequest(ids=asked))
        assert batch.schemas
        seen += [schema.id for schema in batch.schemas]
        asked = list(batch.unprocessed_ids)

    assert seen == ids


async def test_lookup_by_identity_and_by_meaning(calls: Registry, name: Name) -> None:
    """Identity knows only this text; meaning finds every spelling of it. Nothing is registered."""
    title, one, two = name(), name(), name()
    first = await calls.register(one, json.dumps({"pattern": title, "minimum": 1}))
    second = await calls.register(two, json.dumps({"minimum": 1, "pattern": title}))
    spelled = json.dumps({"pattern": title, "minimum": 1.0})

    with pytest.raises(errors.SchemaNotFound):
        await calls.call(calls.schemas.LookupSchema, pb.LookupSchemaRequest(format=JSON, text=spelled))
    found = await calls.call(
        calls.schemas.LookupSchema,
        pb.LookupSchemaRequest(format=JSON, text=spelled, kind=pb.FINGERPRINT_KIND_SEMANTIC),
    )
    exact = await calls.call(
        calls.schemas.LookupSchema, pb.LookupSchemaRequest(format=JSON, text=second.schema.text, subject=two)
    )

    assert found.schema == first.schema
    assert {version.subject for version in found.versions} == {one, two}
    assert (exact.schema, list(exact.versions)) == (second.schema, [second.version])
    first_page = await calls.call(
        calls.schemas.LookupSchema,
        pb.LookupSchemaRequest(format=JSON, text=spelled, kind=pb.FINGERPRINT_KIND_SEMANTIC, page_size=1),
    )
    second_page = await calls.call(
        calls.schemas.LookupSchema,
        pb.LookupSchemaRequest(
            format=JSON,
            text=spelled,
            kind=pb.FINGERPRINT_KIND_SEMANTIC,
            page_size=1,
            page_token=first_page.next_page_token,
        ),
    )
    assert [*first_page.versions, *second_page.versions] == list(found.versions)
    assert second_page.next_page_token == ""
    with pytest.raises(errors.SchemaNotFound):
        await calls.call(
            calls.schemas.LookupSchema, pb.LookupSchemaRequest(format=JSON, text=second.schema.text, subject=one)
        )


async def test_search_finds_by_words_tags_owner_and_state(calls: Registry, name: Name) -> None:
    """Every condition must hold; words may be beginnings, in any case."""
    token = name("tok").replace("-", "")
    billing, shipping = f"{token}-billing", f"{token}-shipping"
    await calls.register(billing, {"title": "Customer Invoice"}, tags=["pii"], owner="red")
    await calls.register(shipping, {"description": "parcels"}, tags=["pii", "eu"], owner="blue")
    await calls.register(shipping, {"type": "null"}, state=version_pb2.VERSION_STATE_DRAFT)

    async def search(**fields: object) -> list[tuple[str, int]]:
        request = pb.SearchSchemasRequest(**fields)  # type: ignore[arg-type]  # the caller names the fields
        found = await calls.call(calls.schemas.SearchSchemas, request)
        return [(version.subject, version.number) for version in found.versions]

    assert await search(query=token) == [(billing, 1), (shipping, 1), (shipping, 2)]
    assert await search(query=f"{token} INVO") == [(billing, 1)]
    assert await search(query=f"{token} parcel") == [(shipping, 1)]
    assert await search(query=token, tags=["pii"]) == [(billing, 1), (shipping, 1)]
    assert await search(query=token, tags=["pii", "eu"]) == [(shipping, 1)]
    assert await search(query=token, owner="red") == [(billing, 1)]
    assert await search(query=token, state=version_pb2.VERSION_STATE_DRAFT) == [(shipping, 2)]
    assert await search(query=f"{token} nothing") == []


async def test_search_pages_without_gap_or_repeat(calls: Registry, name: Name) -> None:
    """Small pages give the same as one large page."""
    token = name("tok").replace("-", "")
    for number in range(7):
        await calls.register(f"{token}-{number}", {"title": token})

    seen: list[str] = []
    page_token = ""
    while True:
        request = pb.SearchSchemasRequest(query=token, page_size=3, page_token=page_token)
        page = await calls.call(calls.schemas.SearchSchemas, request)
        assert len(page.versions) <= 3
        seen += [version.subject for version in page.versions]
        page_token = page.next_page_token
        if not page_token:
            break

    assert seen == [f"{token}-{number}" for number in range(7)]


async def test_references_are_resolved_listed_and_protected(calls: Registry, name: Name) -> None:
    """A referenced version is found both ways and cannot be deleted while it is needed."""
    street, address, customer = name("street"), name("address"), name("customer")
    await calls.register(street, {"type": "string"})
    await calls.register(
        address,
        {"properties": {"street": {"$ref": "street.json"}}},
        references=[schema_pb2.Reference(name="street.json", subject=street, version=1)],
    )
    made = await calls.register(
        customer,
        {"properties": {"home": {"$ref": "address.json"}}},
        references=[schema_pb2.Reference(name="address.json", subject=address, version=1)],
    )

    async def reached(subject: str, direction: pb.ReferenceDirection.ValueType, *, transitive: bool) -> set[str]:
        request = pb.ListReferencesRequest(subject=subject, version=1, direction=direction, transitive=transitive)
        found = await calls.call(calls.schemas.ListReferences, request)
        return {version.subject for version in found.versions}

    dependencies, dependents = pb.REFERENCE_DIRECTION_DEPENDENCIES, pb.REFERENCE_DIRECTION_DEPENDENTS
    assert [reference.subject for reference in made.schema.references] == [address]
    assert await reached(customer, dependencies, transitive=False) == {address}
    assert await reached(customer, dependencies, transitive=True) == {address, street}
    assert await reached(street, dependents, transitive=True) == {address, customer}
    with pytest.raises(errors.VersionReferenced) as caught:
        await calls.delete(street, 1)
    assert address in caught.value.message


async def test_a_reference_to_nothing_is_refused(calls: Registry, name: Name) -> None:
    """The error names the reference; nothing is written."""
    subject, other = name(), name()
    reference = schema_pb2.Reference(name="other.json", subject=other, version=3)

    with pytest.raises(errors.ReferenceNotFound) as caught:
        await calls.register(subject, {"$ref": "other.json"}, references=[reference])

    assert caught.value.metadata == {"name": "other.json", "subject": other, "version": "3"}
    with pytest.raises(errors.SubjectNotFound):
        await calls.call(calls.subjects.GetSubject, subject_pb.GetSubjectRequest(subject=subject))


async def test_a_subject_cannot_depend_on_itself(calls: Registry, name: Name) -> None:
    """Neither directly nor through others."""
    first, second = name(), name()
    await calls.register(first, {"type": "string"})
    to_first = schema_pb2.Reference(name="first.json", subject=first, version=1)
    await calls.register(second, {"$ref": "first.json"}, references=[to_first])
    to_second = schema_pb2.Reference(name="second.json", subject=second, version=1)

    for reference in (to_first, to_second):
        with pytest.raises(errors.ReferenceCycle):
            await calls.register(first, {"$ref": reference.name}, references=[reference])


async def test_references_deeper_than_the_limit_are_refused(calls: Registry, name: Name) -> None:
    """A chain of references ends at a named limit."""
    subjects = [name("link") for _ in range(18)]
    await calls.register(subjects[0], {"type": "string"})

    async def link(subject: str, before: str) -> None:
        reference = schema_pb2.Reference(name=f"{before}.json", subject=before, version=1)
        await calls.register(subject, {"$ref": f"{before}.json"}, references=[reference])

    for before, subject in itertools.pairwise(subjects[:17]):
        await link(subject, before)

    with pytest.raises(errors.ReferenceLimit) as caught:
        await link(subjects[17], subjects[16])

    assert caught.value.metadata["depth_max"] == "16"


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        ({"subject": ""}, "subject"),
        ({"subject": "x" * 256}, "subject"),
        ({"subject": " padded "}, "subject"),
        ({"subject": "line\nbreak"}, "subject"),
        ({"subject": "nul\0"}, "subject"),
        ({"format": 0}, "format"),
        ({"format": 99}, "format"),
        ({"text": ""}, "text"),
        ({"text": '"' + "x" * (1 << 20) + '"'}, "text"),
        ({"state": version_pb2.VERSION_STATE_ARCHIVED}, "state"),
        ({"description": "x" * 4097}, "description"),
        ({"owner": "x" * 256}, "owner"),
        ({"tags": [f"t{number}" for number in range(65)]}, "tags"),
        ({"tags": ["ok", " "]}, "tags[1]"),
        ({"metadata": {"": "x"}}, "metadata"),
        ({"metadata": {f"k{number}": "" for number in range(65)}}, "metadata"),
        ({"references": [schema_pb2.Reference(name="", subject="a", version=1)]}, "references[0].name"),
        ({"references": [schema_pb2.Reference(name="a", subject="", version=1)]}, "references[0].subject"),
        ({"references": [schema_pb2.Reference(name="a", subject="a")]}, "references[0].version"),
        ({"references": [schema_pb2.Reference(name="a", subject="a", version=1)] * 2}, "references[1].name"),
        ({"references": [schema_pb2.Reference(name="a", subject="a", version=1)] * 65}, "references"),
        ({"request_id": "x" * 65}, "request_id"),
    ],
)
async def test_bad_fields_are_named(calls: Registry, name: Name, fields: dict[str, object], at_fault: str) -> None:
    """The violation names the field and what is allowed."""
    request = pb.RegisterSchemaRequest(
        **{"subject": name(), "format": JSON, "text": "{}"} | fields  # type: ignore[arg-type]  # one is wrong on purpose
    )

    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(calls.schemas.RegisterSchema, request)

    assert [violation.field for violation in caught.value.violations] == [at_fault]


async def test_all_bad_fields_are_named_at_once(calls: Registry) -> None:
    """Three mistakes, three violations."""
    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(calls.schemas.RegisterSchema, pb.RegisterSchemaRequest())

    assert {violation.field for violation in caught.value.violations} == {"subject", "format", "text"}


async def test_an_invalid_schema_names_every_place(calls: Registry, name: Name) -> None:
    """The violations hold the places in the text."""
    with pytest.raises(errors.InvalidSchema) as caught:
        await calls.register(name(), {"type": "strin", "minLength": -1})

    assert {violation.field for violation in caught.value.violations} == {"text/type", "text/minLength"}


async def test_a_format_that_nobody_knows_is_refused(calls: Registry, name: Name) -> None:
    """The error says what the server does read."""
    request = pb.RegisterSchemaRequest(subject=name(), format=9, text="{}")  # type: ignore[arg-type]

    with pytest.raises(errors.InvalidField, match="JSON, AVRO, PROTOBUF"):
        await calls.call(calls.schemas.RegisterSchema, request)


async def test_a_query_without_a_word_is_refused(calls: Registry) -> None:
    """It would match everything, which nobody means."""
    with pytest.raises(errors.InvalidField, match="no word"):
        await calls.call(calls.schemas.SearchSchemas, pb.SearchSchemasRequest(query="!!!"))


@pytest.mark.parametrize("ids", [[], [0], [-1], list(range(1, 252))])
async def test_a_bad_batch_is_refused(calls: Registry, ids: list[int]) -> None:
    """1 to 250 positive ids."""
    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(calls.schemas.BatchGetSchemas, pb.BatchGetSchemasRequest(ids=ids))

    assert caught.value.violations[0].field.startswith("ids")


@pytest.mark.parametrize(
    "request_", [pb.GetSchemaRequest(), pb.GetSchemaRequest(id=-1), pb.GetSchemaRequest(identity_fingerprint=b"short")]
)
async def test_a_bad_key_is_refused(calls: Registry, request_: pb.GetSchemaRequest) -> None:
    """An id is positive, a fingerprint has its length."""
    with pytest.raises(errors.InvalidField):
        await calls.call(calls.schemas.GetSchema, request_)


def forged(key: object) -> str:
    """A token for an unfiltered search after a key that no version has."""
    return paging.token(key, ["versions", repr(VersionFilter(words=("x",)))])


@pytest.mark.parametrize(
    "token",
    [
        *["?", "abc", "x" * 5000, "bnVsbA", "W10", "WzEsMl0"],
        base64.urlsafe_b64encode(b"[" * 3000).decode(),
        *[forged(["a", 2**40]), forged(["a", 0]), forged(["a"]), forged(7)],
        base64.urlsafe_b64encode(
            base64.urlsafe_b64decode(forged(["abc", 1]) + "==").replace(b"abc", b"\\ud800")
        ).decode(),
    ],
)
async def test_a_page_token_that_is_none_is_refused(calls: Registry, token: str) -> None:
    """Tokens are opaque; a made-up one is the caller's mistake."""
    with pytest.raises(errors.InvalidField) as caught:
        await calls.call(calls.schemas.SearchSchemas, pb.SearchSchemasRequest(query="x", page_token=token))

    assert caught.value.violations[0].field == "page_token"


async def test_a_page_token_belongs_to_its_question(calls: Registry, name: Name) -> None:
    """A token of one search does not continue another."""
    token = name("tok").replace("-", "")
    for number in range(2):
        await calls.register(f"{token}-{number}", {"title": token})
    page = await calls.call(calls.schemas.SearchSchemas, pb.SearchSchemasRequest(query=token, page_size=1))

    with pytest.raises(errors.InvalidField, match="other conditions"):
        await calls.call(
            calls.schemas.SearchSchemas, pb.SearchSchemasRequest(query="other", page_token=page.next_page_token)
        )
