"""`llmsr schema`: what its commands take. What they do is in schema_*.py, loaded when a command runs, with gRPC."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated

import typer

from llm_schema_registry.cli.command import command
from llm_schema_registry.cli.dry_run import Apply
from llm_schema_registry.cli.exit_codes import ExitCode
from llm_schema_registry.cli.options import RequestId
from llm_schema_registry.cli.paging import LISTED_MAX, Limit, PageToken
from llm_schema_registry.cli.session import Session

app = typer.Typer(help="Register schemas, find them, compare them, check data against them.")

ORDERS = """'{"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}'"""
ORDERS_LOOSER = """'{"type": "object", "properties": {"id": {"type": "string"}}}'"""
REGISTER_ORDERS = f"echo {ORDERS} | llmsr schema register demo-orders - --format json"


LATEST = "latest"
NUMBER_MAX = 2**31 - 1
"""Ids and numbers are 31 bits. Source: schema.proto, version.proto."""


class FormatName(enum.StrEnum):
    """Languages of schemas."""

    JSON = "json"
    AVRO = "avro"
    PROTOBUF = "protobuf"


class EncodingName(enum.StrEnum):
    """How data is written."""

    JSON = "json"
    BINARY = "binary"
    FRAMED = "framed"


class StateName(enum.StrEnum):
    """Where a version stands in its life."""

    DRAFT = "draft"
    ACTIVE = "active"
    DEPRECATED = "deprecated"
    ARCHIVED = "archived"


class LevelName(enum.StrEnum):
    """Who must be able to read what."""

    NONE = "none"
    BACKWARD = "backward"
    BACKWARD_TRANSITIVE = "backward_transitive"
    FORWARD = "forward"
    FORWARD_TRANSITIVE = "forward_transitive"
    FULL = "full"
    FULL_TRANSITIVE = "full_transitive"


class PolicyName(enum.StrEnum):
    """By which rules schemas are compared."""

    EXACT = "exact"
    STRICT = "strict"
    LENIENT = "lenient"


Subject = Annotated[str, typer.Argument(help="The subject.", show_default=False)]
SchemaFile = Annotated[str, typer.Argument(metavar="FILE", help="The schema; - reads standard input.")]
Format = Annotated[
    FormatName | None,
    typer.Option("--format", help="The schema's language; without it the file's name tells: .json, .avsc, .proto."),
]
References = Annotated[
    list[str],
    typer.Option(
        "--reference", metavar="NAME=SUBJECT:VERSION", help="What a name in the schema stands for. Repeatable."
    ),
]
Number = Annotated[str, typer.Option("--version", metavar="NUMBER", help="A number, or latest.")]
SchemaId = Annotated[
    int | None,
    typer.Option("--id", metavar="ID", min=1, max=NUMBER_MAX, help="The id of a schema, instead of a subject."),
]


@dataclass(frozen=True, slots=True)
class Register:
    """Options of `schema register`."""

    subject: Subject
    file: SchemaFile
    format: Format = None
    references: References = field(default_factory=list)
    description: Annotated[str, typer.Option(help="What the version is for.")] = ""
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = ""
    tags: Annotated[list[str], typer.Option("--tag", help="A label. Repeatable.")] = field(default_factory=list)
    metadata: Annotated[
        list[str], typer.Option("--metadata", metavar="KEY=VALUE", help="A fact of your own. Repeatable.")
    ] = field(default_factory=list)
    draft: Annotated[bool, typer.Option("--draft", help="As a proposal, which is not checked yet.")] = False
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Check everything, write nothing.")] = False
    accept_undecided: Annotated[
        bool, typer.Option("--accept-undecided", help="Take it also when nobody can show that it is compatible.")
    ] = False
    request_id: RequestId = ""


@command(
    app,
    Register,
    examples=[
        f"{REGISTER_ORDERS} --owner team-red --tag demo",
        f"echo {ORDERS} > /tmp/demo-orders.json",
        "llmsr schema register demo-orders /tmp/demo-orders.json --validate-only",
    ],
)
async def register(session: Session, options: Register) -> ExitCode:
    """Registers a schema as the next version of a subject.

    A schema that the subject has already is found, not registered again. One that breaks a reader or writer is refused
    with status 1; 'llmsr schema check' says why. As JSON: RegisterSchemaResponse.
    """
    from llm_schema_registry.cli import schema_write

    return await schema_write.register(session, options)


@dataclass(frozen=True, slots=True)
class Get:
    """Options of `schema get`."""

    subject: Annotated[str, typer.Argument(help="The subject; or give --id.", show_default=False)] = ""
    id: SchemaId = None
    version: Number = LATEST
    text: Annotated[bool, typer.Option("--text", help="Write the schema's text alone, byte for byte.")] = False
    include_deleted: Annotated[bool, typer.Option("--include-deleted", help="Also a deleted version.")] = False


@command(
    app,
    Get,
    examples=[
        REGISTER_ORDERS,
        "llmsr schema get demo-orders",
        "llmsr schema get demo-orders --version 1 --text > /tmp/demo-orders.json",
    ],
)
async def get(session: Session, options: Get) -> ExitCode:
    """Shows a version with its schema, or a schema by its id.

    As JSON: GetVersionResponse; with --id GetSchemaResponse.
    """
    from llm_schema_registry.cli import schema_read

    return await schema_read.get(session, options)


@dataclass(frozen=True, slots=True)
class List:
    """Options of `schema list`."""

    subject: Annotated[str, typer.Argument(help="List the versions of this subject.", show_default=False)] = ""
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only subjects that begin with this.")] = ""
    state: Annotated[StateName | None, typer.Option(help="Only versions in this state.")] = None
    include_deleted: Annotated[bool, typer.Option("--include-deleted", help="Also what is deleted.")] = False
    limit: Limit = LISTED_MAX
    page_token: PageToken = ""


@command(
    app,
    List,
    name="list",
    examples=["llmsr schema list --prefix demo-", REGISTER_ORDERS, "llmsr schema list demo-orders"],
)
async def list_(session: Session, options: List) -> ExitCode:
    """Lists the subjects, or the versions of one.

    As JSON: ListSubjectsResponse, ListVersionsResponse; next_page_token is empty unless --limit cut the list.
    """
    from llm_schema_registry.cli import schema_read

    return await schema_read.list_(session, options)


@dataclass(frozen=True, slots=True)
class Search:
    """Options of `schema search`."""

    words: Annotated[
        list[str], typer.Argument(help="Beginnings of words, all of which must be found.", show_default=False)
    ] = field(default_factory=list)
    tags: Annotated[list[str], typer.Option("--tag", help="A label it has. Repeatable.")] = field(default_factory=list)
    owner: Annotated[str, typer.Option(help="Who answers for it.")] = ""
    format: Annotated[FormatName | None, typer.Option("--format", help="The schema's language.")] = None
    state: Annotated[StateName | None, typer.Option(help="Only versions in this state.")] = None
    limit: Limit = LISTED_MAX
    page_token: PageToken = ""


@command(app, Search, examples=["llmsr schema search demo ord --state active"])
async def search(session: Session, options: Search) -> ExitCode:
    """Finds versions by words in their subject, description, owner, tags, metadata, and in the schema's title.

    As JSON: SearchSchemasResponse.
    """
    from llm_schema_registry.cli import schema_read

    return await schema_read.search(session, options)


@dataclass(frozen=True, slots=True)
class Check:
    """Options of `schema check`."""

    subject: Subject
    file: SchemaFile
    format: Format = None
    references: References = field(default_factory=list)
    version: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, max=NUMBER_MAX, help="Against this version alone.", show_default="the history"
        ),
    ] = None
    level: Annotated[LevelName | None, typer.Option(help="The level to check.", show_default="the subject's")] = None
    policy: Annotated[PolicyName | None, typer.Option(help="The rules.", show_default="the subject's")] = None


@command(
    app,
    Check,
    examples=[
        REGISTER_ORDERS,
        f"echo {ORDERS_LOOSER} | llmsr schema check demo-orders - --format json",
    ],
)
async def check(session: Session, options: Check) -> ExitCode:
    """Says whether a schema may follow a subject's versions, and why not. Writes nothing to the registry.

    Status 1 when it is incompatible, or when neither could be shown. As JSON: CheckCompatibilityResponse.
    """
    from llm_schema_registry.cli import schema_compare

    return await schema_compare.check(session, options)


@dataclass(frozen=True, slots=True)
class Diff:
    """Options of `schema diff`."""

    subject: Subject
    before: Annotated[
        int,
        typer.Option(
            "--from", metavar="NUMBER", min=1, max=NUMBER_MAX, help="The earlier version.", show_default=False
        ),
    ]
    after: Annotated[str, typer.Option("--to", metavar="NUMBER", help="The later version, or latest.")] = LATEST
    file: Annotated[str, typer.Option("--file", metavar="FILE", help="A schema instead of the later version.")] = ""
    format: Format = None
    references: References = field(default_factory=list)
    policy: Annotated[
        PolicyName | None, typer.Option(help="The rules of the verdicts.", show_default="the global ones")
    ] = None


@command(app, Diff, examples=[REGISTER_ORDERS, "llmsr schema diff demo-orders --from 1 --to latest"])
async def diff(session: Session, options: Diff) -> ExitCode:
    """Tells part by part what changed between two versions, or between a version and a file.

    Status 0 whatever changed. As JSON: DiffSchemasResponse.
    """
    from llm_schema_registry.cli import schema_compare

    return await schema_compare.diff(session, options)


@dataclass(frozen=True, slots=True)
class Validate:
    """Options of `schema validate`."""

    names: Annotated[
        list[str],
        typer.Argument(
            metavar="SUBJECT|FILE",
            help="The subject, then data; - reads standard input. With --id or --framed-id data alone.",
            show_default=False,
        ),
    ]
    version: Number = LATEST
    id: SchemaId = None
    framed_id: Annotated[
        bool, typer.Option("--framed-id", help="The schema is the one that each frame names, instead of a subject.")
    ] = False
    encoding: Annotated[EncodingName, typer.Option(help="How the data is written.")] = EncodingName.JSON
    lines: Annotated[bool, typer.Option("--lines", help="Each line of a file is one JSON value.")] = False
    strict: Annotated[bool, typer.Option("--strict", help="Fields that the schema does not know are faults.")] = False
    assert_formats: Annotated[
        bool | None,
        typer.Option(help="Whether formats and logical types count.", show_default="as the subject's settings say"),
    ] = None
    message_type: Annotated[str, typer.Option(metavar="NAME", help="Protobuf: the message's full name.")] = ""


@command(
    app,
    Validate,
    examples=[
        REGISTER_ORDERS,
        'echo \'{"id": "a1"}\' | llmsr schema validate demo-orders -',
        'printf \'{"id": "a1"}\\n{"id": "a2"}\\n\' | llmsr schema validate demo-orders - --lines',
    ],
)
async def validate(session: Session, options: Validate) -> ExitCode:
    """Checks data against a schema.

    Status 1 when anything is invalid. As JSON: {"valid": bool, "results": [{"file": ..., and the fields of
    ValidateDataResponse}]}. With --lines, JSON lines: for each invalid line {"file", "line", and the fields of
    PayloadResult}, and at last {"summary": {"checked", "valid", "invalid"}}; any number of lines is checked in bounded
    memory, and blank ones are passed over.
    """
    from llm_schema_registry.cli import schema_validate

    return await schema_validate.validate(session, options)


@dataclass(frozen=True, slots=True)
class Delete:
    """Options of `schema delete`."""

    subject: Subject
    version: Annotated[
        int | None,
        typer.Option(metavar="NUMBER", min=1, max=NUMBER_MAX, help="This version alone.", show_default="all"),
    ] = None
    purge: Annotated[bool, typer.Option("--purge", help="Remove for good what is deleted already.")] = False
    request_id: RequestId = ""
    apply: Apply = False


@command(
    app,
    Delete,
    examples=[REGISTER_ORDERS, "llmsr schema delete demo-orders", "llmsr schema delete demo-orders --version 1"],
)
async def delete(session: Session, options: Delete) -> ExitCode:
    """Deletes a version or all of a subject's. Without --apply it only says what would happen.

    What is deleted stays readable by its id until it is purged. As JSON: {"applied": bool, "subject", "versions":
    [numbers]}, and after a purge "schema_ids".
    """
    from llm_schema_registry.cli import schema_delete

    return await schema_delete.delete(session, options)
