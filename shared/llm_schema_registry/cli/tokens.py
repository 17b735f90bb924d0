"""Tokens out of files."""

from __future__ import annotations

from pathlib import Path

from llm_schema_registry.cli.exit_codes import UsageFault

TOKEN_BYTES_MAX = 4096


def read_token(path: Path | None, option: str) -> str:
    """The token in a file, empty without one. Raises UsageFault, naming the option, for a file that holds none."""
    if path is None:
        return ""
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise UsageFault(f"{option}: {path} cannot be read, or holds no token.") from None
    return checked_token(token, f"{option}: {path}")


def checked_token(token: str, where: str) -> str:
    """The token. Raises UsageFault for one that no header can hold."""
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageFault(f"{where} holds no token.")
    return token
