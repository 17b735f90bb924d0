"""What the format asks of a Protobuf compiler. Running one writes files, so the domain is given it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

FAULTS_MAX = 100
"""Errors and warnings of one compilation that are kept."""


@dataclass(frozen=True, slots=True)
class Files:
    """What is compiled. root: name of the file that counts, in `texts` or in `descriptors`.

    texts: .proto texts by import path. descriptors: serialized FileDescriptorProtos by import path; their `name` is
    that path. Import paths are relative, have no empty, `.` or `..` parts, and none begins with google/protobuf/.
    """

    root: str
    texts: Mapping[str, str] = field(default_factory=dict)
    descriptors: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that the compiler says of a file. line, column: from 1; 0 when it names none."""

    file: str
    line: int
    column: int
    message: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of a compilation. faults: at most FAULTS_MAX, errors among them exactly when there is no result.

    descriptor_set: a serialized FileDescriptorSet with source info: the imports in the order of their dependencies,
    last the root; empty when the compiler refuses.
    """

    descriptor_set: bytes
    faults: tuple[Fault, ...] = ()


Compiler: TypeAlias = Callable[[Files], Compiled]
"""Compiles files that see nothing but each other and the well-known types. Can be pickled."""
