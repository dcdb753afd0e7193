"""What users upload: at once, or to an id that was made before (MSC2246)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.errors import Forbidden, LimitExceeded, MatrixError, NotFound, TooLarge
from homeserver.ids import random_string
from homeserver.services.media.headers import clean_content_type
from homeserver.storage.announcements import Topic
from homeserver.storage.media import Content, Media

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

    from homeserver.clock import Clock
    from homeserver.config import MediaSettings
    from homeserver.ids import ServerName, UserId
    from homeserver.services.media.new_files import NewFiles
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.media import MediaStore, StoredFile

LIFETIME_MS = 24 * 3_600 * 1000
""" "The recommended default expiration is 24 hours." """
MAX_TO_COME = 50
"""So many ids of a user may wait for their content."""
_ID_LENGTH = 24


class CannotOverwrite(MatrixError):
    """There is content already."""

    status = 409
    errcode = "M_CANNOT_OVERWRITE_MEDIA"


class Uploads:
    """Takes files from users."""

    def __init__(
        self,
        server_name: ServerName,
        settings: MediaSettings,
        database: Database,
        clock: Clock,
        store: MediaStore,
        new_files: NewFiles,
    ) -> None:
        self._server_name = server_name
        self._settings = settings
        self._database = database
        self._clock = clock
        self._store = store
        self._new_files = new_files

    async def create(self, user_id: UserId) -> tuple[str, int]:
        """An id for content that will come, as `mxc://`, and until when it must have come."""
        media_id = _new_id()
        now = self._clock.now_ms()

        async def work(transaction: Transaction) -> None:
            waiting, first_expires_ts = await self._store.count_to_come(transaction, user_id, now)
            if waiting >= MAX_TO_COME:
                raise LimitExceeded("media_to_come", first_expires_ts - now)
            await self._store.insert_to_come(
                transaction, self._server_name, media_id, user_id, now, now + LIFETIME_MS
            )

        await self._database.write(work)
        return self._uri(media_id), now + LIFETIME_MS

    async def upload(
        self, user_id: UserId, parts: AsyncIterator[bytes], content_type: str | None, name: str | None
    ) -> str:
        """Keep a file; its `mxc://`. Raises `TooLarge`, or `Forbidden` where the user has used up their room."""
        media_id = _new_id()
        await self._check_room(user_id)
        async with self._written(parts) as file:
            content = Content(file, clean_content_type(content_type), name)
            now = self._clock.now_ms()

            async def work(transaction: Transaction) -> None:
                await self._new_files.claim(transaction, file)
                await self._check_room(user_id, file.size, transaction)
                media = Media(self._server_name, media_id, user_id, now, None, content)
                await self._store.insert(transaction, media, now)

            await self._database.write(work)
        return self._uri(media_id)

    async def upload_to(
        self,
        user_id: UserId,
        server_name: str,
        media_id: str,
        parts: AsyncIterator[bytes],
        content_type: str | None,
        name: str | None,
    ) -> None:
        """Keep the file of an id that was made before.

        Raises `NotFound` for an id that was not made here or has run out, `Forbidden` for somebody else's,
        `CannotOverwrite`, and what `upload` raises.
        """
        await self._check_may_come(user_id, server_name, media_id)
        await self._check_room(user_id)
        async with self._written(parts) as file:
            content = Content(file, clean_content_type(content_type), name)
            now = self._clock.now_ms()

            async def work(transaction: Transaction) -> bool:
                await self._new_files.claim(transaction, file)
                await self._check_room(user_id, file.size, transaction)
                is_first = await self._store.complete(transaction, self._server_name, media_id, content, now)
                if is_first:
                    transaction.announce(Topic.MEDIA, media_id)
                else:
                    await self._new_files.unclaim(transaction, file)
                return is_first

            if not await self._database.write(work):
                # Somebody was faster, or time has run out.
                await self._check_may_come(user_id, server_name, media_id)
                raise CannotOverwrite("There is content already")

    async def _check_may_come(self, user_id: UserId, server_name: str, media_id: str) -> None:
        media = await self._store.get(self._server_name, media_id)
        if server_name != self._server_name or media is None:
            raise NotFound("There is no such id")
        if media.user_id != user_id:
            raise Forbidden("This id was made for somebody else")
        if media.content is not None:
            raise CannotOverwrite("There is content already")
        if media.expires_ts is None or media.expires_ts <= self._clock.now_ms():
            raise NotFound("The id has run out")

    async def _check_room(self, user_id: UserId, size: int = 0, reader: Transaction | None = None) -> None:
        """Whether a user may keep so many more bytes here."""
        most = self._settings.max_bytes_per_user
        if most is not None and (await self._store.usage_of(user_id, reader)).size + size > most:
            raise Forbidden(f"All that you upload may have {most} bytes together, and this would be more")

    def _written(self, parts: AsyncIterator[bytes]) -> AbstractAsyncContextManager[StoredFile]:
        most = self._settings.max_upload_bytes
        return self._new_files.written(parts, most, lambda: TooLarge(f"A file may have at most {most} bytes"))

    def _uri(self, media_id: str) -> str:
        return f"mxc://{self._server_name}/{media_id}"


def _new_id() -> str:
    return random_string(_ID_LENGTH)
