"""A worker process of adapters/workers.py: reads work from standard input, writes results to standard output.

A frame is four bytes of length, big-endian, and a pickle. Work is (function, arguments, named arguments); a result is
(True, value) or (False, exception). The first result is None: the worker is ready.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import resource
import signal
import sys
from typing import BinaryIO

# Imported so that the first work does not wait for them.
import services.registry.adapters.protoc
import services.registry.domain.formats.avro
import services.registry.domain.formats.jsonschema
import services.registry.domain.formats.protobuf  # noqa: F401

MEMORY_BYTES_MAX = 2 << 30
LENGTH_BYTES = 4

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Works until the input ends."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            return
    source = sys.stdin.buffer
    # Nothing that a library prints may come between the frames.
    target = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _write(target, None)
    while (frame := _read(source)) is not None:
        _write(target, _done(frame))


def _done(frame: bytes) -> tuple[bool, object]:
    try:
        work, arguments, named = pickle.loads(frame)  # noqa: S301 - written by our own parent
        return True, work(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - the edge: the parent raises it
        return False, error


def _read(source: BinaryIO) -> bytes | None:
    length = source.read(LENGTH_BYTES)
    return source.read(int.from_bytes(length, "big")) if len(length) == LENGTH_BYTES else None


def _write(target: BinaryIO, value: object) -> None:
    frame = pickle.dumps(value)
    target.write(len(frame).to_bytes(LENGTH_BYTES, "big") + frame)
    target.flush()


if __name__ == "__main__":
    main()
