"""Long cases that take turns: a run of the slow tests does a share of them, and the seed chooses which.

    @pytest.mark.rotating(4)                a quarter of the cases of this file that carry the mark
    @pytest.mark.rotating(2, "long runs")   half of the cases of all files that carry the mark with this name

`make test-slow ROTATION=all` does all of them.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import defaultdict

import pytest

MARKER = "rotating"
VARIABLE = "ROTATION"
ALL = "all"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the cases whose turn it is not. Whoever names a case, or asks for all, gets it."""
    if os.environ.get(VARIABLE) == ALL or any("::" in argument for argument in config.args):
        return
    seed = int(config.getoption("--hypothesis-seed") or 0)
    others = {item.nodeid for item in left_out(items, seed)}
    if others:
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid in others])
        items[:] = [item for item in items if item.nodeid not in others]


def left_out(items: list[pytest.Item], seed: int) -> list[pytest.Item]:
    """Of each file or name all but a share, which the seed chooses; one case at least is kept."""
    groups: defaultdict[tuple[str, int], list[pytest.Item]] = defaultdict(list)
    for item in items:
        mark = item.get_closest_marker(MARKER)
        if mark is not None:
            share, *name = mark.args
            groups[name[0] if name else str(item.path), int(share)].append(item)
    found: list[pytest.Item] = []
    for (_, share), group in groups.items():
        ordered = sorted(group, key=lambda item: (zlib.crc32(f"{seed}/{item.name}".encode()), item.nodeid))
        found.extend(ordered[math.ceil(len(group) / share) :])
    return found
