"""Free ports."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deploy.local import ports


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Makes a free port on 127.0.0.1, outside the range of outgoing connections."""
    return ports.free_port
