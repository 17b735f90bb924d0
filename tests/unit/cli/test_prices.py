"""A file of prices is read strictly, and what it says is reckoned rightly."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_schema_registry.admin.v1 import capacity_pb2
from llm_schema_registry.cli.exit_codes import UsageFault
from llm_schema_registry.cli.prices import Prices, costs, read_prices

REPORT = capacity_pb2.CapacityReport(
    resources=[
        capacity_pb2.ResourceForecast(name="database_bytes", current=10e9, forecast=20e9),
        capacity_pb2.ResourceForecast(name="replicas", current=2, forecast=3),
        capacity_pb2.ResourceForecast(name="requests_per_second", current=100, forecast=200),
    ]
)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'currency = "EUR"\ndatabase_gb_month = 0.5\n'),
        ("a.json", '{"currency": "EUR", "database_gb_month": 0.5}'),
    ],
)
def test_both_forms_are_read(tmp_path: Path, name: str, text: str) -> None:
    """TOML and JSON say the same."""
    (tmp_path / name).write_text(text)

    assert read_prices(tmp_path / name) == Prices("EUR", 0.5)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("database_gb = 1", "has 'database_gb'; allowed are currency, database_gb_month, object_storage_gb_month"),
        ("database_gb_month = -1", "must be a number, 0 or more"),
        ("database_gb_month = true", "must be a number, 0 or more"),
        ("vcpu_hour = nan", "must be a number, 0 or more"),
        ('vcpu_hour = "1"', "must be a number, 0 or more"),
        ("currency = 1", "at most 8 characters"),
        ("vcpu_hour =", "is not TOML"),
        ("x = '" + "x" * 70_000 + "'", "larger than 64 KiB"),
    ],
)
def test_wrong_files_are_told(tmp_path: Path, text: str, told: str) -> None:
    """A key that is not known, or a value that is no price, is named with what is allowed."""
    (tmp_path / "prices.toml").write_text(text)

    with pytest.raises(UsageFault, match=told):
        read_prices(tmp_path / "prices.toml")


def test_missing_file_is_told(tmp_path: Path) -> None:
    """A file that is not there is named."""
    with pytest.raises(UsageFault, match=r"none\.toml cannot be read: No such file"):
        read_prices(tmp_path / "none.toml")


def test_costs_are_a_months() -> None:
    """What has a price and a figure is reckoned for a month of 730 hours; the rest is left out."""
    prices = Prices("EUR", database_gb_month=0.5, object_storage_gb_month=1.0, vcpu_hour=0.1, million_requests=2.0)

    found: dict[str, object] = {each.item: (each.now, each.then) for each in costs(prices, REPORT)}

    assert found == {
        "database": (pytest.approx(5.0), pytest.approx(10.0)),
        "processors": (pytest.approx(146.0), pytest.approx(219.0)),
        "requests": (pytest.approx(525.6), pytest.approx(1051.2)),
    }
