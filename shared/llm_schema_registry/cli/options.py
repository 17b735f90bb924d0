"""Options that commands of several nouns take."""

from __future__ import annotations

from typing import Annotated

import typer

RequestId = Annotated[
    str, typer.Option(metavar="TEXT", help="Makes a repeat safe: the same id again returns the first answer.")
]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Begin it and return; 'llmsr backup watch' shows the rest.")]
