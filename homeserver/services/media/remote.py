"""Media of other servers: fetched when somebody here wants them first, and kept for a while."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog

from federation.errors import AnswerTooLarge, FederationError, Refused, TimedOut, Unreachable
from homeserver.errors import MatrixError, NotFound, NotYetUploaded
from homeserver.services.media.headers import clean_content_type, name_in
from homeserver.storage.media import Content, Media

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from federation.client import FederationClient
    from federation.media import RemoteMedia
    from homeserver.clock import Clock
    from homeserver.ids import ServerName
    from homeserver.services.media.elsewhere import Elsewhere
    from homeserver.services.media.new_files import NewFiles
    from homeserver.services.server_calls import ServerCalls
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.media import MediaStore

MAX_UNDER_WAY = 2_000
"""So many files are fetched or wait for it,"""
MAX_UNDER_WAY_OF_SERVER = 200
"""so many of one server, which may be slow on purpose,"""
AT_ONCE_OF_SERVER = 6
"""and so many of it come at the same time."""
_REMEMBERED_SECONDS = 60.0
_MAX_REMEMBERED = 10_000
_ACCESS_EVERY_MS = 3_600_000

_log = structlog.get_logger(__name__)


class _Queue:
    """The files of one server that come, and those that wait for them."""

    def __init__(self) -> None:
        self.length = 0
        self.places = asyncio.Semaphore(AT_ONCE_OF_SERVER)


class RemoteContents:
    """Fetches each file once, however many want it at the same time."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        store: MediaStore,
        new_files: NewFiles,
        client: FederationClient,
        calls: ServerCalls,
        elsewhere: Elsewhere,
        *,
        max_bytes: int,
        enabled: bool,
    ) -> None:
        self._database = database
        self._clock = clock
        self._store = store
        self._new_files = new_files
        self._client = client
        self._calls = calls
        self._elsewhere = elsewhere
        self._max_bytes = max_bytes
        self._enabled = enabled
        self._under_way: dict[tuple[ServerName, str], asyncio.Task[Content]] = {}
        self._failed: OrderedDict[tuple[ServerName, str], tuple[float, MatrixError]] = OrderedDict()
        """Why it cannot be had, and until when nobody asks again."""
        self._accessed: set[tuple[ServerName, str]] = set()
        self._queues: dict[ServerName, _Queue] = {}

    async def find(
        self, server_name: ServerName, media_id: str, timeout_ms: int, before_fetch: Callable[[], None]
    ) -> Content:
        """The content of a media of another server."""
        media = await self._store.get(server_name, media_id)
        if media is not None and media.content is not None:
            if media.accessed_ts < self._clock.now_ms() - _ACCESS_EVERY_MS:
                self._accessed.add((server_name, media_id))
            return media.content
        if not self._enabled:
            raise NotFound("This server does not talk to others")
        key = (server_name, media_id)
        self._check_not_failed(key)
        task = self._under_way.get(key)
        if task is None:
            before_fetch()
            waiting = self._queues.get(server_name)
            if len(self._under_way) >= MAX_UNDER_WAY or (
                waiting is not None and waiting.length >= MAX_UNDER_WAY_OF_SERVER
            ):
                raise MatrixError("Too many files are being fetched: try again later", status=503)
            task = asyncio.create_task(self._fetch(server_name, media_id, timeout_ms))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        # Whoever leaves does not take it from the others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def write_accesses(self) -> None:
        """Write down what was wanted lately."""
        accessed, self._accessed = self._accessed, set()
        if accessed:
            now = self._clock.now_ms()
            await self._database.write(
                lambda transaction: self._store.set_accessed(transaction, accessed, now)
            )

    # -- fetching ----------------------------------------------------------------------------------------

    async def _fetch(self, server_name: ServerName, media_id: str, timeout_ms: int) -> Content:
        async def attempt() -> Content | MatrixError:
            """What says nothing against the server itself is no failure of its."""
            try:
                return await self._download(server_name, media_id, timeout_ms)
            except AnswerTooLarge:
                return _too_large()
            except Refused as error:
                if error.errcode == "M_NOT_YET_UPLOADED":
                    return NotYetUploaded("The content has not been uploaded yet")
                if error.errcode == "M_TOO_LARGE":
                    return _too_large()
                if error.status == 404:
                    return NotFound(f"The server {server_name} has no such media")
                raise

        try:
            async with self._turn(server_name):
                found = await self._calls.ask(server_name, attempt)
        except TimedOut as error:
            raise MatrixError(f"The server {server_name} did not answer in time", status=504) from error
        except FederationError as error:
            raise MatrixError(f"The server {server_name} does not give it", status=502) from error
        if isinstance(found, MatrixError):
            raise found
        return found

    @contextlib.asynccontextmanager
    async def _turn(self, server_name: ServerName) -> AsyncIterator[None]:
        """Wait until few enough files of a server are coming: so it does not keep those of others waiting."""
        queue = self._queues.setdefault(server_name, _Queue())
        queue.length += 1
        try:
            async with queue.places:
                yield
        finally:
            queue.length -= 1
            if not queue.length:
                del self._queues[server_name]

    async def _download(self, server_name: ServerName, media_id: str, timeout_ms: int) -> Content:
        most = self._max_bytes
        try:
            async with self._client.download_media(
                server_name, media_id, max_bytes=most, timeout_ms=timeout_ms
            ) as media:
                if media.location is None:
                    return await self._keep(server_name, media_id, media)
                location = media.location
        except Refused as error:
            # "When they receive a 404 M_UNRECOGNIZED error"
            if error.errcode != "M_UNRECOGNIZED" and not (error.status == 404 and error.errcode is None):
                raise
            async with self._client.download_media_unsigned(
                server_name, media_id, max_bytes=most, timeout_ms=timeout_ms
            ) as media:
                return await self._keep(server_name, media_id, media)
        async with self._elsewhere.download(location, most) as media:
            return await self._keep(server_name, media_id, media)

    async def _keep(self, server_name: ServerName, media_id: str, media: RemoteMedia) -> Content:
        async with self._new_files.written(media.chunks, self._max_bytes, _too_large) as file:
            content = Content(
                file, clean_content_type(media.content_type), name_in(media.content_disposition)
            )
            now = self._clock.now_ms()

            async def work(transaction: Transaction) -> None:
                await self._new_files.claim(transaction, file)
                kept = Media(server_name, media_id, None, now, None, content)
                if not await self._store.insert(transaction, kept, now):
                    # Another process was faster.
                    await self._new_files.unclaim(transaction, file)

            await self._database.write(work)
        stored = await self._store.get(server_name, media_id)
        assert stored is not None
        assert stored.content is not None
        return stored.content

    # -- what could not be had ---------------------------------------------------------------------------

    def _ended(self, key: tuple[ServerName, str], task: asyncio.Task[Content]) -> None:
        self._under_way.pop(key, None)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if not isinstance(error, MatrixError):
            _log.error("media_not_fetched", server_name=key[0], exc_info=error)
            return
        # Of servers that cannot be reached `ServerCalls` knows when to try again.
        if (
            isinstance(error, NotYetUploaded)
            or error.status == 503
            or isinstance(error.__cause__, Unreachable)
        ):
            return
        self._failed[key] = (self._clock.monotonic() + _REMEMBERED_SECONDS, error)
        self._failed.move_to_end(key)
        while len(self._failed) > _MAX_REMEMBERED:
            self._failed.popitem(last=False)

    def _check_not_failed(self, key: tuple[ServerName, str]) -> None:
        until, error = self._failed.get(key, (0.0, None))
        if error is None:
            return
        if self._clock.monotonic() < until:
            raise MatrixError(error.message, status=error.status, errcode=error.errcode)
        del self._failed[key]


def _too_large() -> MatrixError:
    return MatrixError("The file is too large for this server", status=502, errcode="M_TOO_LARGE")
