"""`llmsr db` and `llmsr capacity`: the database is kept in order from a shell, and what is needed is told."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest

from tests.fix_cli import run_here
from tests.fix_maintained import Maintained


def test_vacuum_is_a_dry_run_at_first(maintained: Maintained) -> None:
    """Without --apply the tables are shown with their dead rows, and nothing is done."""
    before = maintained.json("db", "stats")["stats"]["tables"]

    human = maintained.run("db", "vacuum", "changes")
    planned = maintained.json("db", "vacuum", "changes", "head")

    assert "Would vacuum 1 table with" in human.stdout
    assert "--apply does it" in human.stderr
    assert (planned["applied"], {one["name"] for one in planned["tables"]}) == (False, {"changes", "head"})
    assert [one.get("last_vacuum_time") for one in maintained.json("db", "stats")["stats"]["tables"]] == [
        one.get("last_vacuum_time") for one in before
    ]


def test_vacuum_tells_before_and_after(maintained: Maintained) -> None:
    """With --apply a table of what was done; as JSON the events, and the record the last."""
    human = maintained.run("db", "vacuum", "head", "--apply")
    machine = maintained.run("db", "vacuum", "head", "--apply", "--output", "json")

    assert human.status == 0, human.stderr
    assert human.stdout.split()[:3] == ["NAME", "BEFORE", "AFTER"]
    record = machine.lines[-1]["ended"]["response"]
    assert [(one["name"], one["problem"]) for one in record["objects"]] == [("head", "")]
    assert record["objects"][0]["after"]["dead_rows"] == "0"


def test_reindex_shows_what_there_is_to_gain(maintained: Maintained) -> None:
    """Without --apply the indexes with their bloat; with it each is rebuilt."""
    planned = maintained.json("db", "reindex", "subjects")
    done = maintained.run("db", "reindex", "subjects", "--apply")

    assert [one["name"] for one in planned["indexes"]] == ["subjects_pkey"]
    assert done.status == 0, done.stderr
    assert "subjects_pkey" in done.stdout


def test_analyze_needs_no_apply(maintained: Maintained) -> None:
    """It destroys nothing, and is done at once."""
    ran = maintained.run("db", "analyze", "versions")

    assert (ran.status, "versions" in ran.stdout) == (0, True)
    bloats = {one["name"]: one for one in maintained.json("db", "bloat")["bloats"]}
    assert bloats["versions"]["table"] == "versions"


def test_what_was_passed_over_is_status_1(maintained: Maintained) -> None:
    """A locked table is named with who holds it, and the command ends with status 1."""
    [url] = [maintained.admin.environment["SCHEMA_REGISTRY__DATABASE__URL"]]
    with psycopg.connect(url, application_name="holder") as connection:
        connection.execute("LOCK TABLE registry.request_ids IN SHARE MODE")
        ran = maintained.run("db", "vacuum", "request_ids", "--apply")
        shown = maintained.run("db", "queries", "--at-least", "0")
        connection.rollback()

    assert ran.status == 1
    assert "(holder)" in ran.stdout
    assert "LOCK TABLE registry.request_ids IN SHARE MODE" in shown.stdout


@pytest.mark.parametrize("verb", [["vacuum"], ["vacuum", "--apply"], ["reindex"], ["reindex", "--apply"], ["analyze"]])
def test_unknown_tables_are_refused(maintained: Maintained, verb: list[str]) -> None:
    """What is no table is refused with those there are, in a dry run too."""
    ran = maintained.run("db", *verb, 'x"; DROP TABLE registry.head')

    assert ran.status == 1
    assert "changes, epochs, head" in ran.stderr


@pytest.mark.parametrize("verb", ["vacuum", "reindex"])
@pytest.mark.parametrize("option", [["--no-wait"], ["--request-id", "one"]])
def test_what_goes_with_apply_alone_is_refused(verb: str, option: list[str]) -> None:
    """Status 2 for an option that a dry run would have to ignore."""
    ran = run_here("db", verb, *option)

    assert ran.status == 2
    assert "go with --apply" in ran.stderr


def test_nobody_there_is_unreachable() -> None:
    """Status 3 when the admin service does not answer."""
    ran = run_here("db", "stats", "--admin-target", "127.0.0.1:1", "--timeout", "1")

    assert (ran.status, "The admin service at 127.0.0.1:1" in ran.stderr) == (3, True)


def test_capacity_is_told_with_costs_and_a_page(maintained: Maintained, tmp_path: Path) -> None:
    """A table, a document, and a page; costs by a file of prices."""
    prices, page = tmp_path / "prices.json", tmp_path / "page.html"
    prices.write_text(json.dumps({"currency": "EUR", "database_gb_month": 100, "object_storage_gb_month": 50}))

    human = maintained.run("capacity", "--html", str(page), "--prices", str(prices))
    machine = maintained.json("capacity", "--prices", str(prices))

    assert human.status == 0, human.stderr
    assert "database_bytes" in human.stdout
    assert "a month" in human.stdout
    assert "too few figures for a forecast" in human.stderr
    assert {one["item"] for one in machine["costs"]["items"]} == {"database", "object storage"}
    assert all(one["now"] > 0 for one in machine["costs"]["items"])
    names = {one["name"]: one for one in machine["report"]["resources"]}
    assert names["object_store_bytes"]["current"] > 0
    assert "<svg" in page.read_text()


def test_wrong_prices_are_usage(maintained: Maintained, tmp_path: Path) -> None:
    """A key that is not known, and a page that cannot be written, are status 2."""
    prices = tmp_path / "prices.toml"
    prices.write_text("per_gigabyte = 1")

    wrong = maintained.run("capacity", "--prices", str(prices))
    nowhere = maintained.run("capacity", "--html", str(tmp_path / "none" / "page.html"))

    assert (wrong.status, "allowed are currency, database_gb_month" in wrong.stderr) == (2, True)
    assert (nowhere.status, "cannot be written" in nowhere.stderr) == (2, True)
