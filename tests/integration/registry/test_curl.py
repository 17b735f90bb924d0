"""Every unary RPC of the registry process through server reflection, with the command-line clients that people use."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2

from llm_schema_registry.client.service_config import services
from tests.fix_service import CONTROL_TOKEN, MakeService, Service

SCHEMAS = "llm_schema_registry.registry.v1.SchemaService"
SUBJECTS = "llm_schema_registry.registry.v1.SubjectService"
COMPATIBILITY = "llm_schema_registry.registry.v1.CompatibilityService"
VALIDATION = "llm_schema_registry.registry.v1.ValidationService"
CHANGES = "llm_schema_registry.registry.v1.ChangeService"
CONTROL = "llm_schema_registry.control.v1.ControlService"
HEALTH = "grpc.health.v1.Health"
CALL_SECONDS = 60
JSON = "SCHEMA_FORMAT_JSON"
ADDRESS = '{"type":"object","title":"address"}'
CUSTOMER = '{"type":"object","properties":{"home":{"$ref":"address.json"}}}'
HOME = [{"name": "address.json", "subject": "address", "version": 1}]

Answer = dict[str, Any]
Send = Callable[[str, str, str], str]
"""Sends JSON to a method with an `authorization` header (empty for none) and returns the JSON of the answer."""


class Caller:
    """Calls methods through a command-line client and remembers which."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.called: set[str] = set()

    def __call__(self, service: str, method: str, /, **fields: object) -> Answer:
        """The answer of a method to a request with the fields."""
        authorization = f"Bearer {CONTROL_TOKEN}" if service == CONTROL else ""
        self.called.add(f"{service}/{method}")
        answer = self._send(f"{service}/{method}", json.dumps(fields), authorization)
        kind = descriptor_pool.Default().FindMethodByName(f"{service}.{method}").output_type
        # The clients differ in how they write names; parsing takes both, and refuses what is no such message.
        return json_format.MessageToDict(json_format.Parse(answer, message_factory.GetMessageClass(kind)()))


def _output(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CALL_SECONDS)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}{ended.stderr}"
    return ended.stdout


