"""Work that takes a while, as it goes: drawn in place on a terminal, as lines elsewhere, as JSON lines for programs.

    with progress_view(session.output) as view:
        async for event in events:
            view.show(Step("dump", StepState.RUNNING))

People's progress goes to standard error, so that standard output holds the result alone; JSON lines go to standard
output, where the result is the last of them.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llm_schema_registry.cli.output import Output, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 5.0
"""Shortest time between two lines about the same step, so that a log stays readable."""
STEPS_DRAWN_MAX = 100
"""Steps after these are written as lines above the drawing. Source: operation.proto, Operation.steps."""


class StepState(enum.StrEnum):
    """Where a step stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Step:
    """A step began or ended. message: what it found or did, for a person."""

    name: str
    state: StepState
    message: str = ""


@dataclass(frozen=True, slots=True)
class Amount:
    """How far the present step is. bytes_total: zero when unknown. remaining_seconds: None when it cannot be said."""

    bytes_done: int = 0
    bytes_total: int = 0
    rows_done: int = 0
    parts_done: int = 0
    remaining_seconds: float | None = None

    def __str__(self) -> str:
        """For example `12 % of 1.5 GiB, 5,000 rows, 3 parts, about 2 min left`; empty when there is nothing to say."""
        facts = []
        if self.bytes_total:
            share = min(100, 100 * self.bytes_done // self.bytes_total)
            facts.append(f"{share} % of {size(self.bytes_total)}")
        elif self.bytes_done:
            facts.append(size(self.bytes_done))
        facts += [
            f"{count:,} {noun}" for count, noun in ((self.rows_done, "rows"), (self.parts_done, "parts")) if count
        ]
        if self.remaining_seconds is not None:
            facts.append(f"about {duration(self.remaining_seconds)} left")
        return ", ".join(facts)


class View(Protocol):
    """Shows what happens."""

    def show(self, event: Step | Amount, document: Mapping[str, Any] | None = None) -> None:
        """Shows the event. document: the event as the service sent it, which JSON lines repeat; else its own fields."""


@contextmanager
def progress_view(output: Output, *, monotonic: Callable[[], float] = time.monotonic) -> Iterator[View]:
    """The view that fits the output. It is taken off a terminal's hands also when the work fails."""
    if output.json:
        yield _Documents(output)
    elif sys.stderr.isatty():
        with _bars(output) as drawing:
            yield _Drawing(drawing)
    else:
        yield _Lines(output, monotonic)


def size(count: int) -> str:
    """Bytes in binary units: `900 B`, `1.5 GiB`."""
    value, units = float(count), iter(("B", "KiB", "MiB", "GiB", "TiB"))
    unit = next(units)
    while value >= 1024 and unit != "TiB":
        value, unit = value / 1024, next(units)
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def duration(seconds: float) -> str:
    """Seconds for a person: `45 s`, `2 min`, `3 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


class _Documents:
    """One JSON document a line: {"step": {...}} or {"progress": {...}}."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def show(self, event: Step | Amount, document: Mapping[str, Any] | None = None) -> None:
        kind = "step" if isinstance(event, Step) else "progress"
        self._output.line(dict(document) if document is not None else {kind: dataclasses.asdict(event)})


class _Lines:
    """A line for each step, and one now and then for how far it is."""

    def __init__(self, output: Output, monotonic: Callable[[], float]) -> None:
        self._output = output
        self._monotonic = monotonic
        self._name = ""
        self._written = monotonic()

    def show(self, event: Step | Amount, document: Mapping[str, Any] | None = None) -> None:
        del document
        now = self._monotonic()
        if isinstance(event, Step):
            self._name = event.name
            self._output.note(_sentence(event))
        elif not str(event) or now - self._written < LINE_SECONDS:
            return
        else:
            self._output.note(f"{self._name}: {event}")
        self._written = now


class _Drawing:
    """A line on the terminal for each step, the present one with a bar."""

    def __init__(self, drawing: Progress) -> None:
        self._drawing = drawing
        self._tasks: dict[str, TaskID] = {}
        self._present: TaskID | None = None

    def show(self, event: Step | Amount, document: Mapping[str, Any] | None = None) -> None:
        del document
        if isinstance(event, Amount):
            self._advance(event)
        elif event.name not in self._tasks and len(self._tasks) == STEPS_DRAWN_MAX:
            self._present = None
            self._drawing.console.print(printable(_sentence(event)))
        else:
            self._step(event)

    def _step(self, step: Step) -> None:
        if step.name not in self._tasks:
            self._tasks[step.name] = self._drawing.add_task(printable(step.name), total=None, state="", told="")
        task = self._tasks[step.name]
        running = step.state is StepState.RUNNING
        self._present = task if running else None
        self._drawing.update(task, state=step.state, told=printable(step.message))
        if not running:
            # A full bar for what is done; an empty one for what failed.
            done = int(step.state is StepState.DONE)
            self._drawing.update(task, total=1, completed=done)
            self._drawing.stop_task(task)

    def _advance(self, amount: Amount) -> None:
        if self._present is None:
            return
        total = amount.bytes_total or None
        completed = min(amount.bytes_done, amount.bytes_total)
        self._drawing.update(self._present, total=total, completed=completed, told=str(amount))


def _sentence(step: Step) -> str:
    return f"{step.name}: {step.state}" + (f": {step.message}" if step.message else "")


def _bars(output: Output) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.fields[state]}", markup=False, table_column=Column(min_width=7, no_wrap=True)),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[told]}", markup=False, table_column=Column(overflow="fold")),
        console=output.console(sys.stderr),
    )
