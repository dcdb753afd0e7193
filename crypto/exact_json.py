"""JSON whose integers are read as they stand there, however long they are.

Events of room versions 1 to 5 may hold any number, and are hashed and signed as they were written; the usual parser
makes floats of integers beyond 64 bits.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

_LONG = re.compile(rb"[0-9]{19}")


def loads(text: bytes) -> Any:
    """A JSON text; raises `orjson.JSONDecodeError` (a `ValueError`) for what is none."""
    value = orjson.loads(text)
    return value if _LONG.search(text) is None else _exact(text, value)


def has_long_numbers(text: bytes) -> bool:
    """Whether `loads` may read a JSON text otherwise than the usual parser does."""
    return _LONG.search(text) is not None


def _exact(text: bytes, value: Any) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        # Deeper than any event may be: it is refused for that.
        return value