def _buf(*arguments: str) -> str:
    """Output of `buf curl` over plaintext gRPC with reflection. buf is a dependency: it is always there."""
    program = str(Path(sys.executable).with_name("buf"))
    return _output([program, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect", *arguments])


def _go_program(name: str) -> str:
    """Path of a program that `go install` brings. Skips the test where it is absent."""
    go = shutil.which("go")
    folder = subprocess.run([go, "env", "GOPATH"], capture_output=True, text=True, check=False).stdout if go else ""
    installed = Path(folder.strip()) / "bin" / name if folder.strip() else None
    found = shutil.which(name) or (str(installed) if installed and installed.is_file() else None)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def with_buf(target: str) -> Send:
    """Calls with `buf curl`."""

    def send(method: str, body: str, authorization: str) -> str:
        headers = ["--header", f"authorization: {authorization}"] if authorization else []
        return _buf(*headers, "--data", body, f"http://{target}/{method}")

    return send


def with_grpcurl(target: str) -> Send:
    """Calls with grpcurl. Skips the test where it is absent."""
    program = _go_program("grpcurl")

    def send(method: str, body: str, authorization: str) -> str:
        headers = ["-H", f"authorization: {authorization}"] if authorization else []
        return _output([program, "-plaintext", *headers, "-d", body, target, method])

    return send


def unary() -> set[str]:
    """Every unary method that the registry process has by its descriptors, as service/method."""
    others = tuple(f"llm_schema_registry.{name}." for name in ("admin", "backup", "operation"))
    served = [service for service in services() if not service.full_name.startswith(others)]
    known: list[Any] = [*served, health_pb2.DESCRIPTOR.services_by_name["Health"]]
    return {
        f"{service.full_name}/{method.name}"
        for service in known
        for method in service.methods
        if not method.client_streaming and not method.server_streaming
    }


def register(call: Caller, subject: str, text: str, **fields: object) -> Answer:
    """Registers a JSON Schema."""
    return call(SCHEMAS, "RegisterSchema", subject=subject, format=JSON, text=text, **fields)


def use_schemas(call: Caller) -> None:
    """Registers two schemas, one of which references the other, and finds them in every way."""
    assert call(COMPATIBILITY, "CheckCompatibility", subject="address", format=JSON, text=ADDRESS)["report"]
    assert call(VALIDATION, "ValidateSchema", format=JSON, text=ADDRESS) == {"valid": True}
    texts = [json.dumps({"type": "object", "properties": {name: {}}, "title": name}) for name in ("street", "town")]
    texts[1] = texts[1].replace('"town": {}', '"street": {}, "town": {}')
    sources = [{"text": {"format": JSON, "text": text}} for text in texts]
    compared = call(COMPATIBILITY, "DiffSchemas", before=sources[0], after=sources[1])
    assert (compared["suggestedStep"], compared["backward"]) == ("VERSION_STEP_MINOR", "VERDICT_COMPATIBLE")
    made = register(call, "address", ADDRESS, owner="team-red", tags=["pii"])
    register(call, "customer", CUSTOMER, references=HOME)

    assert made["created"] is True
    schema_id = made["schema"]["id"]
    assert call(SCHEMAS, "GetSchema", id=schema_id)["schema"]["text"] == ADDRESS
    by_fingerprint = call(SCHEMAS, "GetSchema", identityFingerprint=made["schema"]["identityFingerprint"])
    assert base64.b64decode(made["schema"]["identityFingerprint"])
    assert by_fingerprint["schema"] == made["schema"]
    batch = call(SCHEMAS, "BatchGetSchemas", ids=[schema_id, 999])
    assert (len(batch["schemas"]), batch["missingIds"]) == (1, [999])
    found = call(SCHEMAS, "LookupSchema", subject="address", format=JSON, text=ADDRESS)
    assert found["versions"][0]["number"] == 1
    assert call(SCHEMAS, "SearchSchemas", tags=["pii"])["versions"][0]["subject"] == "address"
    direction = "REFERENCE_DIRECTION_DEPENDENTS"
    users = call(SCHEMAS, "ListReferences", subject="address", version=1, direction=direction)
    assert users["versions"][0]["subject"] == "customer"
    data = base64.b64encode(b'{"home": {}}').decode()
    assert call(VALIDATION, "ValidateData", version={"subject": "customer", "number": 1}, data=data)["valid"] is True


def use_subjects(call: Caller) -> None:
    """Leads versions through their life, sets levels, and deletes and purges everything."""
    level = {"compatibilityLevel": "COMPATIBILITY_LEVEL_NONE"}
    assert call(SUBJECTS, "UpdateConfig", subject="address", config=level)["config"]["compatibilityLevel"]
    register(call, "address", '{"type":"string"}')
    assert call(SUBJECTS, "GetConfig", subject="address")["config"]["compatibilityLevel"] == "COMPATIBILITY_LEVEL_NONE"
    reset = call(SUBJECTS, "ResetConfig", subject="address")
    assert reset["config"]["compatibilityLevel"] == "COMPATIBILITY_LEVEL_BACKWARD"

    assert [found["name"] for found in call(SUBJECTS, "ListSubjects")["subjects"]] == ["address", "customer"]
    assert call(SUBJECTS, "GetSubject", subject="address")["subject"]["latestVersion"] == 2
    assert call(SUBJECTS, "GetVersion", subject="address", latest=True)["version"]["number"] == 2
    assert len(call(SUBJECTS, "ListVersions", subject="address")["versions"]) == 2
    changed = {"subject": "address", "number": 2, "owner": "team-blue"}
    # No update_mask: grpcurl does not read its JSON form, a string, and protojson no other one.
    updated = call(SUBJECTS, "UpdateVersion", version=changed)
    assert updated["version"]["owner"] == "team-blue"
    rolled = call(SUBJECTS, "RollbackSubject", subject="address", number=1)
    assert rolled["deprecatedVersions"] == [2]
    state = "VERSION_STATE_ARCHIVED"
    assert call(SUBJECTS, "TransitionVersion", subject="address", number=2, state=state)["version"]["state"] == state

    assert call(SUBJECTS, "DeleteVersion", subject="address", number=2)["version"]["deleteTime"]
    assert len(call(SUBJECTS, "PurgeVersion", subject="address", number=2)["schemaIds"]) == 1
    assert call(SUBJECTS, "DeleteSubject", subject="customer")["versions"] == [1]
    assert call(SUBJECTS, "PurgeSubject", subject="customer")["versions"] == [1]
    changes = call(CHANGES, "ListChanges", pageSize=100)["changes"]
    assert [int(change["position"]) for change in changes] == list(range(1, len(changes) + 1))


def use_process(call: Caller) -> None:
    """Looks at the process, takes it out of the rotation and back, and stops it."""
    assert call(HEALTH, "Check") == {"status": "SERVING"}
    assert call(HEALTH, "List")["statuses"][SCHEMAS] == {"status": "SERVING"}
    assert call(CONTROL, "GetState")["process"]["service"] == "registry"
    assert len(call(CONTROL, "GetConfig")["options"]) > 50
    assert call(CONTROL, "Reload") == {}
    assert call(CONTROL, "FlushCaches")["caches"][0]["name"] == "memory"
    assert {"process.cpu.time"} <= {point["name"] for point in call(CONTROL, "GetMetrics")["points"]}
    assert call(CONTROL, "Drain", wait="1s")["process"]["state"] == "SERVICE_STATE_DRAINING"
    assert call(HEALTH, "Check", service="readiness") == {"status": "NOT_SERVING"}
    assert call(CONTROL, "Resume")["process"]["state"] == "SERVICE_STATE_SERVING"
    assert call(CONTROL, "Stop", cause="the test is over")["process"]["service"] == "registry"


@pytest.fixture
def service(make_service: MakeService, database_url: str) -> Service:
    """A registry with nothing in it, which a test may stop."""
    made = make_service(database_url)
    made.start()
    return made


def test_buf_curl_calls_every_unary_rpc(service: Service) -> None:
    """Reflection lists what the descriptors have, and every unary RPC of it does its work; the last one stops it."""
    listed = set(_buf("--list-methods", f"http://{service.target}").split())
    call = Caller(with_buf(service.target))

    use_schemas(call)
    use_subjects(call)
    use_process(call)

    assert call.called == unary(), "a method without a call in this scenario, or a call of no method"
    assert unary() <= listed
    assert service.wait() == 0


def test_grpcurl_calls_every_unary_rpc(service: Service) -> None:
    """The same with grpcurl, whose reflection client is another one."""
    call = Caller(with_grpcurl(service.target))

    use_schemas(call)
    use_subjects(call)
    use_process(call)

    assert call.called == unary()
    assert service.wait() == 0


def test_grpc_health_probe_sees_readiness_and_liveness(service: Service) -> None:
    """The probe succeeds on a ready process; on a draining one it fails for `readiness` and not for `liveness`."""
    program = _go_program("grpc-health-probe" if shutil.which("grpc_health_probe") is None else "grpc_health_probe")

    def probe(*options: str) -> int:
        command = [program, f"-addr={service.target}", "-connect-timeout=10s", "-rpc-timeout=10s", *options]
        return subprocess.run(command, capture_output=True, check=False, timeout=CALL_SECONDS).returncode

    ready = [probe(), probe("-service=readiness"), probe(f"-service={SCHEMAS}")]
    Caller(with_buf(service.target))(CONTROL, "Drain", wait="1s")

    assert ready == [0, 0, 0]
    assert probe() != 0
    assert probe("-service=readiness") != 0
    assert probe("-service=liveness") == 0


def test_a_call_without_the_token_is_refused(registry: Service) -> None:
    """What a person at the command line gets is a message that names the remedy."""
    with pytest.raises(AssertionError, match=r"control\.token"):
        _buf("--data", "{}", f"http://{registry.target}/{CONTROL}/GetState")
