"""Stands in for a service in tests of the launcher: answers its health page and stops on SIGTERM.

stand_in.py [--never-ready] [--deaf] [--fail] [--impatient] [--make-fails] [--make-waits] [--make FOLDER]

--make: makes a file in the folder, as a service makes its keys before its first start, and ends.
"""

from __future__ import annotations

import http.server
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any


class Health(http.server.BaseHTTPRequestHandler):
    """200 for every page, or 503 with --never-ready."""

    def do_GET(self) -> None:
        self.send_response(503 if "--never-ready" in sys.argv else 200)
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Says nothing."""


def make(folder: Path) -> None:
    """Makes `key`; or says why not; or waits to be ended, once `making` is there."""
    if "--make-fails" in sys.argv:
        raise SystemExit("the disk has a cold")
    folder.mkdir()
    if "--make-waits" in sys.argv:
        (folder / "making").touch()
        threading.Event().wait()
    (folder / "key").touch()


def main() -> None:
    if "--make" in sys.argv:
        make(Path(sys.argv[-1]))
        return
    if "--fail" in sys.argv:
        raise SystemExit("the database has a cold")
    # Before the first thread: all of them inherit it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    address = os.environ["SCHEMA_REGISTRY__SERVER__LISTEN_ADDRESS"]
    port = int(os.environ["SCHEMA_REGISTRY__SERVER__HTTP_PORT"])
    with http.server.ThreadingHTTPServer((address, port), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if "--deaf" in sys.argv:
            threading.Event().wait()
        signal.sigwait({signal.SIGTERM})
    if "--impatient" in sys.argv and signal.sigtimedwait({signal.SIGTERM}, 0.5):
        raise SystemExit("asked twice")


if __name__ == "__main__":
    main()
