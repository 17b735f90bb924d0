"""Replicas that were away when a recovery took its fence off: put back into their modes on their return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
BEGUN_SINCE = timedelta(days=7)
"""Recoveries that were begun before are not looked at: none takes so long."""


class Returning:
    """Looks after the replicas that recoveries left fenced. Every replica of this service does."""

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
        """Looks for ever. What fails is told once, and tried again at the next look."""
        failing = ""
        while True:
            away = False
            try:
                away = await self.look()
                failing = ""
            except Exception as failed:  # noqa: BLE001 - whatever it was, the next look may go well
                if str(failed) != failing:
                    failing = str(failed)
                    unforeseen = {} if isinstance(failed, errors.Error) else {"exc_info": True}
                    self._report("replicas behind a recovery not looked after", message=failing, **unforeseen)
            await asyncio.sleep(AWAY_SECONDS if away else LOOK_SECONDS)

    async def look(self) -> bool:
        """Puts back whoever has returned; whether somebody is still away.

        Nobody is put back while a recovery is open, nor while the others are in a mode that they were not left in: one
        that was set since counts. Raises errors.ObjectStoreUnavailable.
        """
        recoveries = await self._journal.begun_since(self._clock.now() - BEGUN_SINCE)
        pending = [each for each in recoveries if self._is_pending(each)]
        if not pending or any(each.open for each in recoveries):
            return False
        away = {target for each in pending for target in each.left}
        found = [each for each in await self._steer.look(REGISTRY) if each.process and each.process.state in MODES]
        returned = {each.address.target: each for each in found if each.address.target in away}
        others = [each for each in found if each.address.target not in away]
        if not returned or not all(_is_as_left(recoveries[0], each) for each in others):
            return True
        try:
            async with self._office.held(""):
                for recovery in pending:
                    # What another process did meanwhile is another entry.
                    if await self._journal.get(recovery.id) == recovery:
                        await self._put_back(recovery, returned)
        except (errors.OperationRunning, errors.LeaseLost):
            return True
        return bool(away - returned.keys())

    def _is_pending(self, recovery: Recovery) -> bool:
        late = recovery.end_time is not None and self._clock.now() > recovery.end_time + GIVE_UP
        return not recovery.open and bool(recovery.left) and not late

    async def _put_back(self, recovery: Recovery, returned: dict[str, Replica]) -> None:
        """Puts back those of a recovery that its fence still holds, and notes who is left. Whoever does not take it
        is no longer among those that returned; who took it is noted as such for earlier recoveries."""

        async def put(target: str, mode: State) -> None:
            replica = returned[target]
            if replica.process is None or replica.process.state is not recovery.fence:
                return
            try:
                process = await self._peers.set_mode(replica.address, mode)
            except errors.Error as failed:
                self._report("replica not put back yet", target=target, message=failed.message)
                del returned[target]
                return
            returned[target] = replace(replica, process=process)
            self._report("replica put back", recovery_id=recovery.id, target=target, mode=mode.name)

        await asyncio.gather(*(put(target, mode) for target, mode in recovery.left.items() if target in returned))
        left = {target: mode for target, mode in recovery.left.items() if target not in returned}
        if left != recovery.left:
            await self._journal.write(replace(recovery, left=left))


def _is_as_left(newest: Recovery, replica: Replica) -> bool:
    """Whether a replica is in a mode that the newest recovery left it in, or was started since."""
    assert replica.process is not None, "it answered"
    before = newest.modes.get(replica.address.target) if newest.state is RecoveryState.ABORTED else None
    return replica.process.state in {State.SERVING, before}
