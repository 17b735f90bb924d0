"""Free ports, of every worker its own."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from deploy.local import ports

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ[ports.RANGE] = ports.part(int(worker.removeprefix("gw")), workers)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Makes a free port on 127.0.0.1, outside the range of outgoing connections."""
    return ports.free_port
