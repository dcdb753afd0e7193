"""One SQL text for both engines: written for PostgreSQL, rewritten for SQLite.

    in a statement                        on SQLite
    $1                                    ?1
    = ANY($1::text[])                     IN (SELECT ... FROM json_each(?1)), the list given as JSON
    <> ALL($1::bigint[])                  NOT IN (SELECT ... FROM json_each(?1))
    $1::bigint, count(*)::bigint          without the cast

    in the schema                         on SQLite
    BIGINT, SMALLINT, BOOLEAN             INTEGER; a BIGINT PRIMARY KEY so becomes the row's own number
    BYTEA, DOUBLE PRECISION               BLOB, REAL
    CREATE UNLOGGED TABLE                 CREATE TABLE
    ) /* without rowid */                 ) WITHOUT ROWID, and STRICT: types are checked as PostgreSQL does

    in the schema                         on PostgreSQL
    TEXT                                  TEXT COLLATE "C": in the order of the code points, as on SQLite

What stands in quotes or in a comment is left alone.

JSON strings may hold U+0000, which PostgreSQL stores in no text, and SQLite's `json_each` cuts a text at. There a
noncharacter takes its place, itself escaped: on PostgreSQL in everything that is stored, on SQLite in lists only.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

_QUOTED = r"""(?P<quoted>'(?:[^']|'')*'|"[^"]*"|--[^\n]*)"""
_STATEMENT = re.compile(
    _QUOTED + r"|(?P<any>=\s*ANY\s*\(\s*\$(?P<any_number>\d+)(?:::\w+\[\])?\s*\))"
    r"|(?P<all>(?:<>|!=)\s*ALL\s*\(\s*\$(?P<all_number>\d+)(?:::\w+\[\])?\s*\))"
    r"|(?P<cast>::\s*(?:double\s+precision|\w+)(?:\[\])?)"
    r"|\$(?P<number>\d+)",
    re.IGNORECASE,
)
_SCHEMA = re.compile(
    _QUOTED
    + r"|(?P<integer>\b(?:BIGINT|SMALLINT|BOOLEAN)\b)|(?P<blob>\bBYTEA\b)|(?P<real>\bDOUBLE\s+PRECISION\b)"
    r"|(?P<unlogged>\bUNLOGGED\s+)|(?P<bare>/\* without rowid \*/)",
)
# A text with an escape in it comes as a list of its own.
_ELEMENTS = (
    "SELECT CASE type WHEN 'array'"
    " THEN replace(replace(json_extract(value, '$[0]'), '\ufdd00', char(0)), '\ufdd01', '\ufdd0')"
    " ELSE value END FROM json_each"
)
_LISTS = frozenset((list, tuple))
_ESCAPE = "\ufdd0"
_ESCAPED = {"\x00": _ESCAPE + "0", _ESCAPE: _ESCAPE + "1"}
_UNESCAPED = {escaped: character for character, escaped in _ESCAPED.items()}
_TO_ESCAPE = re.compile(f"[\x00{_ESCAPE}]")
_TO_UNESCAPE = re.compile(f"{_ESCAPE}[01]")
_TABLE = re.compile(r"\s*CREATE\s+TABLE\b")
_TEXT = re.compile(_QUOTED + r"|(?P<text>\bTEXT\b)")


def _rewrite_part(match: re.Match[str]) -> str:
    if match["any"]:
        return f"IN ({_ELEMENTS}(?{match['any_number']}))"
    if match["all"]:
        return f"NOT IN ({_ELEMENTS}(?{match['all_number']}))"
    if match["cast"]:
        return ""
    if match["number"]:
        return f"?{match['number']}"
    return match[0]


def _rewrite_type(match: re.Match[str]) -> str:
    if match["integer"]:
        return "INTEGER"
    if match["blob"]:
        return "BLOB"
    if match["real"]:
        return "REAL"
    if match["unlogged"] or match["bare"]:
        return ""
    return match[0]


@lru_cache(maxsize=2048)
def for_sqlite(sql: str) -> str:
    """A statement as SQLite takes it."""
    return _STATEMENT.sub(_rewrite_part, sql)


def arguments_for_sqlite(arguments: Sequence[Any]) -> Sequence[Any]:
    """The arguments of a statement as SQLite takes them: lists as JSON."""
    if _LISTS.isdisjoint(map(type, arguments)):
        return arguments
    return [_as_json(value) if type(value) in _LISTS else value for value in arguments]


def _as_json(values: Sequence[Any]) -> str:
    elements = [
        [escaped] if isinstance(value, str) and (escaped := escape_text(value)) is not value else value
        for value in values
    ]
    # A TypeError tells of what a JSON list cannot hold, such as bytes.
    return orjson.dumps(elements).decode()


def arguments_for_postgres(arguments: Sequence[Any]) -> Sequence[Any]:
    """The arguments of a statement as PostgreSQL takes them: lists with escaped texts."""
    if _LISTS.isdisjoint(map(type, arguments)):
        return arguments
    return [_with_escapes(value) if type(value) in _LISTS else value for value in arguments]


def _with_escapes(values: Sequence[Any]) -> list[Any]:
    return [escape_text(value) if isinstance(value, str) else value for value in values]


def escape_text(text: str) -> str:
    """A text without U+0000; the same object where it has none."""
    if "\x00" in text or _ESCAPE in text:
        return _TO_ESCAPE.sub(lambda match: _ESCAPED[match[0]], text)
    return text


def unescape_text(text: str) -> str:
    """The text that was escaped."""
    if _ESCAPE in text:
        return _TO_UNESCAPE.sub(lambda match: _UNESCAPED[match[0]], text)
    return text


def schema_for_sqlite(sql: str) -> str:
    """A statement of a migration as SQLite takes it."""
    without_rowid = "/* without rowid */" in sql
    sql = _SCHEMA.sub(_rewrite_type, sql).rstrip()
    if _TABLE.match(sql):
        return f"{sql} WITHOUT ROWID, STRICT" if without_rowid else f"{sql} STRICT"
    return sql


def schema_for_postgres(sql: str) -> str:
    """A statement of a migration as PostgreSQL takes it."""
    return _TEXT.sub(lambda match: 'TEXT COLLATE "C"' if match["text"] else match[0], sql)
