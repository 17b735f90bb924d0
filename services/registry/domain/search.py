"""How texts become words to search by, the same for what is stored and for what is asked."""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.registry.domain.limits import WORD_CHARACTERS_MAX, WORDS_MAX
from services.registry.domain.model import Version

_WORD = re.compile(r"[^\W_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def words(texts: Iterable[str]) -> tuple[str, ...]:
    """Lower-case words of the texts, sorted, each once, at most WORDS_MAX.

    A word is a run of letters and digits; `userCreated` gives `usercreated`, `user` and `created`. Longer words than
    WORD_CHARACTERS_MAX are cut.
    """
    found: set[str] = set()
    for text in texts:
        for word in _WORD.findall(text):
            for part in {word, *_HUMP.split(word)}:
                found.add(part.casefold()[:WORD_CHARACTERS_MAX])
                if len(found) == WORDS_MAX:
                    return tuple(sorted(found))
    return tuple(sorted(found))


def query_words(query: str) -> tuple[str, ...]:
    """Lower-case words of a query, sorted, each once. Every one must begin a word of what is found."""
    return tuple(sorted({word.casefold()[:WORD_CHARACTERS_MAX] for word in _WORD.findall(query)}))


def version_words(version: Version, annotations: Iterable[str]) -> tuple[str, ...]:
    """What a version is found by: its own words, then the schema's titles and descriptions."""
    own = (version.subject, version.description, version.owner, *version.tags)
    pairs = (part for pair in sorted(version.metadata.items()) for part in pair)
    return words((*own, *pairs, *annotations))
