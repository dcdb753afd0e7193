"""What goes: files that nothing refers to, and other servers' media that nobody wants any more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.config import RemoteMediaSettings
    from homeserver.services.media.image_workers import ImageWorkers
    from homeserver.services.media.new_files import NewFiles
    from homeserver.services.media.remote import RemoteContents
    from homeserver.storage.database import Database
    from homeserver.storage.media import MediaStore
    from homeserver.storage.media_strays import StrayFiles

_DAY_MS = 24 * 3_600 * 1000
_AT_ONCE = 500
_SIZE_EVERY = 30


class MediaHousekeeping:
    """Done every now and then."""

    def __init__(
        self,
        settings: RemoteMediaSettings,
        database: Database,
        clock: Clock,
        store: MediaStore,
        strays: StrayFiles,
        new_files: NewFiles,
        remote: RemoteContents,
        workers: ImageWorkers,
    ) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._store = store
        self._strays = strays
        self._new_files = new_files
        self._remote = remote
        self._workers = workers
        self._looks = 0

    async def start(self) -> None:
        """What the end of the program broke off is given up; where other processes write, only what is old."""
        if not self._database.is_shared:
            await self._give_up_begun_before(self._clock.now_ms() + 1)

    async def look_after(self) -> None:
        """Do once what is done every now and then."""
        await self._workers.look_after()
        await self._remote.write_accesses()
        await self._give_up_begun_before(self._clock.now_ms() - _DAY_MS)
        await self._purge_unwanted()
        if self._looks % _SIZE_EVERY == 0:
            await self._purge_beyond()
        self._looks += 1
        await self._new_files.delete_given_up()

    async def _give_up_begun_before(self, ts: int) -> None:
        await self._database.write(partial(self._strays.give_up_begun_before, ts=ts))

    async def _purge_unwanted(self) -> None:
        """What nobody has wanted for so long."""
        before = self._clock.now_ms() - self._settings.days * _DAY_MS
        while await self._purge(before) is not None:
            pass

    async def _purge_beyond(self) -> None:
        """What takes too much room: those first that nobody wanted for longest."""
        too_much = await self._store.size_of_others() - self._settings.max_bytes
        while too_much > 0 and (freed := await self._purge(self._clock.now_ms() + 1, too_much)) is not None:
            too_much -= freed

    async def _purge(self, before: int, enough: int | None = None) -> int | None:
        """How many bytes some had that went; None where there is nothing left to go."""
        return await self._database.write(
            partial(self._store.delete_of_others, accessed_before=before, at_most=_AT_ONCE, enough=enough)
        )
