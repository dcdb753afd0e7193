"""Thumbnails (CS "Thumbnails"): made when somebody wants them first, and kept with the file."""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Literal

from homeserver.errors import MatrixError
from homeserver.services.media.image_workers import MAX_BYTES
from homeserver.storage.media import Content, StoredFile
from homeserver.storage.media_thumbnails import Shape

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homeserver.services.media.contents import Contents
    from homeserver.services.media.image_workers import ImageWorkers
    from homeserver.services.media.new_files import NewFiles
    from homeserver.storage.database import Database, Transaction
    from homeserver.storage.media_thumbnails import ThumbnailStore

Method = Literal["crop", "scale"]

_WHOLE = 65_500
_BOXES = ((320, 240), (640, 480), (800, 600), (1600, 1200), (_WHOLE, _WHOLE))
_SIDES = (32, 96, 320, 640, 960, 1600)
_ASPECTS = 16
_MAX_REMEMBERED = 10_000
_BEGINNING_BYTES = 16


def shape_for(width: int, height: int, method: Method, *, is_animated: bool) -> Shape:
    """The shape of the thumbnail for a wanted size: at least as large, of few, so that not everybody's own is made.

    They are those of the specification and some larger ones. Where the aspect matters (`crop`), it is kept to a
    sixteenth. What is larger than all of them is the image itself.
    """
    longer = max(width, height)
    if method == "crop" and longer <= _SIDES[-1]:
        side = next(side for side in _SIDES if side >= longer)
        shorter = math.ceil(min(width, height) / longer * _ASPECTS) * side // _ASPECTS
        width, height = (side, shorter) if width >= height else (shorter, side)
        return Shape(width, height, "crop", is_animated)
    box = next((box for box in _BOXES if box[0] >= width and box[1] >= height), _BOXES[-1])
    return Shape(*box, "scale", is_animated)


class Thumbnails:
    """Makes each once, however many want it at the same time."""

    def __init__(
        self,
        database: Database,
        store: ThumbnailStore,
        contents: Contents,
        new_files: NewFiles,
        workers: ImageWorkers,
    ) -> None:
        self._database = database
        self._store = store
        self._contents = contents
        self._new_files = new_files
        self._workers = workers
        self._under_way: dict[tuple[str, Shape], asyncio.Task[Content]] = {}
        self._impossible: OrderedDict[tuple[str, Shape], str] = OrderedDict()
        """What there cannot be, and why."""

    async def find(self, content: Content, shape: Shape, *, is_ours: bool) -> Content:
        """The thumbnail of a file.

        Raises 400 `M_UNKNOWN` where there can be none, `M_TOO_LARGE` (413, or 502 for files of other servers) where
        the image is too large, and `LimitExceeded` where too many are being made.
        """
        name = content.file.name
        key = (name, shape)
        if key in self._impossible:
            raise _impossible(self._impossible[key], is_ours=is_ours)
        found = await self._store.get(name, shape)
        if found is not None:
            return found
        task = self._under_way.get(key)
        if task is None:
            self._under_way[key] = task = asyncio.create_task(self._make(content.file, shape))
            task.add_done_callback(lambda done: self._ended(key, done))
        try:
            return await asyncio.shield(task)
        except Impossible as error:
            raise _impossible(error.why, is_ours=is_ours) from error

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._workers.close()

    async def _make(self, file: StoredFile, shape: Shape) -> Content:
        beginning = await self._contents.read(file, 0, min(file.size, _BEGINNING_BYTES))
        if not _may_be_image(beginning):
            # What is encrypted, mostly.
            raise Impossible("no_image")
        outcome = await self._workers.make(self._contents.parts(file), file.size, shape)
        if outcome.outcome == "as_it_is":
            thumbnail = Content(file, outcome.content_type, None)
            await self._database.write(lambda t: self._store.insert(t, file.name, shape, thumbnail))
            return thumbnail
        if outcome.outcome != "made":
            raise Impossible(outcome.outcome)
        async with self._new_files.written(_once(outcome.content), MAX_BYTES, _too_large) as made:
            thumbnail = Content(made, outcome.content_type, None)

            async def work(transaction: Transaction) -> bool:
                await self._new_files.claim(transaction, made)
                is_first = await self._store.insert(transaction, file.name, shape, thumbnail)
                if not is_first:
                    await self._new_files.unclaim(transaction, made)
                return is_first

            if await self._database.write(work):
                return thumbnail
        # Another process was faster.
        found = await self._store.get(file.name, shape)
        if found is None:
            raise MatrixError("The file has gone meanwhile: try again", status=503)
        return found

    def _ended(self, key: tuple[str, Shape], task: asyncio.Task[Content]) -> None:
        self._under_way.pop(key, None)
        if not task.cancelled() and isinstance(error := task.exception(), Impossible):
            self._impossible[key] = error.why
            while len(self._impossible) > _MAX_REMEMBERED:
                self._impossible.popitem(last=False)


class Impossible(Exception):
    """There can be no thumbnail; `why` is as in `image_workers.Outcome`."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _impossible(why: str, *, is_ours: bool) -> MatrixError:
    if why == "too_large":
        return MatrixError(
            "The image is too large to make a thumbnail of",
            errcode="M_TOO_LARGE",
            status=413 if is_ours else 502,
        )
    return MatrixError("No thumbnail can be made of this")


def _too_large() -> MatrixError:
    return _impossible("too_large", is_ours=True)


def _may_be_image(beginning: bytes) -> bool:
    return (
        beginning.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a"))
        or (beginning[:4] == b"RIFF" and beginning[8:12] == b"WEBP")
        or beginning[4:12] in (b"ftypavif", b"ftypavis", b"ftypmif1")
    )


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content
