"""Who may import whom. Source: docs/architecture.md, layers."""

from __future__ import annotations

import ast
import fnmatch
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

PACKAGE = "llm_schema_registry"
GENERATED = re.compile(rf"{PACKAGE}\.[a-z]+\.v1(\.|$)")
FIRST_PARTY = (PACKAGE, "services", "deploy", "tests", "protos", "shared")
IMPURE = frozenset(
    {"asyncio", "http", "logging", "multiprocessing", "os", "random", "secrets", "socket", "subprocess", "tempfile"}
    | {"threading", "time", "urllib.request", "uuid"}
)
"""Standard modules that do I/O, tell the time or throw dice: not for `domain`."""
FORMAT_LIBRARIES = frozenset({"jsonschema_rs", "fastavro", "google.protobuf"})
PURE_LIBRARIES = frozenset({"cachetools", "cronsim", "cryptography", "zstandard"})
"""Data structures and algorithms: no I/O, no clock, no dice but those that are passed in."""
OBJECTS = "llm_schema_registry.objects"
OPERATIONS = "llm_schema_registry.operations"
IDS = f"{OPERATIONS}.ids"


@dataclass(frozen=True, slots=True)
class Layer:
    """Files of one kind and what they may import.

    files: pattern of their paths, relative to the root.
    ours: beginnings of our modules, `{service}` standing for the service's package; "generated" for generated code.
    theirs: beginnings of other distributions' modules; None allows all. The standard library is always allowed but for
    `not_standard`.
    """

    files: str
    ours: tuple[str, ...]
    theirs: frozenset[str] | None = None
    not_standard: frozenset[str] = frozenset()


ERRORS = f"{PACKAGE}.errors"
KERNEL = f"{PACKAGE}.kernel"
WIRE = frozenset({"google", "grpc", "grpc_health", "grpc_status"})

LAYERS = (
    Layer("services/*/domain/*", ("{service}.domain", ERRORS, IDS), FORMAT_LIBRARIES | PURE_LIBRARIES, IMPURE),
    Layer("services/*/ports.py", ("{service}.domain", ERRORS), frozenset()),
    Layer(
        "services/*/usecases/*",
        (
            "{service}.ports",
            "{service}.domain",
            "{service}.usecases",
            ERRORS,
            f"{OBJECTS}.store",
            f"{OBJECTS}.finishing",
            OPERATIONS,
        ),
        PURE_LIBRARIES,
    ),
    # A leaf between the wire's messages and the domain's words, shared by handlers and adapters.
    Layer(
        "services/*/codec/*",
        ("{service}.codec", "{service}.domain", ERRORS, f"{KERNEL}.messages", "generated"),
        frozenset({"google"}),
    ),
    Layer(
        "services/*/adapters/*",
        (
            *("{service}.adapters", "{service}.codec", "{service}.ports", "{service}.domain"),
            *(ERRORS, KERNEL, f"{PACKAGE}.objects", f"{OPERATIONS}.ports", f"{PACKAGE}.client", "generated"),
        ),
        WIRE
        | {"psycopg", "psycopg_pool", "redis", "aioboto3", "botocore", "structlog"}
        | PURE_LIBRARIES
        | {"grpc_tools"},  # protoc, for Protobuf texts.
    ),
    # The domain's words and limits pass through handlers; its rules are the usecases' to call. The kernel tells who
    # calls.
    Layer(
        "services/*/handlers/*",
        (
            *("{service}.handlers", "{service}.usecases", "{service}.codec", "{service}.ports", "{service}.domain"),
            *(ERRORS, f"{KERNEL}.calls", f"{KERNEL}.fields", f"{KERNEL}.messages", OPERATIONS, "generated"),
        ),
        WIRE | {"cachetools"},
    ),
    Layer("services/*", ("{service}", PACKAGE)),
    Layer(f"shared/{PACKAGE}/errors.py", (), frozenset()),
    Layer(f"shared/{PACKAGE}/kernel/*", (KERNEL, ERRORS, "generated")),
    Layer(f"shared/{PACKAGE}/client/*", (f"{PACKAGE}.client", ERRORS, "generated"), WIRE),
    Layer(f"shared/{PACKAGE}/objects/*", (f"{PACKAGE}.objects", ERRORS, "generated")),
    Layer(
        f"shared/{PACKAGE}/operations/*",
        (
            *(OPERATIONS, f"{OBJECTS}.store", f"{OBJECTS}.finishing", ERRORS),
            *(f"{KERNEL}.fields", f"{KERNEL}.messages", "generated"),
        ),
        frozenset({"google"}),
    ),
    Layer(f"shared/{PACKAGE}/cli/*", (f"{PACKAGE}.cli", f"{PACKAGE}.client", ERRORS, "generated")),
    Layer(f"shared/{PACKAGE}/*", ()),
    # It plays clients.
    Layer("deploy/local/demo.py", ("deploy", f"{PACKAGE}.client", ERRORS, "generated")),
    Layer("deploy/*", ("deploy",)),
    Layer("protos/*", ("generate",)),
    Layer("tests/*", ("tests", "services", "deploy", "protos", PACKAGE)),
)


def layer_of(path: PurePosixPath) -> Layer:
    """The first layer whose pattern fits; a file without one is a defect of the table."""
    return next(layer for layer in LAYERS if fnmatch.fnmatchcase(str(path), layer.files))


def violations(path: PurePosixPath, source: str) -> Iterator[str]:
    """What the file imports and may not, as `path:line: module`."""
    layer = layer_of(path)
    service = ".".join(path.parts[:2])
    for line, module in imported(ast.parse(source), path):
        if not _allowed(layer, module, service):
            yield f"{path}:{line}: {module}"


def impurities(path: PurePosixPath, source: str) -> Iterator[str]:
    """What a file of `domain` awaits, opens or asks of the clock, as `path:line: what`."""
    clocks = {"now", "utcnow", "today"}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield f"{path}:{node.lineno}: await"
            case ast.Call(func=ast.Name(id="open" | "print" | "input")):
                yield f"{path}:{node.lineno}: input or output"
            case ast.Call(func=ast.Attribute(attr=name)) if name in clocks:
                yield f"{path}:{node.lineno}: the clock"


def imported(tree: ast.Module, path: PurePosixPath) -> Iterator[tuple[int, str]]:
    """Every module that the file imports, also inside functions; names of `from` imports count as modules."""
    package = path.parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def _allowed(layer: Layer, module: str, service: str) -> bool:
    top = module.partition(".")[0]
    if top in FIRST_PARTY or top == "generate":
        if "generated" in layer.ours and GENERATED.match(module):
            return True
        return any(_begins(module, rule.format(service=service)) for rule in layer.ours)
    if top in sys.stdlib_module_names:
        return not any(_begins(module, name) for name in layer.not_standard)
    return layer.theirs is None or any(_begins(module, name) for name in layer.theirs)


def _begins(module: str, beginning: str) -> bool:
    return module == beginning or module.startswith(f"{beginning}.")
