"""The data folder of local mode: one launcher at a time, secrets made once."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SECRET_BYTES = 24


class HomeInUse(Exception):
    """Another launcher works in the folder."""


class Home:
    """A folder that holds everything of one local registry. Moving or copying it while stopped is allowed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Holds the folder, making it when missing. Raises HomeInUse while another process holds it.

        The lock ends with the process, whatever ends it.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.read(descriptor, 20).decode().strip() or "unknown"
                raise HomeInUse(
                    f"process {owner} runs a local registry in {self.path}: stop it first, or choose another folder "
                    "with --home or LLMSR_HOME"
                ) from None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
            yield
        finally:
            os.close(descriptor)

    def secret(self, name: str) -> str:
        """The secret of this name, made at its first use; the file is readable by its owner only."""
        return _kept(self.path / "secrets" / name)

    def write_secrets(self, folder: str, values: dict[str, str]) -> Path:
        """Writes files with secrets for a program to read, replacing those of an earlier run; returns the folder."""
        target = self.path / folder
        target.mkdir(mode=0o700, exist_ok=True)
        for old in target.iterdir():
            old.unlink()
        for name, value in values.items():
            _write_private(target / name, value)
        return target


def _kept(path: Path) -> str:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        _write_private(path, secrets.token_hex(SECRET_BYTES))
    return path.read_text()


def _write_private(path: Path, value: str) -> None:
    """Writes a file that nobody else can read, complete under its name. Raises FileExistsError."""
    if path.exists():
        raise FileExistsError(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(value)
    unfinished.rename(path)
