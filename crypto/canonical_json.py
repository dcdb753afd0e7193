"""Canonical JSON (Appendices, "Canonical JSON"): the one encoding that hashes and signatures are made over.

The shortest UTF-8 form, object keys sorted by code point, no floats, integers within +-(2^53 - 1).
"""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from crypto.errors import CanonicalJsonError

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 200
"""So deep may lists and objects be inside of each other."""
MAX_MESSAGE_DEPTH = 800
"""So deep may they be in a whole request: what is in it is judged by itself."""


def encode(value: Any) -> bytes:
    """The canonical form of a value of JSON types.

    Raises `CanonicalJsonError` for floats, integers out of range, keys that are not text, lone surrogates and
    absurd depths.
    """
    check(value)
    return encode_unchecked(value)


def encode_unchecked(value: Any) -> bytes:
    """The canonical form of a value that is known to have one."""
    try:
        # UTF-8 keeps the order of code points, so sorted keys are sorted as the specification says.
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except (TypeError, orjson.JSONEncodeError) as error:
        raise CanonicalJsonError(str(error)) from error


def encode_historical(value: Any) -> bytes:
    """The form that events of room versions 1 to 5 are hashed and signed in, whatever numbers they hold.

    The specification has code for canonical JSON, in Python; floats and big integers look as that code writes them.
    """
    try:
        check(value)
    except CanonicalJsonError:
        check(value, any_number=True)
    else:
        return encode_unchecked(value)
    return _encode_slowly(value)


def encode_message(value: Any) -> bytes:
    """The form in which whole requests are signed: what is in them may be of any room version, or deeper than it may."""
    try:
        return encode_historical(value)
    except CanonicalJsonError:
        check(value, any_number=True, max_depth=MAX_MESSAGE_DEPTH)
    return _encode_slowly(value)


def _encode_slowly(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise CanonicalJsonError(str(error)) from error


def check(value: Any, *, any_number: bool = False, max_depth: int = MAX_DEPTH) -> None:
    """Raise `CanonicalJsonError` unless the value has a canonical form.

    `any_number` lets floats and integers out of range pass, as old room versions do.
    """
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        item, depth = stack.pop()
        kind = type(item)
        if kind is str or kind is bool or item is None:
            continue
        if kind is int:
            if not any_number and not -MAX_INTEGER <= item <= MAX_INTEGER:
                message = f"the integer {item} is out of range"
                raise CanonicalJsonError(message)
            continue
        if depth >= max_depth:
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
        elif not any_number or kind is not float or not math.isfinite(item):
            message = "numbers must be integers" if kind is float else f"{kind.__name__} is not a JSON type"
            raise CanonicalJsonError(message)
