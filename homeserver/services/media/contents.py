"""The content of media, of this server and of others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from federation.server_names import is_server_name
from homeserver.errors import MatrixError, NotFound, NotYetUploaded
from homeserver.ids import ServerName, is_media_id
from homeserver.storage.media_files import FileLost

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from homeserver.clock import Clock
    from homeserver.services.media.arrivals import Arrivals
    from homeserver.services.media.remote import RemoteContents
    from homeserver.storage.media import Content, MediaStore, StoredFile
    from homeserver.storage.media_files import MediaFiles

DEFAULT_TIMEOUT_MS = 20_000
MAX_TIMEOUT_MS = 60_000

_log = structlog.get_logger(__name__)


class Contents:
    """Finds content, and reads it."""

    def __init__(
        self,
        server_name: ServerName,
        clock: Clock,
        store: MediaStore,
        files: MediaFiles,
        arrivals: Arrivals,
        remote: RemoteContents,
    ) -> None:
        self._server_name = server_name
        self._clock = clock
        self._store = store
        self._files = files
        self._arrivals = arrivals
        self._remote = remote
        self.part_bytes = files.part_bytes
        """How much of a file is read at a time."""

    def is_ours(self, server_name: str) -> bool:
        """Whether media of that server are of this one."""
        return server_name == self._server_name

    async def find(
        self, server_name: str, media_id: str, timeout_ms: int, before_fetch: Callable[[], None]
    ) -> Content:
        """The content of `mxc://server_name/media_id`, fetched from its server where it is another's.

        `before_fetch` may refuse that it is fetched. Raises `NotFound`, `NotYetUploaded` where it does not come
        within the time, and 502 or 504 where the other server does not give it.
        """
        if self.is_ours(server_name):
            return await self.find_ours(media_id, timeout_ms)
        # As homeservers "MUST sanitise mxc:// URIs".
        if not is_server_name(server_name) or not is_media_id(media_id):
            raise NotFound("This is not the address of a media")
        return await self._remote.find(ServerName(server_name), media_id, timeout_ms, before_fetch)

    async def find_ours(self, media_id: str, timeout_ms: int) -> Content:
        """The content of a media of this server; raises `NotFound` and `NotYetUploaded`."""
        content = await self._get(media_id)
        if content is not None:
            return content
        with self._arrivals.waiting_for(media_id) as arrived:
            # It may have come before anybody waited.
            content = await self._get(media_id)
            if content is None and arrived is not None:
                try:
                    await asyncio.wait_for(arrived.wait(), timeout_ms / 1000)
                except TimeoutError:
                    pass
                else:
                    content = await self._get(media_id)
        if content is None:
            raise NotYetUploaded("The content has not been uploaded yet")
        return content

    async def _get(self, media_id: str) -> Content | None:
        """The content, None where it is still to come; raises `NotFound`."""
        media = await self._store.get(self._server_name, media_id) if is_media_id(media_id) else None
        if media is None or (media.expires_ts is not None and media.expires_ts <= self._clock.now_ms()):
            raise NotFound("There is no such media")
        return media.content

    async def read(self, file: StoredFile, start: int, end: int) -> bytes:
        """Some bytes of a file; `NotFound` where the file has been lost, 503 where it cannot be read now."""
        try:
            return await self._files.read(file.name, start, end)
        except FileLost as error:
            _log.error("media_file_lost", file=file.name, error=str(error))
            raise NotFound("The content has been lost") from error
        except OSError as error:
            _log.error("media_not_read", file=file.name, error=str(error))
            raise MatrixError("The file cannot be read now: try again later", status=503) from error

    async def parts(self, file: StoredFile, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """A file from `start` to before `end`, part by part."""
        end = file.size if end is None else end
        for begin in range(start, end, self.part_bytes):
            yield await self.read(file, begin, min(begin + self.part_bytes, end))
