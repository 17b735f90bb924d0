"""Progress as lines, as JSON lines and on a terminal."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout

import pytest

from llm_schema_registry.cli.output import Output, OutputFormat
from llm_schema_registry.cli.progress import LINE_SECONDS, Amount, Step, StepState, duration, progress_view, size
from tests.fix_cli import in_terminal

RUNNING, DONE, FAILED = StepState.RUNNING, StepState.DONE, StepState.FAILED
HALF = Amount(bytes_done=512 << 20, bytes_total=1 << 30, rows_done=5000, parts_done=3, remaining_seconds=120)


class Clock:
    """A clock that is set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def stream() -> io.TextIOWrapper:
    """A stream that keeps what is written."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def lines_of(written: io.TextIOWrapper) -> list[str]:
    """The lines that were written."""
    written.seek(0)
    return written.read().splitlines()


def test_steps_are_lines_on_standard_error() -> None:
    """Each step is told when it begins and ends; standard output stays free for the result."""
    output = Output(OutputFormat.TABLE)
    with redirect_stdout(stream()) as out, redirect_stderr(stream()) as err, progress_view(output) as view:
        view.show(Step("dump", RUNNING))
        view.show(Step("dump", DONE, "12 tables"))
        view.show(Step("verify\x1b", FAILED, "part 3 differs"))

    assert lines_of(out) == []
    assert lines_of(err) == ["dump: running", "dump: done: 12 tables", r"verify\x1b: failed: part 3 differs"]


def test_amounts_are_told_now_and_then() -> None:
    """Between two lines about a step some seconds pass, however many events come."""
    clock = Clock()
    with redirect_stderr(stream()) as err, progress_view(Output(OutputFormat.TABLE), monotonic=clock) as view:
        view.show(Step("dump", RUNNING))
        for clock.now in (0.5, LINE_SECONDS - 0.1, LINE_SECONDS, LINE_SECONDS + 0.1):
            view.show(HALF)

    assert lines_of(err) == ["dump: running", f"dump: {HALF}"]


def test_programs_get_json_lines() -> None:
    """Each event is a JSON line on standard output, as the service sent it when that is known."""
    with redirect_stdout(stream()) as out, progress_view(Output(OutputFormat.JSON)) as view:
        view.show(Step("dump", RUNNING))
        view.show(HALF)
        view.show(Step("dump", DONE), {"step": {"name": "dump", "state": "STEP_STATE_DONE"}})

    assert [json.loads(line) for line in lines_of(out)] == [
        {"step": {"name": "dump", "state": "running", "message": ""}},
        {
            "progress": {
                "bytes_done": 512 << 20,
                "bytes_total": 1 << 30,
                "rows_done": 5000,
                "parts_done": 3,
                "remaining_seconds": 120,
            }
        },
        {"step": {"name": "dump", "state": "STEP_STATE_DONE"}},
    ]


def test_a_terminal_shows_every_step_in_its_width() -> None:
    """On a terminal of 80 columns each step has its line with a bar; what failed says why."""
    code = """
from llm_schema_registry.cli.output import Output, OutputFormat
from llm_schema_registry.cli.progress import *
with progress_view(Output(OutputFormat.TABLE)) as view:
    view.show(Step("dump", StepState.RUNNING))
    view.show(Amount(bytes_done=50, bytes_total=100, rows_done=7, remaining_seconds=61))
    view.show(Step("dump", StepState.DONE, "12 tables"))
    view.show(Amount(bytes_done=1))
    view.show(Step("verify", StepState.RUNNING))
    view.show(Amount(bytes_done=50, bytes_total=100, rows_done=7, remaining_seconds=61))
    view.show(Step("compare", StepState.FAILED, "the digest of table versions differs: " + "long " * 20))
"""
    ran = in_terminal(["-c", code])

    last = ran.screen[-6:]
    assert ran.status == 0
    assert max(map(len, ran.screen)) <= 80
    text = "\n".join(ran.screen)
    assert "done    dump" in text
    assert "12 tables" in text
    assert "50 % of 100 B, 7 rows" in text
    assert any(line.startswith("failed  compare") for line in last)


def test_a_terminal_is_given_back_when_work_fails() -> None:
    """An error inside leaves the cursor visible and the error's own words last."""
    code = """
from llm_schema_registry.cli.output import Output, OutputFormat
from llm_schema_registry.cli.progress import *
with progress_view(Output(OutputFormat.TABLE)) as view:
    view.show(Step("dump", StepState.RUNNING))
    raise SystemExit("it failed")
"""
    ran = in_terminal(["-c", code])

    assert ran.status == 1
    assert ran.screen[-1] == "it failed"
    assert ran.stdout.rindex("\x1b[?25h") > ran.stdout.rindex("\x1b[?25l")


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (3 << 40, "3.0 TiB"), (1 << 60, "1048576.0 TiB")],
)
def test_sizes_have_units(count: int, told: str) -> None:
    """Bytes are told in binary units."""
    assert size(count) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(-1, "0 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (11_100, "3 h 5 min")]
)
def test_durations_are_rounded(seconds: float, told: str) -> None:
    """Seconds are told as a person says them."""
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("amount", "told"),
    [
        (Amount(), ""),
        (Amount(bytes_done=2048), "2.0 KiB"),
        (Amount(bytes_done=300, bytes_total=200), "100 % of 200 B"),
        (HALF, "50 % of 1.0 GiB, 5,000 rows, 3 parts, about 2 min left"),
    ],
)
def test_amounts_say_what_is_known(amount: Amount, told: str) -> None:
    """What is unknown is left out, and no share exceeds all."""
    assert str(amount) == told
