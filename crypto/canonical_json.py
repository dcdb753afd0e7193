"""Canonical JSON (Appendices, "Canonical JSON"): the one encoding that hashes and signatures are made over.

The shortest UTF-8 form, object keys sorted by code point, no floats, integers within +-(2^53 - 1).
"""

from __future__ import annotations

from typing import Any

import orjson

from crypto.errors import CanonicalJsonError

MAX_INTEGER = 2**53 - 1
_MAX_DEPTH = 200


def encode(value: Any) -> bytes:
    """The canonical form of a value of JSON types.

    Raises `CanonicalJsonError` for floats, integers out of range, keys that are not text, lone surrogates and
    absurd depths.
    """
    check(value)
    return encode_unchecked(value)


def encode_unchecked(value: Any) -> bytes:
    """The canonical form of a value that may hold floats: events of room versions 1 to 5 may, as the past had it."""
    try:
        # UTF-8 keeps the order of code points, so sorted keys are sorted as the specification says.
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise CanonicalJsonError(str(error)) from error


def check(value: Any) -> None:
    """Raise `CanonicalJsonError` unless the value has a canonical form."""
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                message = f"the integer {item} is out of range"
                raise CanonicalJsonError(message)
            continue
        if depth >= _MAX_DEPTH:
            message = "nested too deeply"
            raise CanonicalJsonError(message)
        if kind is dict:
            for key, child in item.items():
                if type(key) is not str:
                    message = "a key is not text"
                    raise CanonicalJsonError(message)
                if type(child) is not str:
                    stack.append((child, depth + 1))
        elif kind is list or kind is tuple:
            stack += [(child, depth + 1) for child in item]
        else:
            message = "numbers must be integers" if kind is float else f"{kind.__name__} is not a JSON type"
            raise CanonicalJsonError(message)
