"""Rounds of backups, prunes and shipping, each in a process of its own that is killed at a random moment.

Run as `python -m tests.kill_rounds FOLDER SEED KILLS`. It imports everything once and forks a process for each round,
until so many were killed: by SIGKILL, at a random failpoint or after a random time. The others get through. An hour of
the store's clock lies between two rounds, so the lease of a dead process is over. What must be true is checked by
processes of its own:

after each round: a process that was not killed ended well (G5);
after every CHECK_ROUNDS: what was acknowledged last is listed (G4), all that is listed reads in full (G1, G2), and the
archive holds the history without a gap;
at the end: after two prunes a day apart nothing is left of what was killed (G3).

Prints a JSON object with what was done. Ends with the trace and status 1 at the first thing that is not as it must be.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from llm_schema_registry.kernel.failpoints import EnvironmentFailpoints, NoFailpoints
from services.backup.domain import layout
from services.backup.domain.layout import SegmentKey
from services.backup.domain.retention import Policy
from tests.backup_parts import NOON, HandClock, MemoryRegistry, Parts, make_parts

POLICY = Policy(hourly=3, daily=2, monthly=1, floor=1, share_max=1.0, stale_after=timedelta(days=100))
POINTS = {
    "backup": (
        "backup.checked",
        "backup.snapshot_open",
        "backup.piece_written",
        "backup.before_complete",
        "backup.object_complete",
        "backup.before_commit",
        "backup.committed",
    ),
    "prune": ("prune.buried", "remove.manifest_gone", "remove.object_gone"),
    "ship": ("archive.before_put", "archive.put"),
}
VERBS = ("backup",) * 6 + ("prune",) * 2 + ("ship",) * 2
TIMES_MAX = 3
"""How often a failpoint is passed before the one that kills, at most."""
DUMP_BYTES = 250_000
CHANGES_A_ROUND = 2
CHECK_ROUNDS = 10
ROUNDS_A_KILL_MAX = 10
"""Two or three are usual; more are needed until it is known how long a round lasts on this machine."""
PROCESS_SECONDS_MAX = 60.0
"""Of a process that nobody kills."""
FIRST_SECONDS = 0.2
"""How long a round is taken to last before one was measured."""

Work = Callable[[], Awaitable[str]]


@dataclass
class Rounds:
    """The rounds over one folder. newest: the last backup that a process said it had made."""

    folder: Path
    rng: random.Random
    registry: MemoryRegistry = field(default_factory=lambda: MemoryRegistry(HandClock()))
    hours: int = 0
    newest: str = ""
    lasted: dict[str, float] = field(default_factory=lambda: dict.fromkeys(POINTS, FIRST_SECONDS))
    tally: Counter[str] = field(default_factory=Counter)

    def run(self, kills: int) -> None:
        """Runs rounds until so many were killed, and the checks between and behind them."""
        for number in range(1, ROUNDS_A_KILL_MAX * kills + 1):
            self._write()
            self._round()
            over = self.killed >= kills
            if number % CHECK_ROUNDS == 0 or over:
                self._require(self._check)
                self.tally["checks"] += 1
            if over:
                break
        else:
            raise AssertionError(f"{self.killed} of {kills} were killed: rounds end too early")
        self._require(self._nothing_left)

    @property
    def killed(self) -> int:
        """How many processes were."""
        return sum(count for told, count in self.tally.items() if "killed" in told)

    def _write(self) -> None:
        """An hour later there are more changes."""
        self.hours += 1
        self.registry.clock = HandClock(NOON + timedelta(hours=self.hours))
        self.registry.write(CHANGES_A_ROUND)
        self.registry.dump_bytes = DUMP_BYTES

    def _round(self) -> None:
        """One process, which is killed at a failpoint, or after a time, or is as fast as that."""
        verb = self.rng.choice(VERBS)
        points, seconds = "", PROCESS_SECONDS_MAX
        if self.rng.random() < 0.5:
            points = f"{self.rng.choice(POINTS[verb])}@{self.rng.randint(1, TIMES_MAX)}:kill"
        else:
            seconds = self.rng.uniform(0, 1.1 * self.lasted[verb])
        began = time.monotonic()
        status, told = forked(lambda: self._work(verb, points), seconds)
        if status == 0:
            self.tally[f"{verb} ended"] += 1
            self.lasted[verb] = 0.8 * self.lasted[verb] + 0.2 * (time.monotonic() - began)
            self.newest = told or self.newest
        elif status == -signal.SIGKILL:
            self.tally[f"{verb} killed at a failpoint" if points else f"{verb} killed after a time"] += 1
        else:
            raise AssertionError(f"{verb} with {points or seconds} in hour {self.hours} failed:\n{told}")

    async def _work(self, verb: str, points: str) -> str:
        """What the process of a round does; the id of the backup that it made."""
        parts = self._parts(points)
        if verb == "prune":
            await parts.prune.apply()
            return ""
        if verb == "ship":
            await _ship(parts)
            return ""
        return (await parts.backup()).id

    def _parts(self, points: str = "") -> Parts:
        """The use cases in a process that has just been forked."""
        self.registry.rng = random.Random(self.hours)
        return make_parts(
            self.folder,
            clock=self.registry.clock,
            registry=self.registry,
            failpoints=EnvironmentFailpoints(points) if points else NoFailpoints(),
            policy=POLICY,
            owner=f"pid-{os.getpid()}",
        )

    def _require(self, check: Work) -> None:
        status, told = forked(check, PROCESS_SECONDS_MAX)
        if status != 0:
            raise AssertionError(f"the check in hour {self.hours} ended with {status}:\n{told}")

    async def _check(self) -> str:
        """What is listed is whole and holds what was acknowledged; the archive is."""
        parts = self._parts()
        parts.clock.move(minutes=5)  # Past the lease of the round before.
        listing = await parts.repository.catalog.listing()
        assert not listing.problems, listing.problems
        assert not self.newest or self.newest in {entry.id for entry in listing.entries}, f"{self.newest} is gone"
        for entry in listing.entries:
            found = await parts.look(entry.id)
            assert found.passed, (entry.id, found.problems)
        await _ship(parts)
        await self._require_archive(parts)
        return ""

    async def _require_archive(self, parts: Parts) -> None:
        """The archive holds the history from where retention left it on, each change once."""
        spans = sorted(await parts.spans(), key=lambda span: span.first)
        keys = [SegmentKey(span.epoch, span.first, span.last) for span in spans]
        found = [change for key in keys for change in (await parts.archive.read(key))[0].changes]
        history = self.registry.history
        assert found, "the archive is empty"
        assert found == history[-len(found) :], "the archive is not the history"

    async def _nothing_left(self) -> str:
        """After prunes a day apart the store holds what belongs to listed backups, and nothing else."""
        parts = self._parts()
        for hours in (25, 25, 0, 0):
            parts.clock.move(hours=hours)
            await parts.prune.apply()
        made = await parts.backup()
        kept = set(await parts.ids())
        assert made.id in kept
        assert {layout.backup_of(key) for key in await parts.keys("backups/")} == kept
        key_ids = {key.split("/")[1] for key in await parts.keys("keys/")}
        purposes = [await parts.repository.keys.purpose(key_id) for key_id in key_ids]
        assert sorted(each for each in purposes if each.startswith("backup/")) == sorted(
            f"backup/{each}" for each in kept
        )
        listing = await parts.repository.catalog.listing()
        referred = {entry.manifest.previous_sha256 for entry in listing.entries}
        assert {each.manifest_sha256 for each in listing.tombstones} <= referred
        assert len(await parts.keys("tombstones/")) == len(listing.tombstones)
        left = [path for path in (parts.folder / ".uploads").rglob("*") if path.is_file()]
        assert not left, left
        return ""


async def _ship(parts: Parts) -> None:
    """Archives what there is."""
    async with parts.repository.leases.held("archive") as lease:
        await parts.ship._begin()
        await parts.ship.step(lease)


def forked(work: Work, seconds: float) -> tuple[int, str]:
    """Does the work in a process of its own, which is killed after so many seconds; its status, and what it said."""
    here, there = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work_and_end(work, there)
    os.close(there)
    process = os.pidfd_open(pid)
    try:
        if not select.select([process], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        _, ended = os.waitpid(pid, 0)
        with os.fdopen(here, "rb") as said:
            return os.waitstatus_to_exitcode(ended), said.read().decode()
    finally:
        os.close(process)


def _work_and_end(work: Work, there: int) -> None:
    status = 1
    try:
        os.write(there, asyncio.run(work()).encode())  # type: ignore[arg-type]
        status = 0
    except BaseException:  # noqa: BLE001 - the edge of a process
        os.write(there, traceback.format_exc()[-4000:].encode())
    finally:
        os._exit(status)


def main(folder: Path, seed: str, count: int) -> None:
    """Runs the rounds and prints what was done."""
    rounds = Rounds(folder, random.Random(seed))
    try:
        rounds.run(count)
    except AssertionError as wrong:
        sys.stderr.write(f"seed {seed}: {wrong}\n")
        raise SystemExit(1) from None
    sys.stdout.write(json.dumps(dict(rounds.tally)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
