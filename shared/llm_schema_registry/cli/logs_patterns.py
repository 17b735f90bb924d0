"""What two log lines have in common: texts without what changes from one to the next, and places in the code.

Masking by rules, instead of learning templates, gives a line the same pattern in every log and release.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

TEXT_CHARACTERS_MAX = 500
"""What of a text is looked at. It bounds what a text made to be slow can cost: some milliseconds."""
EXCEPTION_CHARACTERS_MAX = 20_000
"""What of a traceback is looked at: its end, where it broke."""
ID_BYTES = 4

SAME_PLACE_FIELDS = ("logger", "reason", "code", "dependency", "step", "outcome", "status")
"""Fields beside event and message that tell one kind of trouble from another; their values are few."""

_GROUPS = r"[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}"
_MASKS = tuple(
    (needed, re.compile(pattern, re.IGNORECASE), mask)
    for needed, pattern, mask in (
        ("://", r"\b[a-z][a-z0-9+.-]{1,20}://[^\s'\"`,;)]+", "<url>"),
        # A quote inside a word is an apostrophe.
        ("'", r"(?<!\w)'[^'\\]*+(?:\\.[^'\\]*+)*+'(?!\w)", "<text>"),
        ('"', r"(?<!\w)\"[^\"\\]*+(?:\\.[^\"\\]*+)*+\"(?!\w)", "<text>"),
        ("`", r"`[^`]*`", "<text>"),
        ("-", r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?\b", "<time>"),
        (":", r"\b\d\d:\d\d:\d\d(?:[.,]\d+)?\b", "<time>"),
        ("-", r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
        (".", r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", "<address>"),
        (":", r"(?<![\w:])\[?(?:[0-9a-f]{1,4}:){2,7}[0-9a-f]{1,4}\b\]?(?::\d+)?", "<address>"),
        ("::", rf"(?<![\w:])\[?(?:{_GROUPS})?::(?:{_GROUPS})?\]?(?::\d+)?(?!\w)", "<address>"),
        ("", r"\b0x[0-9a-f]+\b", "<id>"),
        ("", r"\b(?=[0-9a-f]*\d)(?=\d*[a-f])[0-9a-f]{8,}\b", "<id>"),
        ("", r"\b(?=[a-z]*\d)(?=\d*[a-z])[a-z0-9]{16,}\b", "<id>"),
        ("/", r"(?<![\w<./])/(?:[\w.@%+-]+/)+[\w.@%+-]*", "<path>"),
        ("", r"\d+(?:[.,]\d+)*", "<n>"),
    )
)
"""What a text must hold for a pattern to be worth trying, the pattern, and what it leaves in place."""

_FRAME = re.compile(r'File "([^"\n]*)", line \d+, in (\S+)')
_KIND = re.compile(r"^(?:[ ]*\|[ ]?)?([A-Za-z_][\w.]*)(?=:|$)", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last)"
_OURS = re.compile(r"(?:^|/)((?:services|llm_schema_registry)/.*)")
_LIBRARY = re.compile(r".*(?:site-packages|lib/python[\d.]+)/(.*)")


def masked(text: str) -> str:
    """The text on one line, with numbers, ids, quoted values, addresses, paths and times replaced by what they are.

    No digit is left. Looks at the first TEXT_CHARACTERS_MAX characters; the rest is left out. Never raises.
    """
    text = text[:TEXT_CHARACTERS_MAX]
    for needed, pattern, mask in _MASKS:
        if needed in text:
            text = pattern.sub(mask, text)
    return " ".join(text.split())


def place(exception: str) -> str:
    """Where a traceback's exception was raised, and its class: `KeyError in services/registry/app.py, build`.

    Of the frames the innermost of our own counts, or the innermost of all; the line number does not, which moves with
    every release. A text that is no traceback gives its first words, masked. Never raises.
    """
    text = exception[-EXCEPTION_CHARACTERS_MAX:]
    text = text[max(text.rfind(_TRACEBACK), 0) :]
    frames = list(_FRAME.finditer(text))
    behind = text.find("\n", frames[-1].end()) + 1 if frames else 0
    kind = _KIND.search(text, behind) if frames else _KIND.match(text)
    name = kind[1] if kind else masked(text.strip().partition("\n")[0][:80])
    ours = [frame for frame in frames if _OURS.search(frame[1])]
    if not frames:
        return name
    frame = (ours or frames)[-1]
    return f"{name} in {_short(frame[1])}, {frame[2]}"


def described(fields: Mapping[str, Any]) -> tuple[tuple[str, ...], str]:
    """Where the line of these fields comes from, and what it says there, masked.

    Lines of one place are of one kind though their texts may differ. Fields that hold no text count as absent.
    """
    event = masked(_text(fields, "event"))
    exception = _text(fields, "exception")
    if exception:
        return (event, *(_text(fields, name)[:TEXT_CHARACTERS_MAX] for name in ("logger", "step"))), place(exception)
    told = (_text(fields, name)[:TEXT_CHARACTERS_MAX] for name in SAME_PLACE_FIELDS)
    return (event, *told), masked(_text(fields, "message"))


def fingerprint(parts: tuple[str, ...], text: str) -> str:
    """A short name for the pattern: the same in every run, for people to refer to."""
    joined = "\0".join((*parts, text)).encode("utf-8", "replace")
    return hashlib.blake2b(joined, digest_size=ID_BYTES).hexdigest()


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if type(value) is str else ""


def _short(path: str) -> str:
    """The path from where it is the same on every machine."""
    found = _OURS.search(path) or _LIBRARY.search(path)
    return found[1] if found else path.rpartition("/")[2]
