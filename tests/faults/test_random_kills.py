"""A thousand processes that make backups, prune and archive, and are killed at random moments."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fix_fault_table import FaultTable

ROOT = Path(__file__).resolve().parents[2]
MEMORY = Path("/dev/shm")
KILLS = 1000
FEW = 15
SECONDS_MAX = 1800


@pytest.fixture
def fast_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: what a killed process wrote is seen by the next one all the same."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(dir=MEMORY))
    yield folder
    shutil.rmtree(folder)


async def rounds(folder: Path, seed: int, kills: int) -> dict[str, int]:
    """Runs rounds until so many processes were killed; how often what happened."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.kill_rounds", str(folder), str(seed), str(kills)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'shared'}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        said, wrong = await process.communicate()
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0, wrong.decode()
    return json.loads(said)  # type: ignore[no-any-return]


def tell(fault_table: FaultTable, seed: int, tally: dict[str, int]) -> None:
    """A line for each kind of work."""
    for case, verb in (("T1", "backup"), ("T4", "prune"), ("T1", "ship")):
        killed = sum(count for told, count in tally.items() if told.startswith(f"{verb} killed"))
        ended = tally.get(f"{verb} ended", 0)
        fault_table(
            case,
            f"{killed} random kill -9 of {verb}, seed {seed}",
            f"{ended} others ended well; G5 after each, G1, G2, G4 in {tally['checks']} checks, G3 at the end",
        )


async def test_few_random_kills(fast_folder: Path, seed: int, fault_table: FaultTable) -> None:
    """T1, T4: as below, a few of them."""
    tell(fault_table, seed, await rounds(fast_folder, seed, FEW))


@pytest.mark.slow
@pytest.mark.timeout(SECONDS_MAX)
async def test_a_thousand_random_kills(fast_folder: Path, seed: int, fault_table: FaultTable) -> None:
    """T1, T4: wherever a thousand processes are killed, what is listed is whole, what was acknowledged is listed, every
    next process works without help, the archive has no gap, and nothing is left over at the end."""
    tell(fault_table, seed, await rounds(fast_folder, seed, KILLS))
