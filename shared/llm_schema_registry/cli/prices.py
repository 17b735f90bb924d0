"""What the system costs, by a file of prices."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from llm_schema_registry.admin.v1 import capacity_pb2
from llm_schema_registry.cli.exit_codes import UsageFault

FILE_BYTES_MAX = 64 << 10
GB = 1e9
HOURS_A_MONTH = 730.0
"""365 days of 24 hours in 12 months: how cloud vendors count."""
CURRENCY_CHARACTERS_MAX = 8


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in one currency; None for what has none. vcpus_per_replica: processors that one replica is given."""

    currency: str = ""
    database_gb_month: float | None = None
    object_storage_gb_month: float | None = None
    vcpu_hour: float | None = None
    vcpus_per_replica: float = 1.0
    million_requests: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """What a resource costs a month, at present and at the end of the horizon. basis: how it is reckoned."""

    item: str
    basis: str
    now: float
    then: float


def read_prices(path: Path) -> Prices:
    """The prices of a file. Raises UsageFault naming what is wrong, and the keys that are allowed."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise UsageFault(f"--prices: {path} is larger than {FILE_BYTES_MAX >> 10} KiB.")
        text = content.decode()
        document: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as failed:
        raise UsageFault(f"--prices: {path} cannot be read: {failed.strerror}.") from None
    except ValueError as failed:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise UsageFault(f"--prices: {path} is not {kind}: {failed}.") from None
    if not isinstance(document, dict):
        raise UsageFault(f"--prices: {path} must be an object with some of {_allowed()}.")
    return _checked(path, document)


def costs(prices: Prices, report: capacity_pb2.CapacityReport) -> Iterator[Cost]:
    """What has a price and a figure."""
    found = {one.name: one for one in report.resources}
    scales = (
        ("database", "database_bytes", prices.database_gb_month, 1 / GB, "GB"),
        ("object storage", "object_store_bytes", prices.object_storage_gb_month, 1 / GB, "GB"),
        ("processors", "replicas", prices.vcpu_hour, prices.vcpus_per_replica * HOURS_A_MONTH, "vCPU hours"),
        ("requests", "requests_per_second", prices.million_requests, HOURS_A_MONTH * 3600 / 1e6, "million"),
    )
    for item, name, price, scale, unit in scales:
        resource = found.get(name)
        if price is None or resource is None:
            continue
        now, then = resource.current * scale, resource.forecast * scale
        yield Cost(item, f"{now:,.4g} to {then:,.4g} {unit} a month, {price:g} each", now * price, then * price)


def _checked(path: Path, document: Mapping[str, Any]) -> Prices:
    names = {each.name for each in fields(Prices)}
    for key in document:
        if key not in names:
            raise UsageFault(f"--prices: {path} has {key[:64]!r}; allowed are {_allowed()}.")
    for key, value in document.items():
        if key == "currency":
            if not isinstance(value, str) or len(value) > CURRENCY_CHARACTERS_MAX:
                raise UsageFault(f"--prices: currency in {path} must be at most {CURRENCY_CHARACTERS_MAX} characters.")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise UsageFault(f"--prices: {key} in {path} must be a number, 0 or more.")
    return Prices(**document)


def _allowed() -> str:
    return ", ".join(each.name for each in fields(Prices))
