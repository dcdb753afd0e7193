"""Media: what is known of each, and which file holds its content."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homeserver.ids import ServerName, UserId

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homeserver.storage.database import Database, Row, Transaction
    from homeserver.storage.media_strays import StrayFiles

_COLUMNS = "server_name, media_id, user_id, accessed_ts, expires_ts, file_name, size, sha256, content_type, upload_name"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file: its name in the store, its size in bytes, the hash of its content."""

    name: str
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Content:
    """What was uploaded: the file, and how whoever uploaded it called it."""

    file: StoredFile
    content_type: str
    upload_name: str | None


@dataclass(frozen=True, slots=True)
class Media:
    """`mxc://server_name/media_id`; there is no content as long as `expires_ts` says until when it must come."""

    server_name: ServerName
    media_id: str
    user_id: UserId | None
    accessed_ts: int
    expires_ts: int | None
    content: Content | None


@dataclass(frozen=True, slots=True)
class Usage:
    """How many media a user has uploaded, and their bytes."""

    count: int
    size: int


class MediaStore:
    """Media by their server and id."""

    def __init__(self, database: Database, strays: StrayFiles) -> None:
        self._database = database
        self._strays = strays

    async def get(self, server_name: ServerName, media_id: str) -> Media | None:
        """What is known of a media."""
        row = await self._database.fetch_one(
            f"SELECT {_COLUMNS} FROM media WHERE server_name = $1 AND media_id = $2", server_name, media_id
        )
        return None if row is None else _media(row)

    async def insert_to_come(
        self,
        transaction: Transaction,
        server_name: ServerName,
        media_id: str,
        user_id: UserId,
        now_ms: int,
        expires_ts: int,
    ) -> None:
        """An id for content that will come."""
        await transaction.execute(
            "INSERT INTO media (server_name, media_id, user_id, created_ts, accessed_ts, expires_ts)"
            " VALUES ($1, $2, $3, $4, $4, $5)",
            server_name,
            media_id,
            user_id,
            now_ms,
            expires_ts,
        )

    async def insert(self, transaction: Transaction, media: Media, now_ms: int) -> bool:
        """Store a media with its content; False where there is one of that name."""
        assert media.content is not None
        content = await self._shared(transaction, media.content)
        inserted = await transaction.execute(
            "INSERT INTO media (server_name, media_id, user_id, created_ts, accessed_ts,"
            " file_name, size, sha256, content_type, upload_name)"
            " VALUES ($1, $2, $3, $4, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
            media.server_name,
            media.media_id,
            media.user_id,
            now_ms,
            *_values(content),
        )
        return bool(inserted)

    async def complete(
        self, transaction: Transaction, server_name: ServerName, media_id: str, content: Content, now_ms: int
    ) -> bool:
        """The content of an id has come; False where it was there already, or comes too late."""
        content = await self._shared(transaction, content)
        return bool(
            await transaction.execute(
                "UPDATE media SET file_name = $3, size = $4, sha256 = $5, content_type = $6, upload_name = $7,"
                " expires_ts = NULL WHERE server_name = $1 AND media_id = $2 AND expires_ts > $8",
                server_name,
                media_id,
                *_values(content),
                now_ms,
            )
        )

    async def _shared(self, transaction: Transaction, content: Content) -> Content:
        """The content in the file that holds it already, where there is one; then the new one is not wanted."""
        file = content.file
        name = await transaction.fetch_value(
            "SELECT file_name FROM media WHERE sha256 = $1 LIMIT 1", file.sha256
        )
        if name is None or name == file.name:
            return content
        await self._strays.give_up(transaction, [file.name])
        return Content(StoredFile(name, file.size, file.sha256), content.content_type, content.upload_name)

    # -- what users take up ------------------------------------------------------------------------------

    async def usage_of(self, user_id: UserId, reader: Transaction | None = None) -> Usage:
        """What a user has uploaded."""
        row = await (reader or self._database).fetch_one(
            "SELECT count(size)::bigint, coalesce(sum(size), 0)::bigint FROM media WHERE user_id = $1",
            user_id,
        )
        assert row is not None
        return Usage(*row)

    async def count_to_come(self, transaction: Transaction, user_id: UserId, now_ms: int) -> tuple[int, int]:
        """How many ids of a user wait for their content, and when the first of them runs out."""
        row = await transaction.fetch_one(
            "SELECT count(*)::bigint, coalesce(min(expires_ts), 0) FROM media"
            " WHERE user_id = $1 AND size IS NULL AND expires_ts > $2",
            user_id,
            now_ms,
        )
        assert row is not None
        return row[0], row[1]

    async def delete_of_user(self, transaction: Transaction, user_id: UserId) -> None:
        """Drop the ids for which nothing will come any more. What was uploaded is in rooms, for others to see."""
        await transaction.execute(
            "DELETE FROM media WHERE user_id = $1 AND size IS NULL AND expires_ts IS NOT NULL", user_id
        )

    # -- what goes ---------------------------------------------------------------------------------------

    async def delete_expired(self, transaction: Transaction, now_ms: int) -> None:
        """Drop ids for which nothing came in time."""
        await transaction.execute("DELETE FROM media WHERE expires_ts <= $1", now_ms)

    async def set_accessed(
        self, transaction: Transaction, accessed: Iterable[tuple[ServerName, str]], now_ms: int
    ) -> None:
        """Somebody wanted these."""
        await transaction.execute_many(
            "UPDATE media SET accessed_ts = $3 WHERE server_name = $1 AND media_id = $2",
            [(server_name, media_id, now_ms) for server_name, media_id in accessed],
        )

    async def size_of_others(self) -> int:
        """The bytes of all that is kept of other servers."""
        return int(
            await self._database.fetch_value(
                "SELECT coalesce(sum(size), 0)::bigint FROM media WHERE user_id IS NULL"
            )
            or 0
        )

    async def delete_of_others(
        self, transaction: Transaction, *, accessed_before: int, at_most: int, enough: int | None = None
    ) -> int | None:
        """Drop media of other servers, those first that nobody wanted for longest, until `enough` bytes are free.

        The answer is how many bytes they had, None where there were none to drop.
        """
        rows = await transaction.fetch_all(
            "SELECT server_name, media_id, file_name, size FROM media WHERE user_id IS NULL AND accessed_ts < $1"
            " ORDER BY accessed_ts LIMIT $2",
            accessed_before,
            at_most,
        )
        freed = itertools.accumulate(size for *_, size in rows)
        gone = [
            row for row, sum_ in zip(rows, freed, strict=True) if enough is None or sum_ - row[3] < enough
        ]
        await transaction.execute_many(
            "DELETE FROM media WHERE server_name = $1 AND media_id = $2", [row[:2] for row in gone]
        )
        await self._let_go(transaction, {row[2] for row in gone})
        return sum(row[3] for row in gone) if gone else None

    async def _let_go(self, transaction: Transaction, file_names: set[str]) -> None:
        """Give up those files, and what was made of them, that no media refers to any more."""
        names = list(file_names)
        used = await transaction.fetch_all(
            "SELECT DISTINCT file_name FROM media WHERE file_name = ANY($1::text[])", names
        )
        unused = list(file_names - {name for (name,) in used})
        thumbnails = await transaction.fetch_all(
            "DELETE FROM media_thumbnails WHERE file_name = ANY($1::text[]) RETURNING thumbnail_name", unused
        )
        await self._strays.give_up(transaction, {*unused, *(name for (name,) in thumbnails)})


def _media(row: Row) -> Media:
    server_name, media_id, user_id, accessed_ts, expires_ts, file_name, size, sha256, content_type, name = row
    return Media(
        server_name=ServerName(server_name),
        media_id=media_id,
        user_id=None if user_id is None else UserId(user_id),
        accessed_ts=accessed_ts,
        expires_ts=expires_ts,
        content=None
        if file_name is None
        else Content(StoredFile(file_name, size, bytes(sha256)), content_type, name),
    )


def _values(content: Content) -> tuple[str, int, bytes, str, str | None]:
    file = content.file
    return file.name, file.size, file.sha256, content.content_type, content.upload_name
