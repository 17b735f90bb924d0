"""Replicas that were away when a recovery took its fence off: put back into their modes on their return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from llm_schema_registry import errors
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.recovery import Recovery, RecoveryState
from services.admin.domain.system import MODES, REGISTRY, Replica, State
from services.admin.ports import Peers
from services.admin.usecases.office import Office
from services.admin.usecases.recovery_journal import RecoveryJournal
from services.admin.usecases.steer import Steer

LOOK_SECONDS = 20.0
"""Between two looks into the journal while nobody is away."""
AWAY_SECONDS = 5.0
"""Between two looks at who is."""
GIVE_UP = timedelta(days=1)
"""After the recovery's end: whoever comes back then has been started anew, or is another one at the same address."""


class Returning:
    """Looks after the replicas that the newest recovery left fenced. Every replica of this service does."""

    def __init__(
        self, peers: Peers, journal: RecoveryJournal, office: Office, clock: Clock, report: Callable[..., None]
    ) -> None:
        """report: where an operator's notes go."""
        self._peers = peers
        self._steer = Steer(peers)
        self._journal = journal
        self._office = office
        self._clock = clock
        self._report = report

    async def run(self) -> None:
        """Looks for ever. What fails is tried again at the next look."""
        while True:
            away = False
            try:
                away = await self.look()
            except errors.Error as failed:
                self._report("replicas behind a recovery not looked after", message=failed.message)
            except Exception:  # noqa: BLE001 - whatever it was, the next look may go well
                self._report("replicas behind a recovery not looked after", exc_info=True)
            await asyncio.sleep(AWAY_SECONDS if away else LOOK_SECONDS)

    async def look(self) -> bool:
        """Puts back whoever has returned; whether somebody is still away.

        A mode that was set since the recovery's end counts: nobody is put back while the others are in another one.
        Raises errors.ObjectStoreUnavailable.
        """
        recovery = next(iter(await self._journal.list()), None)
        if recovery is None or not self._open(recovery):
            return False
        returned = await self._returned(recovery)
        if not returned:
            return True
        try:
            async with self._office.held(""):
                # What ended meanwhile, or began, has another entry.
                if await self._journal.get(recovery.id) == recovery:
                    recovery = await self._put_back(recovery, await self._returned(recovery))
        except (errors.OperationRunning, errors.LeaseLost):
            return True
        return self._open(recovery)

    def _open(self, recovery: Recovery) -> bool:
        late = recovery.end_time is not None and self._clock.now() > recovery.end_time + GIVE_UP
        return not recovery.open and bool(recovery.left) and not late

    async def _returned(self, recovery: Recovery) -> Sequence[Replica]:
        """Those that answer again, while all others are as the recovery left them; nobody otherwise."""
        found = [each for each in await self._steer.look(REGISTRY) if each.process and each.process.state in MODES]
        others = [each for each in found if each.address.target not in recovery.left]
        if any(each.process and each.process.state is not _ended_as(recovery, each) for each in others):
            return []
        return [each for each in found if each.address.target in recovery.left]

    async def _put_back(self, recovery: Recovery, returned: Sequence[Replica]) -> Recovery:
        """The recovery as it stands with those put back whom the fence still holds."""
        left: Mapping[str, State] = dict(recovery.left)
        for each in returned:
            target, wanted = each.address.target, recovery.left[each.address.target]
            if each.process and each.process.state is recovery.fence:
                try:
                    await self._peers.set_mode(each.address, wanted)
                except errors.Error as failed:
                    self._report("replica not put back yet", target=target, message=failed.message)
                    continue
                self._report("replica put back", recovery_id=recovery.id, target=target, mode=wanted.name)
            left = {name: mode for name, mode in left.items() if name != target}
        return await self._journal.write(replace(recovery, left=left)) if left != recovery.left else recovery


def _ended_as(recovery: Recovery, replica: Replica) -> State:
    """The mode that the recovery left a replica in."""
    done = recovery.state is RecoveryState.DONE
    return State.SERVING if done else recovery.modes.get(replica.address.target, State.SERVING)
