"""What the system uses, how fast that grows, and what it will need."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from llm_schema_registry import errors
from llm_schema_registry.operations.ports import Clock
from services.admin.domain.advice import Advice, Bounds, Outlook, advise
from services.admin.domain.capacity import (
    CHANGES,
    DATABASE,
    POOL,
    REPLICAS,
    RESOURCES,
    Figure,
    Resource,
    Sample,
    database_figures,
    series,
    thinned,
)
from services.admin.domain.forecast import SPAN_MIN, fitted, forecast
from services.admin.domain.system import REGISTRY, Address
from services.admin.ports import Database, Peers, Recorded
from services.admin.usecases.history import History
from services.admin.usecases.sample import Sampler

SHOWN_MAX = 400
PROBLEMS_MAX = 50
STRETCH_SECONDS = 3600
"""Of the registry's own history, one figure each."""
HISTORY_SECONDS = 10.0
"""For the registry's own history: a report without it is better than none."""
POOL_OPTION = "database.pool_max"


@dataclass(frozen=True, slots=True)
class Report:
    """What the system uses and will need. source: of the figures of use."""

    time: datetime
    source: str
    window_start: datetime
    resources: Sequence[Outlook]
    advice: Sequence[Advice]
    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where figures come from. recorded: Prometheus; None without."""

    sampler: Sampler
    history: History
    database: Database
    peers: Peers
    recorded: Recorded | None


@dataclass(slots=True)
class _Figures:
    """Figures by resource, each with its source."""

    by_name: dict[str, Sequence[Figure]]
    sources: dict[str, str]
    problems: list[str]

    def put(self, name: str, source: str, figures: Sequence[Figure]) -> None:
        if figures:
            self.by_name[name], self.sources[name] = figures, source


class Capacity:
    """Makes reports."""

    def __init__(self, sources: Sources, clock: Clock, database_bytes_limit: int) -> None:
        """database_bytes_limit: what the database may take; 0 when that is not known."""
        self._sources = sources
        self._clock = clock
        self._database_bytes_limit = database_bytes_limit

    async def report(self, window: timedelta, horizon: timedelta) -> Report:
        """Everything that can be found out now; what cannot is a problem in the report."""
        now = self._clock.now()
        start = now - window
        found = _Figures({}, {}, [])
        present, bounds, _ = await asyncio.gather(
            self._sources.sampler.now(), self._bounds(found), self._sampled(found, start)
        )
        sample, problems = present
        found.problems += problems
        await self._recorded(found, start, now)
        await self._changes(found, start, now)
        self._add_present(found, sample)
        outlooks = {
            each.name: self._outlook(each, found, now, horizon, bounds)
            for each in RESOURCES
            if each.name in found.by_name
        }
        missing = [each.name for each in RESOURCES if each.name not in found.by_name]
        if missing:
            found.problems.append(f"no figures yet of {', '.join(missing)}")
        short = [name for name, each in outlooks.items() if each.forecast is None]
        if short:
            hours = SPAN_MIN.total_seconds() / 3600
            found.problems.append(f"too few figures for a forecast, less than {hours:.0f} hours: {', '.join(short)}")
        starts = [figures[0].time for figures in found.by_name.values()]
        return Report(
            time=now,
            source="samples" if self._sources.recorded is None else "prometheus",
            window_start=min(starts, default=now),
            resources=list(outlooks.values()),
            advice=advise(outlooks, bounds, now),
            problems=found.problems[:PROBLEMS_MAX],
        )

    async def _sampled(self, found: _Figures, start: datetime) -> None:
        try:
            samples, problems = await self._sources.history.since(start)
        except errors.Error as failed:
            found.problems.append(f"the history of use: {failed.message}")
            return
        found.problems += problems
        for each in RESOURCES:
            found.put(each.name, "samples", series(samples, each.name))

    async def _recorded(self, found: _Figures, start: datetime, now: datetime) -> None:
        if self._sources.recorded is None:
            return
        try:
            recorded = await self._sources.recorded.figures(start, now)
        except errors.Error as failed:
            found.problems.append(f"{failed.message}; figures of this service's own samples are shown instead")
            return
        for name, figures in recorded.items():
            found.put(name, "prometheus", figures)

    async def _changes(self, found: _Figures, start: datetime, now: datetime) -> None:
        """The registry's own history tells its growth exactly, and the database's until there are samples of a day."""
        try:
            async with asyncio.timeout(HISTORY_SECONDS):
                written = await self._sources.database.written(STRETCH_SECONDS)
                usage = await self._sources.database.usage()
        except errors.Error as failed:
            found.problems.append(f"the history of changes: {failed.message}")
            return
        except TimeoutError:
            found.problems.append(f"the history of changes: not read within {HISTORY_SECONDS:g} s")
            return
        changes = [Figure(min(each.time, now), float(each.changes)) for each in written if each.time >= start]
        found.put(CHANGES.name, "changes", changes)
        if fitted(found.by_name.get(DATABASE.name, ())) is not None:
            return
        figures = [
            Figure(min(each.time, now), each.value) for each in database_figures(usage, written) if each.time >= start
        ]
        if fitted(figures) is not None:
            found.put(DATABASE.name, "changes", figures)
            found.problems.append(f"{DATABASE.name} is reckoned from the history of changes until there are samples")

    def _add_present(self, found: _Figures, sample: Sample) -> None:
        """Present values end each series; where Prometheus tells, its newest does."""
        for name, value in sample.values.items():
            if found.sources.get(name) != "prometheus":
                figures = [each for each in found.by_name.get(name, ()) if each.time < sample.time]
                found.put(name, found.sources.get(name, "samples"), [*figures, Figure(sample.time, value)])

    def _outlook(
        self, resource: Resource, found: _Figures, now: datetime, horizon: timedelta, bounds: Bounds
    ) -> Outlook:
        figures = found.by_name[resource.name]
        limit = self._limit(resource, found, bounds)
        line = fitted(figures)
        return Outlook(
            name=resource.name,
            unit=resource.unit,
            source=found.sources[resource.name],
            figures=thinned(figures, SHOWN_MAX),
            current=figures[-1].value,
            forecast=None if line is None else forecast(line, now, horizon, limit=limit, most=resource.most),
            limit=limit,
        )

    def _limit(self, resource: Resource, found: _Figures, bounds: Bounds) -> float:
        if resource == DATABASE:
            return float(self._database_bytes_limit)
        replicas = found.by_name.get(REPLICAS.name)
        if resource == POOL and replicas:
            return bounds.pool_max * replicas[-1].value
        return 0.0

    async def _bounds(self, found: _Figures) -> Bounds:
        """What is configured, as far as it can be found out."""
        pool_max = connections_max = 0
        with suppress(errors.Error):  # Its absence is told once already.
            connections_max = (await self._sources.database.stats()).connections_max
        addresses = await self._sources.peers.replicas(REGISTRY)
        for each in await asyncio.gather(*(self._pool_max(address) for address in addresses)):
            if isinstance(each, str):
                found.problems.append(each)
            else:
                pool_max = max(pool_max, each)
        return Bounds(pool_max, connections_max)

    async def _pool_max(self, address: Address) -> int | str:
        """What a replica's pool may hold, or why that is not known."""
        try:
            options = await self._sources.peers.options(address)
            return next((int(each.value) for each in options if each.name == POOL_OPTION), 0)
        except errors.Error as failed:
            return f"options of {address.target}: {failed.message}"
        except ValueError:
            return f"options of {address.target}: {POOL_OPTION} is no number"
