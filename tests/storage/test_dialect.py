"""One SQL text for both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from homeserver.storage.dialect import for_sqlite, schema_for_postgres, schema_for_sqlite

if TYPE_CHECKING:
    from homeserver.storage.database import Database


@pytest.mark.parametrize(
    ("written", "on_sqlite"),
    [
        ("SELECT $1, $12", "SELECT ?1, ?12"),
        ("a = any ( $2::bigint[] )", for_sqlite("a = ANY($2::text[])")),
        ("a <> ALL($3::text[])", for_sqlite("a = ANY($3)").replace("IN (", "NOT IN (", 1)),
        ("a != ALL($3)", for_sqlite("a <> ALL($3::bigint[])")),
        ("$1::bigint + count(*)::bigint", "?1 + count(*)"),
        ("x::double precision", "x"),
        ("'it''s $1::text' || $1", "'it''s $1::text' || ?1"),
        ('"$1" = $1 -- not $1', '"$1" = ?1 -- not $1'),
    ],
)
def test_a_statement_is_rewritten_for_sqlite(written: str, on_sqlite: str) -> None:
    assert for_sqlite(written) == on_sqlite


def test_the_schema_is_rewritten_for_each_engine() -> None:
    written = (
        "CREATE UNLOGGED TABLE t (a BIGINT PRIMARY KEY, b TEXT DEFAULT 'TEXT BIGINT', -- a BYTEA\n"
        " c BYTEA, d DOUBLE PRECISION, e BOOLEAN, f SMALLINT) /* without rowid */"
    )
    assert schema_for_sqlite(written) == (
        "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT DEFAULT 'TEXT BIGINT', -- a BYTEA\n"
        " c BLOB, d REAL, e INTEGER, f INTEGER) WITHOUT ROWID, STRICT"
    )
    assert schema_for_postgres(written).count('TEXT COLLATE "C"') == 1
    assert schema_for_sqlite("CREATE INDEX i ON t (a)") == "CREATE INDEX i ON t (a)"


async def test_both_engines_answer_alike(database: Database) -> None:
    """Lists, text with any character, bytes, large numbers, order by code point, what is changed."""
    await database.write(
        lambda t: t.execute(
            schema_for_sqlite("CREATE TABLE things (name TEXT PRIMARY KEY, number BIGINT, bytes BYTEA)")
            if "Sqlite" in type(database).__name__
            else schema_for_postgres(
                "CREATE TABLE things (name TEXT PRIMARY KEY, number BIGINT, bytes BYTEA)"
            )
        )
    )
    rows = [
        ("a", 2**63 - 1, b"\x00\xff"),
        ("B", -(2**63), b""),
        ("b", None, None),
        ("ä", 0, b"x"),
        ("with \x00 inside", 1, b"1"),
        ("\ufdd0 and \ufdd00", 2, b"2"),
        ("\U0001f600", 3, b"3"),
        ("\uffff", 4, b"4"),
    ]
    await database.write(
        lambda t: t.execute_many("INSERT INTO things (name, number, bytes) VALUES ($1, $2, $3)", rows)
    )
    stored = await database.fetch_all("SELECT name, number, bytes FROM things")
    assert sorted(stored, key=lambda row: row[0]) == sorted(rows, key=lambda row: row[0])
    names = [name for (name,) in await database.fetch_all("SELECT name FROM things ORDER BY name")]
    plain = [name for name in names if "\ufdd0" not in name and "\x00" not in name]
    assert plain == sorted(plain)
    assert (
        len(
            await database.fetch_all(
                "SELECT 1 FROM things WHERE name = ANY($1::text[])", ["a", "with \x00 inside", "nobody"]
            )
        )
        == 2
    )
    assert await database.fetch_all("SELECT 1 FROM things WHERE name = ANY($1::text[])", []) == []
    assert (
        await database.fetch_value("SELECT count(*) FROM things WHERE number <> ALL($1::bigint[])", [1, 2])
        == 5
    )
    assert await database.write(lambda t: t.execute("UPDATE things SET number = 7 WHERE number > 0")) == 5
    gone = await database.write(
        lambda t: t.fetch_all("DELETE FROM things WHERE name = $1 RETURNING number", "a")
    )
    assert gone == [(7,)]


async def test_readers_write_nothing(database: Database) -> None:
    """A statement that writes has no place outside of `write`, on either engine."""
    with pytest.raises(Exception, match=r"read-?only"):
        await database.fetch_all("DELETE FROM server RETURNING server_name")
    assert await database.fetch_value("SELECT count(*) FROM server") == 1
