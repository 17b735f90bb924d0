"""Disks that are full on purpose: a small file system in memory, or a limit on the size of a server's files."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

BALLAST = "ballast"


@dataclass(frozen=True, slots=True)
class SmallDisk:
    """A file system of its own. folder: where it is mounted."""

    folder: Path

    @property
    def free_bytes(self) -> int:
        """What is left."""
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def fill(self, free_bytes: int) -> None:
        """Takes all room but so much."""
        taken = self.free_bytes - free_bytes
        if taken > 0:
            with (self.folder / BALLAST).open("ab") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, ballast.tell() + taken)

    def empty(self) -> None:
        """Gives the room back."""
        (self.folder / BALLAST).unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, size_bytes: int) -> Iterator[SmallDisk]:
    """A file system in memory, mounted for the block. Raises PermissionError where this process may not mount."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes},mode=0755", "tmpfs", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise PermissionError("there is no program `mount`") from None
    if done.returncode != 0:
        raise PermissionError(done.stderr.strip())
    try:
        yield SmallDisk(folder)
    finally:
        # Detached: a process that is about to end may still hold a file.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def file_limit(pid: int, size_bytes: int) -> Iterator[None]:
    """No file of a process, or of one that it starts from now on, grows beyond a size during the block."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
