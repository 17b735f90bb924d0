"""Lists of the services, read page by page up to a limit."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Protocol, TypeVar

import typer

from llm_schema_registry.cli.output import Output

LISTED_MAX = 10_000
"""How many entries a list has unless `--limit` says otherwise."""
LIMIT_MAX = 1_000_000

Limit = Annotated[int, typer.Option(metavar="COUNT", min=1, max=LIMIT_MAX, help="How many entries at most.")]
PageToken = Annotated[str, typer.Option(metavar="TOKEN", help="Go on where an earlier list ended (next_page_token).")]


class Page(Protocol):
    """An answer of a list."""

    @property
    def next_page_token(self) -> str:
        """Continues after this page; empty on the last one."""


E = TypeVar("E")
P = TypeVar("P", bound=Page)


@dataclass(frozen=True, slots=True)
class Listed(Generic[E]):
    """Entries in the service's order, and the token that continues after them; empty when there are no more."""

    entries: list[E]
    next_page_token: str


async def listed(
    read: Callable[[int, str], Awaitable[P]],
    entries_of: Callable[[P], Sequence[E]],
    *,
    limit: int,
    token: str,
    page_size_max: int,
) -> Listed[E]:
    """Up to `limit` entries. read: the page of a size and a token. Raises what reading raises."""
    found: list[E] = []
    while True:
        page = await read(min(limit - len(found), page_size_max), token)
        found.extend(entries_of(page))
        token = page.next_page_token
        if not token or len(found) >= limit:
            return Listed(found, token)


def note_more(output: Output, listed: Listed[E]) -> None:
    """Tells people that there is more than was listed, and how to get it."""
    if listed.next_page_token:
        output.note(f"There are more: --limit, or go on with --page-token {listed.next_page_token}")
