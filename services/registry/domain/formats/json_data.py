"""JSON payloads: read as strictly as every format needs them."""

from __future__ import annotations

import json
import math
from typing import Final, TypeAlias

from llm_schema_registry.errors import InvalidField
from services.registry.domain.formats.json_text import is_deeper, is_text

Data: TypeAlias = "bool | int | float | str | list[Data] | dict[str, Data] | None"

DATA_DEPTH_MAX: Final = 500


def read(data: bytes, *, unique_names: bool) -> Data:
    """The value of a JSON payload.

    unique_names: a name that stands twice in one object is refused; otherwise the last one counts.
    Raises InvalidField naming `data` on anything but one JSON value in UTF-8: also on NaN, on numbers
    beyond the range of doubles, on half of a surrogate pair, and on more than DATA_DEPTH_MAX levels.
    """
    try:
        value: Data = (_UNIQUE_NAMES if unique_names else _LAST_NAME_COUNTS).decode(data.decode("utf-8"))
        if is_deeper(data, DATA_DEPTH_MAX):
            raise RecursionError
        if b"\\u" in data and not is_text(value):  # Only an escape can spell half of a pair.
            raise InvalidField.of("data", "holds half of a surrogate pair, which no UTF-8 text can hold")
    except UnicodeDecodeError as error:
        raise InvalidField.of("data", f"must be UTF-8; byte {error.start} is not") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidField.of("data", f"must be one JSON value; {where}: {error.msg}") from None
    except RecursionError:
        raise InvalidField.of("data", f"must not be nested deeper than {DATA_DEPTH_MAX} levels") from None
    except _NameTwice:
        raise InvalidField.of("data", "holds an object in which one name stands twice") from None
    except ValueError as error:
        raise InvalidField.of("data", f"holds a number that cannot be read: {str(error).partition(';')[0]}") from None
    return value


class _NameTwice(ValueError):
    """An object has two members of one name."""


def _unique(pairs: list[tuple[str, Data]]) -> dict[str, Data]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise _NameTwice
    return members


def _refuse_constant(constant: str) -> Data:
    raise ValueError(f"{constant} is not a JSON number")


def _finite(number: str) -> float:
    """A number as data holds it. Raises ValueError beyond the range of doubles (RFC 8259, section 6)."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("a number is beyond the range of doubles")
    return value


_LAST_NAME_COUNTS: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)
_UNIQUE_NAMES: Final = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_unique)
"""Made once: `json.loads` with arguments makes one for every payload."""
