"""Looks for texts in whatever a server leaves behind: files, rows, logs; in whatever encoding they may be."""

from __future__ import annotations

import base64
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tests.postgresql import Cluster
    from tests.server_process import ServerProcess

_UNWRITTEN = b"\0" * 512


def forms(text: str) -> dict[str, bytes]:
    """How a text may be written down: what is found where it stands inside something longer."""
    raw = text.encode()
    found = {
        "plain": raw,
        "hexadecimal": raw.hex().encode(),
        "hexadecimal in capitals": raw.hex().upper().encode(),
        "percent-encoded": quote(text, safe="").encode(),
        "percent-encoded throughout": "".join(f"%{byte:02X}" for byte in raw).encode(),
        "JSON": "".join(f"\\u{ord(character):04x}" for character in text).encode(),
        "UTF-16, little end first": text.encode("utf-16-le"),
        "UTF-16, big end first": text.encode("utf-16-be"),
    }
    for before in range(3):
        # What the bytes around it have a part in is cut off.
        encoded = base64.b64encode(b"\0" * before + raw)
        whole = encoded[(0, 2, 3)[before] : len(encoded) - (0, 3, 2)[(before + len(raw)) % 3]]
        found[f"Base64, {before} bytes in"] = whole
        found[f"URL-safe Base64, {before} bytes in"] = whole.translate(bytes.maketrans(b"+/", b"-_"))
    # Most texts look the same in several.
    return {form: data for data, form in {data: form for form, data in reversed(found.items())}.items()}


class Leavings:
    """What a server leaves behind, on either engine: its files, those of the database, and the rows."""

    def __init__(self, server: ServerProcess, database_url: str, cluster: Cluster | None) -> None:
        self._server = server
        self._url = database_url
        self._cluster = cluster
        self._since = time.time() - 1

    async def find(self, texts: Mapping[str, str]) -> set[tuple[str, str, str]]:
        """Where these named texts are, and in which form."""
        places = [self._server.directory]
        if self._cluster is not None:
            await self._cluster.execute("CHECKPOINT")
            places.append(self._cluster.folder)
        else:
            database = Path(self._url.removeprefix("sqlite:///"))
            places += database.parent.glob(f"{database.name}*")
        return traces(texts, files(*places, since=self._since)) | traces(texts, await rows(self._url))


def traces(texts: Mapping[str, str], places: Iterable[tuple[str, bytes]]) -> set[tuple[str, str, str]]:
    """Which of the named texts are to be found, in which form and where."""
    wanted = [(name, form, data) for name, text in texts.items() for form, data in forms(text).items()]
    return {
        (name, form, place) for place, content in places for name, form, data in wanted if data in content
    }


def files(*places: Path, since: float = 0) -> Iterator[tuple[str, bytes]]:
    """The contents of files, and of all files in folders, that were changed since a time."""
    for place in places:
        for path in place.rglob("*") if place.is_dir() else (place,):
            # Sockets are no files, and PostgreSQL deletes some while we look.
            with suppress(FileNotFoundError):
                if path.is_file() and path.stat().st_mtime >= since:
                    # What was laid out and never written is most of a database that is young.
                    yield str(path), path.read_bytes().replace(_UNWRITTEN, b"")


async def rows(database_url: str) -> list[tuple[str, bytes]]:
    """All that stands in the tables: in a file a page may end in the middle of it, or it may be compressed."""
    if database_url.startswith("sqlite:"):
        connection = sqlite3.connect(f"file:{database_url.removeprefix('sqlite:///')}?mode=ro", uri=True)
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in list(names)}
        connection.close()
    else:
        postgresql = await asyncpg.connect(database_url)
        names = await postgresql.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        tables = {name: await postgresql.fetch(f"SELECT * FROM {name}") for (name,) in names}
        await postgresql.close()
    return [
        (f"the table {name}", b"\n".join(_bytes(value) for row in rows for value in row))
        for name, rows in tables.items()
    ]


def told(server: ServerProcess, metrics: str) -> list[tuple[str, bytes]]:
    """What a server says of what it does."""
    return [("the log", server.log().encode()), ("the metrics", metrics.encode())]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
