"""What to do about what the system will need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from services.admin.domain.capacity import CACHE, CPU, DATABASE, PEAK, POOL, REPLICAS, REQUESTS, Figure
from services.admin.domain.forecast import Forecast

BUSY_SHARE = 0.6
"""Of a core that one process may use at its peak: above, calls queue for each other."""
QUIET_RATE = 0.1
"""Requests a second below which processor time says nothing about requests."""
CACHE_RATIO_MIN = 0.8
POOL_SHARE = 0.8
CONNECTIONS_RESERVED = 10
"""Of the server's, for everybody but the registry: superusers, backups, this service."""
DAYS = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Outlook:
    """A resource: its past, its present, its future. current: None without any figure. limit: 0 when not known."""

    name: str
    unit: str
    source: str
    figures: Sequence[Figure]
    current: float
    forecast: Forecast | None
    limit: float = 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """Something to do. deadline: None when there is no hurry."""

    resource: str
    text: str
    deadline: datetime | None = None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is configured. 0 when not known. pool_max: of one replica."""

    pool_max: int = 0
    connections_max: int = 0


def advise(outlooks: Mapping[str, Outlook], bounds: Bounds, now: datetime) -> list[Advice]:
    """What to do, the most urgent first."""
    found = [
        *_disk(outlooks, now),
        *_replicas(outlooks, now),
        *_pool(outlooks, bounds, now),
        *_connections(outlooks, bounds, now),
        *_cache(outlooks),
    ]
    return sorted(found, key=lambda each: (each.deadline is None, each.deadline or now))


def cores_per_request(cpu: Sequence[Figure], requests: Sequence[Figure]) -> float | None:
    """Processor seconds that one request costs; None when too little was asked to tell.

    The median of the moments, so that a start or a migration does not count.
    """
    rates = {each.time: each.value for each in requests if each.value >= QUIET_RATE}
    found = sorted(each.value / rates[each.time] for each in cpu if each.time in rates)
    return found[len(found) // 2] if found else None


def _disk(outlooks: Mapping[str, Outlook], now: datetime) -> Iterator[Advice]:
    database = outlooks.get(DATABASE.name)
    if database is None or database.forecast is None or database.forecast.limit_time is None:
        return
    when = database.forecast.limit_time
    days = max(0, (when - now) // DAYS)
    growth = database.forecast.line.slope
    yield Advice(
        DATABASE.name,
        f"the database grows by {growth:,.0f} bytes a day and reaches its limit of {database.limit:,.0f} bytes in"
        f" {days} days: give it more room, or raise admin.database_bytes_limit if it has more",
        when,
    )


def _replicas(outlooks: Mapping[str, Outlook], now: datetime) -> Iterator[Advice]:
    """By processor time per request and the highest rate that is likely."""
    peak, cpu, requests, there = (outlooks.get(each.name) for each in (PEAK, CPU, REQUESTS, REPLICAS))
    if peak is None or cpu is None or requests is None or there is None:
        return
    cost = cores_per_request(cpu.figures, requests.figures)
    if cost is None:
        return
    highest = max(each.value for each in peak.figures)
    ahead = max(highest, peak.forecast.high if peak.forecast else 0.0)
    needed_now, needed = (math.ceil(rate * cost / BUSY_SHARE) + 1 for rate in (highest, ahead))
    if needed <= there.current:
        return
    yield Advice(
        REPLICAS.name,
        f"a request costs {cost * 1000:.2g} ms of a core, and up to {ahead:,.1f} a second are to be expected: run"
        f" {needed} replicas of the registry (one to spare, each at most {BUSY_SHARE:.0%} busy) instead of"
        f" {there.current:.0f}",
        now if needed_now > there.current else None,
    )


def _pool(outlooks: Mapping[str, Outlook], bounds: Bounds, now: datetime) -> Iterator[Advice]:
    pool = outlooks.get(POOL.name)
    if pool is None or not pool.limit:
        return
    highest = max(each.value for each in pool.figures)
    if highest >= POOL_SHARE * pool.limit:
        yield Advice(
            POOL.name,
            f"{highest:.0f} of {pool.limit:.0f} pooled connections were in use at once: raise database.pool_max of the"
            f" registry above {bounds.pool_max}, or run more replicas",
            now,
        )


def _connections(outlooks: Mapping[str, Outlook], bounds: Bounds, now: datetime) -> Iterator[Advice]:
    there = outlooks.get(REPLICAS.name)
    if there is None or not bounds.pool_max or not bounds.connections_max:
        return
    wanted = bounds.pool_max * there.current + CONNECTIONS_RESERVED
    if wanted > bounds.connections_max:
        yield Advice(
            POOL.name,
            f"{there.current:.0f} replicas with database.pool_max = {bounds.pool_max}, and {CONNECTIONS_RESERVED} for"
            f" all others, may want {wanted:.0f} connections, but PostgreSQL allows {bounds.connections_max}: raise its"
            " max_connections, or lower database.pool_max",
            now,
        )


def _cache(outlooks: Mapping[str, Outlook]) -> Iterator[Advice]:
    cache, requests = outlooks.get(CACHE.name), outlooks.get(REQUESTS.name)
    if cache is None or requests is None or requests.current < QUIET_RATE:
        return
    ratios = sorted(each.value for each in cache.figures)
    usual = ratios[len(ratios) // 2]
    if usual < CACHE_RATIO_MIN:
        yield Advice(
            CACHE.name,
            f"the process cache answers {usual:.0%} of the look-ups for schemas: raise cache.memory_bytes_max of the"
            f" registry until it is above {CACHE_RATIO_MIN:.0%}",
        )
