"""Protobuf's own compiler, as grpcio-tools carries it, on a temporary folder that holds the given files alone.

It runs in this process, writes its messages to file descriptor 2, and may crash on hostile texts: call it in a process
that may end.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

import grpc_tools
from google.protobuf import descriptor_pb2
from grpc_tools import _protoc_compiler

from services.registry.domain.formats.protobuf.compiling import FAULTS_MAX, Compiled, Fault, Files

WELL_KNOWN: Final = Path(grpc_tools.__file__).parent / "_proto"
MESSAGES_BYTES_MAX: Final = 1 << 20
MESSAGE_CHARACTERS_MAX: Final = 500

_LINE: Final = re.compile(r"(?P<file>.*?)(?::(?P<line>\d+):(?P<column>\d+))?: (?P<message>.*)")
_LOG: Final = re.compile(r"[IWEF]\d{4} [\d:.]+ +\d+ |WARNING: All log messages before absl")
_WARNING: Final = "warning: "

_errors_taken: Final = threading.Lock()
"""File descriptor 2 belongs to the whole process."""


def compile_files(files: Files) -> Compiled:
    """What protoc makes of the files: proto2, proto3 and the editions that it knows.

    An import leads to the other files and to the well-known types of grpcio-tools, and nowhere else.
    Raises ValueError for a name that would lead out of the folder.
    """
    with tempfile.TemporaryDirectory(prefix="protoc-") as folder, tempfile.TemporaryFile() as said:
        texts, given, result = (Path(folder) / name for name in ("texts", "given", "result"))
        texts.mkdir()
        for name, text in files.texts.items():
            _write(texts, name, text.encode("utf-8"))
        descriptors = descriptor_pb2.FileDescriptorSet()
        for blob in files.descriptors.values():
            descriptors.file.add().MergeFromString(blob)
        given.write_bytes(descriptors.SerializeToString())
        arguments = [
            "protoc",
            f"--proto_path={texts}",
            f"--proto_path={WELL_KNOWN}",
            f"--descriptor_set_in={given}",
            f"--descriptor_set_out={result}",
            *("--include_imports", "--include_source_info", "--retain_options"),
            files.root,
        ]
        with _errors_to(said):
            code = _protoc_compiler.run_main([argument.encode() for argument in arguments])
        said.seek(0)
        faults = tuple(_faults(said.read(MESSAGES_BYTES_MAX).decode("utf-8", "replace"), f"{texts}/"))
        if code == 0:
            return Compiled(result.read_bytes(), faults)
        silent = Fault(files.root, 0, 0, "the compiler refuses it without saying why")
        return Compiled(b"", tuple(fault for fault in faults if not fault.warning) or (silent,))


def _write(folder: Path, name: str, content: bytes) -> None:
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise ValueError("an import path must stay within the folder")
    path = folder.joinpath(*parts)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@contextmanager
def _errors_to(file: BinaryIO) -> Iterator[None]:
    """Leads file descriptor 2 to a file, for native code that knows nothing else."""
    with _errors_taken:
        sys.stderr.flush()
        saved = os.dup(2)
        try:
            os.dup2(file.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _faults(said: str, folder: str) -> Iterator[Fault]:
    """The compiler's messages, at most FAULTS_MAX. Lines of its logging library are left out."""
    count = 0
    for line in said.splitlines():
        found = None if _LOG.match(line) else _LINE.match(line)
        if found is None:
            continue
        message = found["message"]
        warning = message.startswith(_WARNING)
        yield Fault(
            found["file"].removeprefix(folder).removeprefix(f"{WELL_KNOWN}/"),
            int(found["line"] or 0),
            int(found["column"] or 0),
            message.removeprefix(_WARNING).replace(folder, "")[:MESSAGE_CHARACTERS_MAX],
            warning=warning,
        )
        count += 1
        if count == FAULTS_MAX:
            return
