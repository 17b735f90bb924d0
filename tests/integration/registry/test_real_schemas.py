"""Real schemas: every JSON Schema that three installed packages ship goes through the registry and back."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_schema_registry import errors
from llm_schema_registry.client import RegistryClient
from llm_schema_registry.registry.v1 import (
    compatibility_pb2,
    compatibility_service_pb2,
    schema_pb2,
    schema_service_pb2,
    subject_service_pb2,
    validation_service_pb2,
)
from services.registry.domain.formats.json_text import compact
from tests.fix_calls import Registry
from tests.fix_service import MakeService, Service

PACKAGES = ("check_jsonschema", "jsonschema_specifications", "setuptools")
LEAST_SCHEMAS = 25
TEXT_BYTES_MAX = 1 << 20

REFUSED: dict[str, tuple[type[errors.Error], str]] = {
    "check_jsonschema/drone-ci.json": (errors.InvalidSchema, "nothing is ever fetched"),
    "check_jsonschema/azure-pipelines.json": (errors.InvalidField, "at most 1048576"),
    "check_jsonschema/renovate.json": (errors.InvalidField, "at most 1048576"),
    "jsonschema_specifications/draft3": (errors.InvalidSchema, "must be one of"),
}
"""What is refused, and why: a reference to the network, texts beyond the limit, a draft that nobody should use."""


def real_schemas() -> Iterator[tuple[str, str]]:
    """(name, text) of every file in the packages that says it is a JSON Schema."""
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        folder = Path(spec.origin).parent
        for path in sorted(folder.rglob("*.json")):
            text = path.read_text(encoding="utf-8")
            value = json.loads(text)
            if isinstance(value, dict) and "$schema" in value:
                stem = path.parent.name if path.name == "metaschema.json" else path.name
                yield f"{package}/{stem}", text


@pytest.fixture(scope="module")
def schemas() -> dict[str, str]:
    """All of them by name."""
    found = dict(real_schemas())
    assert len(found) >= LEAST_SCHEMAS
    assert {name.split("/")[0] for name in found} == set(PACKAGES)
    return found


async def test_real_schemas_go_in_and_come_out_the_same(calls: Registry, schemas: dict[str, str]) -> None:
    """Registered, read back letter for letter, listed, found by name; what is refused is refused for a named reason."""
    for name, text in schemas.items():
        if name in REFUSED:
            error, reason = REFUSED[name]
            with pytest.raises(error, match=reason):
                await calls.register(f"real/{name}", text)
            continue
        made = await calls.register(f"real/{name}", text)
        read = await calls.schema(made.schema.id)
        assert compact(read.text) == compact(text)
        assert (await calls.register(f"real/{name}", compact(text))).version == made.version

    accepted = sorted(f"real/{name}" for name in schemas if name not in REFUSED)
    listed = await calls.call(
        calls.subjects.ListSubjects, subject_service_pb2.ListSubjectsRequest(name_prefix="real/", page_size=1000)
    )
    assert [subject.name for subject in listed.subjects] == accepted
    found = await calls.call(
        calls.schemas.SearchSchemas, schema_service_pb2.SearchSchemasRequest(query="real github workflows")
    )
    assert "real/check_jsonschema/github-workflows.json" in [version.subject for version in found.versions]


async def test_real_data_follows_real_schemas(calls: Registry, schemas: dict[str, str]) -> None:
    """A GitHub workflow, and the meta-schemas themselves, as data."""
    workflow = await calls.register("data/workflow", schemas["check_jsonschema/github-workflows.json"])
    meta = await calls.register("data/draft7", schemas["jsonschema_specifications/draft7"])

    async def faults(schema_id: int, data: object) -> set[str]:
        request = validation_service_pb2.ValidateDataRequest(schema_id=schema_id, data=json.dumps(data).encode())
        answer = await calls.call(calls.validation.ValidateData, request)
        assert answer.valid == (not answer.errors)
        return {error.instance_path for error in answer.errors}

    good = {"on": "push", "jobs": {"test": {"runs-on": "ubuntu-latest", "steps": [{"run": "make test"}]}}}
    assert await faults(workflow.schema.id, good) == set()
    assert await faults(workflow.schema.id, {**good, "jobs": {"test": {"steps": "none"}}}) != set()
    assert await faults(workflow.schema.id, {"on": "push"}) == {""}
    assert await faults(meta.schema.id, json.loads(schemas["jsonschema_specifications/draft7"])) == set()
    assert await faults(meta.schema.id, {"type": "strin"}) == {"/type"}


@pytest.mark.parametrize("draft", ["draft4", "draft6", "draft7", "draft201909", "draft202012"])
async def test_meta_schemas_follow_themselves(calls: Registry, schemas: dict[str, str], draft: str) -> None:
    """Each describes itself, formats included, and compares as equal to itself in another order under every policy."""
    text = schemas[f"jsonschema_specifications/{draft}"]
    made = await calls.register(f"meta/{draft}", text)
    request = validation_service_pb2.ValidateDataRequest(
        schema_id=made.schema.id, data=text.encode(), assert_formats=True
    )
    turned = json.dumps(dict(reversed(json.loads(text).items())))

    assert (await calls.call(calls.validation.ValidateData, request)).valid
    for policy in compatibility_pb2.CompatibilityPolicy.values()[1:]:
        check = compatibility_service_pb2.CheckCompatibilityRequest(
            subject=f"meta/{draft}",
            format=schema_pb2.SCHEMA_FORMAT_JSON,
            text=turned,
            policy=policy,
            level=compatibility_pb2.COMPATIBILITY_LEVEL_FULL,
        )
        report = (await calls.call(calls.compatibility.CheckCompatibility, check)).report
        assert report.verdict == compatibility_pb2.VERDICT_COMPATIBLE


async def test_a_large_schema_does_not_hold_up_others(make_service: MakeService, database_url: str) -> None:
    """With a larger limit the largest real schema is taken too, off the event loop."""
    service: Service = make_service(database_url, limits__schema_text_bytes_max=4 << 20)
    await service.start_async()
    text = dict(real_schemas())["check_jsonschema/azure-pipelines.json"]
    assert len(text) > TEXT_BYTES_MAX

    async with RegistryClient(service.target) as client:
        calls = Registry(client)
        made = await calls.register("azure", text)
        assert (await calls.schema(made.schema.id)).text == text
