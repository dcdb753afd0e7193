"""Which media there are, which files they share, and which files nothing refers to any more."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from homeserver.ids import ServerName, UserId
from homeserver.storage.media import Content, Media, MediaStore, StoredFile
from homeserver.storage.media_strays import StrayFiles
from homeserver.storage.media_thumbnails import Shape, ThumbnailStore

if TYPE_CHECKING:
    from homeserver.storage.database import Database

HERE, FAR = ServerName("example.org"), ServerName("far.example")
ALICE = UserId("@alice:example.org")
SHAPE = Shape(32, 32, "crop", is_animated=False)


class Shelf:
    """The stores over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.strays = StrayFiles(database)
        self.media = MediaStore(database, self.strays)
        self.thumbnails = ThumbnailStore(database)

    async def put(self, media_id: str, content: str, ts: int, server_name: ServerName = FAR) -> str:
        """A media whose file has its own name; the answer is the name of the file that it got."""
        user_id = ALICE if server_name == HERE else None
        file = StoredFile(f"file of {media_id}", len(content), content.encode())
        media = Media(server_name, media_id, user_id, ts, None, Content(file, "text/plain", None))
        assert await self.database.write(partial(self.media.insert, media=media, now_ms=ts))
        stored = await self.media.get(server_name, media_id)
        assert stored is not None
        assert stored.content is not None
        return stored.content.file.name

    async def thumbnail(self, file_name: str, name: str) -> bool:
        thumbnail = Content(StoredFile(name, 5, b"hash"), "image/png", None)
        return await self.database.write(
            partial(self.thumbnails.insert, file_name=file_name, shape=SHAPE, thumbnail=thumbnail)
        )

    async def purge(self, before: int, enough: int | None = None) -> int | None:
        return await self.database.write(
            partial(self.media.delete_of_others, accessed_before=before, at_most=100, enough=enough)
        )


@pytest.fixture
def shelf(database: Database) -> Shelf:
    return Shelf(database)


async def test_a_file_goes_with_the_last_media_that_refers_to_it(shelf: Shelf) -> None:
    assert await shelf.put("a", "same", 1) == "file of a"
    assert await shelf.put("b", "same", 5) == "file of a"
    assert await shelf.put("c", "other", 5) == "file of c"
    assert await shelf.put("own", "other", 5, HERE) == "file of c"
    assert await shelf.strays.load_given_up() == ["file of b", "file of own"]
    assert await shelf.thumbnail("file of a", "thumbnail of a")
    assert await shelf.thumbnail("file of c", "file of c")
    assert not await shelf.thumbnail("file of a", "another")
    assert not await shelf.thumbnail("file of b", "another")
    # The first goes, and what refers to the same file is not touched.
    assert await shelf.purge(2) == 4
    assert await shelf.purge(2) is None
    assert len(await shelf.strays.load_given_up()) == 2
    found = await shelf.thumbnails.get("file of a", SHAPE)
    assert found is not None
    assert found.file == StoredFile("thumbnail of a", 5, b"hash")
    # All of other servers go; what is our own stays.
    assert await shelf.purge(6) == 9
    assert sorted(await shelf.strays.load_given_up()) == [
        "file of a",
        "file of b",
        "file of own",
        "thumbnail of a",
    ]
    assert await shelf.thumbnails.get("file of a", SHAPE) is None
    assert await shelf.thumbnails.get("file of c", SHAPE) is not None
    own = await shelf.media.get(HERE, "own")
    assert own is not None
    assert own.content is not None
    usage = await shelf.media.usage_of(ALICE)
    assert (usage.count, usage.size) == (1, 5)


async def test_no_more_goes_than_is_needed(shelf: Shelf) -> None:
    for number in range(5):
        await shelf.put(f"m{number}", f"{number}" * 10, number)
    await shelf.database.write(partial(shelf.media.set_accessed, accessed=[(FAR, "m0")], now_ms=10))
    assert await shelf.media.size_of_others() == 50
    assert await shelf.purge(100, enough=11) == 20
    assert await shelf.media.size_of_others() == 30
    assert await shelf.media.get(FAR, "m0") is not None
    assert await shelf.media.get(FAR, "m1") is None
    assert await shelf.media.get(FAR, "m2") is None


async def test_a_file_is_referred_to_or_given_up_and_never_both(shelf: Shelf) -> None:
    write, strays = shelf.database.write, shelf.strays
    for name in ("a", "b"):
        await write(partial(strays.begin, name=name, now_ms=5))
    assert await write(partial(strays.claim, name="a"))
    assert not await write(partial(strays.give_up_unclaimed, name="a"))
    await write(partial(strays.give_up_begun_before, ts=5))
    assert await strays.load_given_up() == []
    await write(partial(strays.give_up_begun_before, ts=6))
    assert await strays.load_given_up() == ["b"]
    assert not await write(partial(strays.claim, name="b"))
    await write(partial(strays.delete, names=["a", "b"]))
    assert await strays.load_given_up() == []
