"""Files that are being written: something comes to refer to them, or they go again."""

from __future__ import annotations

import contextlib
import hashlib
import string
from typing import TYPE_CHECKING

import structlog

from homeserver.errors import MatrixError
from homeserver.ids import random_string
from homeserver.storage.media import StoredFile
from homeserver.storage.media_files import NAME_LENGTH

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from homeserver.clock import Clock
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.media_files import MediaFiles
    from homeserver.storage.media_strays import StrayFiles

_log = structlog.get_logger(__name__)


class NewFiles:
    """Writes files."""

    def __init__(self, database: Database, clock: Clock, strays: StrayFiles, files: MediaFiles) -> None:
        self._database = database
        self._clock = clock
        self._strays = strays
        self._files = files

    @contextlib.asynccontextmanager
    async def written(
        self, parts: AsyncIterator[bytes], max_bytes: int, too_large: Callable[[], MatrixError]
    ) -> AsyncIterator[StoredFile]:
        """A file with this content, on the disk. Inside the `with` something has to `claim` it, or it goes again.

        Raises what `too_large` makes where there is more than `max_bytes`, what the parts raise, or 503 where the
        disk cannot take it.
        """
        name = random_string(NAME_LENGTH, string.ascii_lowercase)
        now = self._clock.now_ms()
        await self._database.write(lambda transaction: self._strays.begin(transaction, name, now))
        measured = _Measured(parts, max_bytes, too_large)
        try:
            try:
                await self._files.write(name, measured.parts())
            except OSError as error:
                _log.error("media_not_kept", error=str(error))
                raise MatrixError("The server cannot keep files now: try again later", status=503) from error
            yield StoredFile(name, measured.size, measured.sha256.digest())
        except BaseException:
            await self._drop(name)
            raise

    async def claim(self, transaction: Transaction, file: StoredFile) -> None:
        """In the transaction by which something comes to refer to the file."""
        if not await self._strays.claim(transaction, file.name):
            raise MatrixError("This took too long: try again", status=503)

    async def unclaim(self, transaction: Transaction, file: StoredFile) -> None:
        """In the same transaction: nothing refers to it after all."""
        await self._strays.give_up(transaction, [file.name])

    async def delete_given_up(self) -> None:
        """Delete the files that nothing refers to."""
        while names := await self._strays.load_given_up():
            for name in names:
                await self._files.delete(name)
            await self._forget(names)

    async def _drop(self, name: str) -> None:
        """Something went wrong. What was committed all the same, though nobody heard of it, stays."""
        if await self._database.write(lambda transaction: self._strays.give_up_unclaimed(transaction, name)):
            # Where it cannot be deleted now, it is later.
            with contextlib.suppress(OSError):
                await self._files.delete(name)
                await self._forget([name])

    async def _forget(self, names: Collection[str]) -> None:
        await self._database.write(lambda transaction: self._strays.delete(transaction, names))


class _Measured:
    """Parts that are counted and hashed as they pass."""

    def __init__(
        self, parts: AsyncIterator[bytes], max_bytes: int, too_large: Callable[[], MatrixError]
    ) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._parts = parts
        self._max_bytes = max_bytes
        self._too_large = too_large

    async def parts(self) -> AsyncIterator[bytes]:
        async for part in self._parts:
            self.size += len(part)
            if self.size > self._max_bytes:
                raise self._too_large()
            self.sha256.update(part)
            yield part
