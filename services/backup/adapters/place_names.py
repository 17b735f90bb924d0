"""Names of the places of restores: whatever is left over can be recognised, and is nobody else's."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

NAME_BYTES_MAX = 63
"""PostgreSQL cuts longer ones (NAMEDATALEN - 1)."""
TOKEN_CHARACTERS = 12
SCRATCH, ASIDE = "restore", "aside"

_TOKEN = re.compile(rf"[a-z0-9]{{{TOKEN_CHARACTERS}}}")
_SUFFIX_BYTES = len(f"_{SCRATCH}_") + TOKEN_CHARACTERS
_DIGEST_CHARACTERS = 8


@dataclass(frozen=True, slots=True)
class PlaceNames:
    """Names beside the live one. live: the name that the registry serves from."""

    live: str
    _stem: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_stem", _stem(self.live))

    def scratch(self, token: str) -> str:
        """`<live>_restore_<token>`. Raises ValueError for a token of another form."""
        return self._name(SCRATCH, token)

    def aside(self, token: str) -> str:
        """`<live>_aside_<token>`. Raises ValueError for a token of another form."""
        return self._name(ASIDE, token)

    def is_made(self, name: str) -> bool:
        """Whether `scratch` or `aside` makes this name."""
        kind, _, token = name.removeprefix(f"{self._stem}_").partition("_")
        return name.startswith(f"{self._stem}_") and kind in {SCRATCH, ASIDE} and _TOKEN.fullmatch(token) is not None

    def require_made(self, name: str) -> None:
        """Raises ValueError for the live name, and for every name that is not of a restore."""
        if not self.is_made(name):
            raise ValueError(f"{name!r} is not a place of a restore of {self.live!r}")

    def _name(self, kind: str, token: str) -> str:
        if _TOKEN.fullmatch(token) is None:
            raise ValueError(f"a token is {TOKEN_CHARACTERS} lower-case letters or digits, not {token!r}")
        return f"{self._stem}_{kind}_{token}"


def _stem(live: str) -> str:
    """The live name; a long one cut, with a digest so that two long names never share their places."""
    if len(live.encode()) <= NAME_BYTES_MAX - _SUFFIX_BYTES:
        return live
    digest = hashlib.sha256(live.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    kept = live.encode()[: NAME_BYTES_MAX - _SUFFIX_BYTES - _DIGEST_CHARACTERS - 1]
    return f"{kept.decode(errors='ignore')}_{digest}"
