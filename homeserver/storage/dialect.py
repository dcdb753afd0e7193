"""One SQL text for both engines: written for PostgreSQL, rewritten for SQLite.

    $1                          ?1
    = ANY($1::text[])           IN (SELECT value FROM json_each(?1)), the list given as JSON
    BIGINT PRIMARY KEY          INTEGER PRIMARY KEY, which is the row's own number
    BYTEA, UNLOGGED             BLOB, nothing
    ) /* without rowid */       ) WITHOUT ROWID
"""

from __future__ import annotations

import re
from functools import lru_cache

_ANY = re.compile(r"=\s*ANY\(\$(\d+)::(?:text|bigint)\[\]\)")
_PARAMETER = re.compile(r"\$(\d+)(?:::\w+)?")
_WITHOUT_ROWID = re.compile(r"\)\s*/\* without rowid \*/")


@lru_cache(maxsize=2048)
def for_sqlite(sql: str) -> str:
    """The statement as SQLite takes it."""
    sql = _ANY.sub(r"IN (SELECT value FROM json_each(?\1))", sql)
    return _PARAMETER.sub(r"?\1", sql)


def schema_for_sqlite(sql: str) -> str:
    """A statement of a migration as SQLite takes it."""
    sql = sql.replace("BIGINT PRIMARY KEY", "INTEGER PRIMARY KEY").replace("BYTEA", "BLOB")
    return _WITHOUT_ROWID.sub(") WITHOUT ROWID", sql.replace("UNLOGGED ", ""))
