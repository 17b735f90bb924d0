"""What a person is told when the local registry runs: where everything is, and lines to paste."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from deploy.local.ports import HOST

SUBJECT = "orders-value"
SCHEMA = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "quantity": {"type": "integer", "minimum": 1}},
    "required": ["order_id"],
}
RULE = "─" * 78


@dataclass(frozen=True, slots=True)
class Running:
    """One service that is ready."""

    name: str
    grpc_port: int
    http_port: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the banner tells."""

    services: tuple[Running, ...]
    home: Path
    postgres: str
    psql: Path
    database_port: int
    database_role: str
    database_password: Path
    control_token: Path
    admin_token: Path
    valkey_port: int


def text(facts: Facts) -> str:
    """The banner. Every line of a command runs as pasted into a shell in the present folder."""
    return "\n".join([RULE, *_places(facts), "", *_commands(facts), RULE])


def _places(facts: Facts) -> list[str]:
    rows = [
        *(
            (service.name, f"gRPC {HOST}:{service.grpc_port}   HTTP http://{HOST}:{service.http_port}")
            for service in facts.services
        ),
        (facts.postgres, f"{HOST}:{facts.database_port}"),
        ("Valkey", f"{HOST}:{facts.valkey_port}"),
        ("data and logs", str(facts.home)),
    ]
    return ["  LLM Schema Registry, local mode: every caller is an administrator", ""] + [
        f"  {name:<16} {place}" for name, place in rows
    ]


def _commands(facts: Facts) -> list[str]:
    first = facts.services[0]
    address = f"{HOST}:{first.grpc_port}"
    lines: list[str] = []
    registration = {"subject": SUBJECT, "format": "SCHEMA_FORMAT_JSON", "text": json.dumps(SCHEMA)}
    service = "llm_schema_registry.registry.v1.SchemaService"
    lines += ["  Register a schema (either line), read it back:", ""]
    lines += [_grpcurl(address, f"{service}/RegisterSchema", registration)]
    lines += [_buf_curl(address, f"{service}/RegisterSchema", registration)]
    lines += [_buf_curl(address, f"{service}/GetSchema", {"id": 1})]
    lines += ["", "  Make a backup, see what there is:", ""]
    lines += [f"{_path(_beside('llmsr'))} {target}backup create" for target in _backup_target(facts)]
    lines += [f"{_path(_beside('llmsr'))} {target}backup list" for target in _backup_target(facts)]
    lines += _admin_commands(facts)
    lines += ["", "  Health:", ""]
    lines += [_grpcurl(address, "grpc.health.v1.Health/Check", {})]
    lines += [_buf_curl(address, "grpc.health.v1.Health/Check", {})]
    lines += [f"curl -s http://{HOST}:{first.http_port}/health/ready"]
    lines += ["", "  Control, SQL, log:", ""]
    token = f"authorization: Bearer $(cat {_path(facts.control_token)})"
    control = "llm_schema_registry.control.v1.ControlService/GetState"
    lines += [_buf_curl(address, control, {}, f'-H "{token}" ')]
    lines += [_psql(facts)]
    lines += [f"tail -f {_path(facts.home / f'{first.name}.log')}"]
    return [*lines, "", "  Ctrl-C stops everything in order; the data stays."]


def _backup_target(facts: Facts) -> list[str]:
    """The option that names the backup service, once, when there is one."""
    return [f"--backup-target {HOST}:{service.grpc_port} " for service in facts.services if service.name == "backup"]


def _admin_commands(facts: Facts) -> list[str]:
    """How the whole system is seen and steered, when there is an admin service."""
    admin = next((service for service in facts.services if service.name == "admin"), None)
    if admin is None:
        return []
    where = f"--admin-target {HOST}:{admin.grpc_port} --admin-token-file {_path(facts.admin_token)}"
    program = f"{_path(_beside('llmsr'))} {where}"
    verbs = ("system status", "smoke", "system restart --apply", "system shutdown --apply")
    return ["", "  See the whole system, try it, restart or stop it:", "", *(f"{program} {verb}" for verb in verbs)]


def _grpcurl(address: str, method: str, request: object) -> str:
    return f"grpcurl -plaintext -d {_body(request)} {address} {method}"


def _buf_curl(address: str, method: str, request: object, headers: str = "") -> str:
    buf = _path(_beside("buf"))
    return f"{buf} curl --protocol grpc --http2-prior-knowledge {headers}-d {_body(request)} http://{address}/{method}"


def _psql(facts: Facts) -> str:
    return (
        f"PGPASSWORD=$(cat {_path(facts.database_password)}) {_path(facts.psql)} "
        f"-h {HOST} -p {facts.database_port} -U {facts.database_role} {facts.database_role}"
    )


def _beside(program: str) -> Path:
    """A program of this Python environment, else whatever the name means to the shell."""
    beside = Path(sys.executable).parent / program
    return beside if beside.exists() else Path(shutil.which(program) or program)


def _body(request: object) -> str:
    return shlex.quote(json.dumps(request))


def _path(path: Path) -> str:
    """The path as one word of a shell, relative to the present folder where it lies below."""
    here = Path.cwd()
    return shlex.quote(os.fspath(path.relative_to(here) if path.is_relative_to(here) else path))
