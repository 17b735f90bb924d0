"""Commands that destroy: they say what would happen, and do it only with `--apply`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from llm_schema_registry.cli.output import Output

Apply = Annotated[bool, typer.Option("--apply", help="Do it. Without it the command only says what would happen.")]


def planned(output: Output, steps: Sequence[str], document: dict[str, Any]) -> None:
    """Writes what `--apply` would do.

    steps: sentences without subject, for example "delete version 3 of orders"; none when nothing would happen.
    As JSON: the document with "applied": false.
    """
    if output.json:
        output.document({"applied": False, **document})
        return
    if not steps:
        output.text("Nothing to do.")
        return
    output.text("Would " + "\nWould ".join(steps))
    output.note("Nothing was changed: --apply does it.")


def applied(output: Output, steps: Sequence[str], document: dict[str, Any]) -> None:
    """Writes what was done. steps: sentences, for example "Deleted version 3 of orders".

    As JSON: the document with "applied": true.
    """
    if output.json:
        output.document({"applied": True, **document})
        return
    output.text("\n".join(steps) if steps else "Nothing to do.")
