"""Becomes another program after binding its life to the parent's (Linux).

    python -I -S exec_program.py PARENT_PID PROGRAM ARGUMENT...

A program of its own rather than a `preexec_fn`: code between fork and exec of a process that runs gRPC's threads may
deadlock. It costs about 20 ms. Standard library only: it runs without site-packages.

Source: prctl(2) PR_SET_PDEATHSIG: the signal is sent when the *thread* that forked ends, and survives execve.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
CANNOT_START = 126
"""Exit code when the program was never reached; the reason is on standard error."""


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    try:
        if sys.platform == "linux":
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
                code = ctypes.get_errno()
                raise OSError(code, f"prctl: {os.strerror(code)}")
            if os.getppid() != parent:
                raise OSError("the parent ended during the start")
        os.execv(command[0], command)  # noqa: S606 - becoming that program is the purpose
    except OSError as error:
        sys.stderr.write(f"cannot start {command[0]}: {error.strerror or error}\n")
        raise SystemExit(CANNOT_START) from None


if __name__ == "__main__":
    main()
