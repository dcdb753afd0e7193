"""Reads a big JSON object bit by bit: the elements of some of its lists one at a time, the rest whole.

For answers such as that of `send_join`, which can have tens of thousands of events: neither their text nor their
objects are ever in memory together. Elements are found by their brackets and handed on as bytes, each of which
must still be parsed, which tells whether it is JSON.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import orjson

from crypto import exact_json

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_SPACE = re.compile(rb"[ \t\r\n]*")
# Possessive: a string that is not at its end yet is given up at once. Then its quote alone matches.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_MARKS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[][{}"]', re.DOTALL)


def _nested(depth: int) -> bytes:
    """An object or a list that is so deep at most, up to its end; whether it is JSON is not looked at."""
    inside = rb'[^][{}"]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
    return rb"[{[](?:" + inside + (b"|" + _nested(depth - 1) if depth > 1 else b"") + rb")*+[]}]"


# Nearly all events are no deeper: they are found in one go.
_SHALLOW = re.compile(_nested(5), re.DOTALL)
_SCALAR = re.compile(rb"[^][{},:\" \t\r\n]+")
_OPENING = b"{["
# Looked at in pieces of this size, so that a body that drips in is not looked at again and again.
_PIECE_BYTES = 1 << 16


class NotJson(ValueError):
    """What comes is not a JSON object, or something in it is larger than it may be."""


class ObjectStream:
    """Takes the bytes of one JSON object, in pieces, and tells its members as they are complete.

    Members are told as `(name, value)`: for the names in `lists` once for each element of the list, for the others
    once. `max_value_bytes` bounds each. Where there is a `max_depth`, what is deeper is told as None and not parsed.
    """

    def __init__(self, lists: Collection[str], max_value_bytes: int, *, max_depth: int | None = None) -> None:
        self._lists = lists
        self._max = max_value_bytes
        self._max_depth = max_depth
        self._buffer = bytearray()
        self._position = 0
        self._fresh = 0
        self._state = self._begin
        self._name = ""
        self._names: set[str] = set()
        # Of the value that is being looked for: how far that went, and how deep it is there.
        self._scanned = 0
        self._depth = 0
        self._deepest = 0
        self._at_end = False
        self._found: list[tuple[str, Any]] = []

    @property
    def held_bytes(self) -> int:
        """How much was fed and is not complete yet."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[str, Any]]:
        """What is complete with these bytes; raises `NotJson`."""
        self._buffer += data
        self._fresh += len(data)
        if self._fresh < _PIECE_BYTES:
            return []
        return self._advance()

    def end(self) -> list[tuple[str, Any]]:
        """What the last bytes complete; raises `NotJson` where the object does not end."""
        self._at_end = True
        found = self._advance()
        self._skip_space()
        if self._state != self._done or self._position < len(self._buffer):
            raise NotJson("the object does not end where it should")
        return found

    def _advance(self) -> list[tuple[str, Any]]:
        self._fresh = 0
        while self._state():
            pass
        del self._buffer[: self._position]
        self._scanned -= self._position
        self._position = 0
        if len(self._buffer) > self._max + _PIECE_BYTES:
            raise NotJson(f"a value has more than {self._max} bytes")
        found, self._found = self._found, []
        return found

    # -- states: each takes something and answers whether there may be more to take ----------------------

    def _begin(self) -> bool:
        return self._take(b"{", self._first_name)

    def _first_name(self) -> bool:
        return self._take(b"}", self._done, wrong=False) or self._name_of_member()

    def _name_of_member(self) -> bool:
        self._skip_space()
        found = _STRING.match(self._buffer, self._position)
        if found is None:
            if self._position < len(self._buffer) and self._buffer[self._position] != 0x22:
                raise NotJson("a name is missing")
            if self._at_end or len(self._buffer) - self._position > self._max:
                raise NotJson("a name does not end")
            return False
        if len(found[0]) > self._max:
            raise NotJson(f"a name has more than {self._max} bytes")
        self._name = _parsed(found[0])
        # Of two members with one name parsers believe the first or the last; here there is no third to ask.
        if self._name in self._names:
            raise NotJson("a name stands there twice")
        self._names.add(self._name)
        if len(self._names) > 1000:
            raise NotJson("too many names")
        self._position = found.end()
        self._state = self._colon
        return True

    def _colon(self) -> bool:
        return self._take(b":", self._before_value)

    def _before_value(self) -> bool:
        if self._name in self._lists:
            return self._take(b"[", self._first_element)
        self._start_value(self._value)
        return True

    def _value(self) -> bool:
        value = self._whole_value()
        if value is None:
            return False
        self._found.append((self._name, self._parsed(value)))
        self._state = self._after_value
        return True

    def _after_value(self) -> bool:
        return self._take(b"}", self._done, wrong=False) or self._take(b",", self._name_of_member)

    def _first_element(self) -> bool:
        if self._take(b"]", self._after_value, wrong=False):
            return True
        if self._position >= len(self._buffer):
            return False
        self._start_value(self._element)
        return True

    def _before_element(self) -> bool:
        self._start_value(self._element)
        return True

    def _element(self) -> bool:
        value = self._whole_value()
        if value is None:
            return False
        self._found.append((self._name, self._parsed(value)))
        self._state = self._after_element
        return True

    def _after_element(self) -> bool:
        return self._take(b"]", self._after_value, wrong=False) or self._take(b",", self._before_element)

    def _done(self) -> bool:
        return False

    # -- pieces ------------------------------------------------------------------------------------------

    def _skip_space(self) -> None:
        found = _SPACE.match(self._buffer, self._position)
        assert found is not None
        self._position = found.end()

    def _take(self, mark: bytes, following: Any, *, wrong: bool = True) -> bool:
        self._skip_space()
        if self._position >= len(self._buffer):
            return False
        if self._buffer[self._position] != mark[0]:
            if wrong:
                raise NotJson(f"{mark.decode()} is missing")
            return False
        self._position += 1
        self._state = following
        return True

    def _start_value(self, state: Any) -> None:
        self._skip_space()
        self._scanned, self._depth, self._deepest = self._position, 0, 0
        self._state = state

    def _whole_value(self) -> bytes | None:
        """The text of the value at this position, once it is all there."""
        buffer = self._buffer
        if self._depth == 0:
            self._skip_space()
            if self._position >= len(buffer):
                return None
            self._scanned = self._position
            first = buffer[self._position]
            if first == 0x22:
                found = _STRING.match(buffer, self._position)
                return None if found is None else self._up_to(found.end())
            if first in _OPENING:
                found = _SHALLOW.match(buffer, self._position)
                if found is not None:
                    return self._up_to(found.end())
            else:
                found = _SCALAR.match(buffer, self._position)
                if found is None:
                    raise NotJson("a value is missing")
                complete = found.end() < len(buffer) or self._at_end
                return self._up_to(found.end()) if complete else None
        for found in self._marks():
            mark = found[0]
            if len(mark) > 1:
                pass
            elif mark == b'"':
                # The string is not at its end.
                self._scanned = found.start()
                break
            elif mark in _OPENING:
                self._depth += 1
                self._deepest = max(self._deepest, self._depth)
            else:
                self._depth -= 1
                if self._depth == 0:
                    return self._up_to(found.end())
            self._scanned = found.end()
        return None

    def _marks(self) -> Iterator[re.Match[bytes]]:
        return _MARKS.finditer(self._buffer, self._scanned)

    def _parsed(self, text: bytes) -> Any:
        if self._max_depth is not None and self._deepest > self._max_depth:
            return None
        return _parsed(text)

    def _up_to(self, end: int) -> bytes:
        if end - self._position > self._max:
            raise NotJson(f"a value has more than {self._max} bytes")
        value = bytes(self._buffer[self._position : end])
        self._position = end
        return value


def _parsed(text: bytes) -> Any:
    try:
        return exact_json.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotJson(str(error)) from None
