"""Becomes another program after binding its life to the parent's (Linux), and leaving root behind where asked.

    python -I -S exec_child.py --parent PID --signal NUMBER [--namespace | --user NAME] -- PROGRAM ARGUMENT...

A program of its own rather than a `preexec_fn`: code between fork and exec of a process that runs gRPC's threads may
deadlock, and grpcio's fork handlers run for `preexec_fn` only. It costs about 20 ms. Standard library only: it runs
without site-packages.

Source: prctl(2) PR_SET_PDEATHSIG: the signal is sent when the *thread* that forked ends, survives execve, and is
cleared by a change of credentials, so it is set after that change. user_namespaces(7) for the id maps.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pwd
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NOBODY = 65534
CANNOT_START = 126
"""Exit code when the program was never reached; the reason is on standard error."""


def enter_namespace() -> None:
    """Becomes `nobody` in a user namespace where `nobody` is the user outside: files stay the caller's own."""
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWUSER) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"unshare: {os.strerror(code)}")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{NOBODY} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{NOBODY} {gid} 1")


def become(user: str) -> None:
    """Changes to another user for good, without extra groups."""
    account = pwd.getpwnam(user)
    os.setgroups([])
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)


def bind_to_parent(parent: int, signal_number: int) -> None:
    """Asks the kernel for `signal_number` when the parent's thread ends; exits if that has happened already."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl: {os.strerror(code)}")
    if os.getppid() != parent:
        raise OSError("the parent ended during the start")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--signal", type=int, required=True)
    parser.add_argument("--namespace", action="store_true")
    parser.add_argument("--user")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    try:
        if options.namespace:
            enter_namespace()
        elif options.user:
            become(options.user)
        bind_to_parent(options.parent, options.signal)
        os.execv(options.command[0], options.command)  # noqa: S606 - becoming that program is the purpose
    except (OSError, KeyError) as error:
        sys.stderr.write(f"cannot start {options.command[0]}: {error}\n")
        raise SystemExit(CANNOT_START) from None


if __name__ == "__main__":
    main()
