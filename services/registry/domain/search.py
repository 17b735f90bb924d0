"""How texts become words to search by, the same for what is stored and for what is asked."""

from __future__ import annotations

import re
from collections.abc import Iterable

from services.registry.domain.limits import WORD_CHARACTERS_MAX, WORDS_MAX
from services.registry.domain.model import Version

_WORD = re.compile(r"[^\W_]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def words(first: Iterable[str], then: Iterable[str] = ()) -> tuple[str, ...]:
    """Lower-case words of the texts, sorted, each once: at most WORDS_MAX, those of `first` before those of `then`.

    A word is a run of letters and digits; `userCreated` gives `usercreated`, `user` and `created`. Longer words than
    WORD_CHARACTERS_MAX are cut. Of too many words the first in alphabetical order are taken.
    """
    own = sorted(_words(first))[:WORDS_MAX]
    more = sorted(_words(then).difference(own))[: WORDS_MAX - len(own)]
    return tuple(sorted([*own, *more]))


def _words(texts: Iterable[str]) -> set[str]:
    return {
        part.casefold()[:WORD_CHARACTERS_MAX]
        for text in texts
        for word in _WORD.findall(text)
        for part in (word, *_HUMP.split(word))
    }


def query_words(query: str) -> tuple[str, ...]:
    """Lower-case words of a query, sorted, each once. Every one must begin a word of what is found."""
    return tuple(sorted({word.casefold()[:WORD_CHARACTERS_MAX] for word in _WORD.findall(query)}))


def version_words(version: Version, annotations: Iterable[str]) -> tuple[str, ...]:
    """What a version is found by: its own words, then the schema's titles and descriptions."""
    own = (version.subject, version.description, version.owner, *version.tags)
    pairs = (part for pair in sorted(version.metadata.items()) for part in pair)
    return words((*own, *pairs), annotations)
