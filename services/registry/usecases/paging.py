"""Page tokens: opaque to callers, bound to the question they belong to."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json

from llm_schema_registry.errors import InvalidField

TOKEN_CHARACTERS_MAX = 4096


def token(key: object, question: object) -> str:
    """A token that continues `question` after `key`. Both are JSON-serialisable."""
    body = json.dumps([_digest(question), key], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode("utf-8")).decode("ascii").rstrip("=")


def read(text: str, question: object) -> object:
    """The key that a token holds; None for an empty token. Raises InvalidField naming `page_token`."""
    if not text:
        return None
    try:
        if len(text) > TOKEN_CHARACTERS_MAX:
            raise ValueError
        body = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        digest, key = json.loads(body)
        json.dumps(key, ensure_ascii=False).encode("utf-8")  # Half a surrogate pair is no text of ours.
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise InvalidField.of("page_token", "must be the next_page_token of an earlier answer") from None
    if digest != _digest(question):
        raise InvalidField.of("page_token", "belongs to a request with other conditions: send those, or no token")
    return key


def size(asked: int, *, default: int, most: int) -> int:
    """The page size to use: the default for zero, at most `most`. Raises InvalidField for a negative one."""
    if asked < 0:
        raise InvalidField.of("page_size", f"must be 0 (for {default}) to {most}")
    return min(asked or default, most)


def _digest(question: object) -> str:
    text = json.dumps(question, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
