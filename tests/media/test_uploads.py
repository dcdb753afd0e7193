"""What users upload: at once, or to an id that was made before; what does not come whole leaves nothing."""

from __future__ import annotations

import asyncio
import errno
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from homeserver.config import ListenerSettings
from homeserver.http.server import HttpServer, listen
from homeserver.ids import UserId
from homeserver.services.media.uploads import LIFETIME_MS, MAX_TO_COME
from tests.client import error_of, refused
from tests.http.site import answer, until
from tests.media.conftest import UPLOAD, Desk, files_of, picture
from tests.server import RESOURCES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client import Client
    from tests.conftest import StartServer
    from tests.http.site import Streams
    from tests.server import Server

CREATE = "/_matrix/media/v1/create"
MOST = 100_000
on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


@pytest.fixture
async def server(start_server: StartServer) -> Server:
    return await start_server(media={"max_upload_bytes": MOST})


async def rows(server: Server, table: str = "media") -> int:
    return await server.application.database.fetch_value(f"SELECT count(*) FROM {table}") or 0


async def created(desk: Desk) -> str:
    """An id for content that is to come, as it follows `mxc://`."""
    return str((await desk.client.post(CREATE, {}))["content_uri"]).removeprefix("mxc://")


async def upload_to(desk: Desk, media: str, content: bytes, **query: Any) -> Any:
    return await desk.client.call(
        "PUT", f"{UPLOAD}/{media}", content=content, headers={"Content-Type": "text/plain"}, **query
    )


# -- at once ---------------------------------------------------------------------------------------------


async def test_a_file_may_be_as_large_as_is_told_and_no_larger(desk: Desk, server: Server) -> None:
    media = await desk.upload(b"x" * MOST)
    assert len((await desk.download(media)).content) == MOST
    with refused(413, "M_TOO_LARGE"):
        await desk.upload(b"x" * (MOST + 1))
    with refused(413, "M_TOO_LARGE"):
        await upload_to(desk, await created(desk), b"x" * (MOST + 1))
    assert len(files_of(server)) == 1
    assert await rows(server, "media_strays") == 0


@on_sqlite
async def test_a_name_has_an_end(desk: Desk) -> None:
    await desk.upload(b"x", filename="n" * 255)
    with refused(400, "M_INVALID_PARAM"):
        await desk.upload(b"x", filename="n" * 256)


@on_sqlite
async def test_a_file_does_not_come_compressed(desk: Desk, server: Server) -> None:
    error = await error_of(
        desk.client.call("POST", UPLOAD, content=b"x", headers={"Content-Encoding": "gzip"})
    )
    assert error.status == 415
    assert files_of(server) == []


async def test_each_user_has_so_much_room(start_server: StartServer) -> None:
    server = await start_server(media={"max_bytes_per_user": 100})
    alice, bob = Desk(await server.register("alice")), Desk(await server.register("bob"))
    await alice.upload(b"a" * 60)
    to_come = await created(alice)
    with refused(403, "M_FORBIDDEN"):
        await alice.upload(b"b" * 41)
    with refused(403, "M_FORBIDDEN"):
        await upload_to(alice, to_come, b"b" * 41)
    await upload_to(alice, to_come, b"b" * 40)
    with refused(403, "M_FORBIDDEN"):
        await alice.upload(b"c")
    await bob.upload(b"c" * 100)
    usage = await server.application.stores.media.usage_of(UserId("@alice:example.org"))
    assert (usage.count, usage.size) == (2, 100)
    assert len(files_of(server)) == 3


@on_sqlite
async def test_who_uploads_too_much_is_told_to_wait(start_server: StartServer) -> None:
    server = await start_server(rate_limits={"enabled": True}, media={"max_upload_bytes": 3 << 30})
    desk = Desk(await server.register("alice"))
    claiming = {"Content-Length": str(1_500 << 20)}
    await desk.client.call("POST", UPLOAD, content=b"x", headers=claiming)
    error = await error_of(desk.client.call("POST", UPLOAD, content=b"x", headers=claiming))
    assert (error.status, error.errcode) == (429, "M_LIMIT_EXCEEDED")
    await desk.upload(b"x")


# -- over a socket ---------------------------------------------------------------------------------------


@asynccontextmanager
async def connected(server: Server, head: bytes) -> AsyncIterator[Streams]:
    """A connection on which an upload has begun."""
    bound = listen(0, ListenerSettings(port=0))
    running = HttpServer(server.application.http(RESOURCES), bound, None)
    serving = asyncio.create_task(running.run_until_stopped())
    await until(lambda: running.started)
    reader, writer = await asyncio.open_connection("127.0.0.1", bound.getsockname()[1])
    writer.write(b"POST /_matrix/media/v3/upload HTTP/1.1\r\n" + head + b"\r\n")
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        running.stop()
        await serving


def token_of(client: Client) -> bytes:
    return f"Authorization: Bearer {client.access_token}\r\n".encode()


@on_sqlite
async def test_a_file_that_has_no_end_is_refused_while_it_comes(server: Server, alice: Client) -> None:
    async with connected(server, token_of(alice) + b"Transfer-Encoding: chunked\r\n") as (reader, writer):
        for _ in range(MOST // 1000 + 1):
            writer.write(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        status, _, body = await answer(reader)
        assert (status, b"M_TOO_LARGE" in body) == (413, True)
        await until(lambda: not files_of(server))


@on_sqlite
async def test_a_file_that_is_said_to_be_too_large_is_refused_before_it_comes(
    server: Server, alice: Client
) -> None:
    async with connected(server, token_of(alice) + b"Content-Length: 100001\r\n") as (reader, _):
        assert (await answer(reader))[0] == 413
    assert files_of(server) == []


@on_sqlite
async def test_a_file_that_breaks_off_leaves_nothing(server: Server, alice: Client) -> None:
    async with connected(server, token_of(alice) + b"Content-Length: 90000\r\n") as (_, writer):
        writer.write(b"x" * 50_000)
        await until(lambda: files_of(server))
        assert await rows(server, "media_strays") == 1
        writer.transport.abort()
        await until(lambda: not files_of(server))
        while await rows(server, "media_strays"):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
    assert await rows(server) == 0


# -- what a server has to bear ---------------------------------------------------------------------------


async def test_a_full_disk_is_said_and_leaves_nothing(
    desk: Desk, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("homeserver.storage.media_files._finish", full)
    with refused(503, "M_UNKNOWN"):
        await desk.upload(b"abc")
    monkeypatch.undo()
    assert files_of(server) == []
    assert await rows(server) == await rows(server, "media_strays") == 0
    await desk.upload(b"abc")


async def test_what_the_end_of_the_program_broke_off_goes_at_the_next_start(
    desk: Desk, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = await desk.upload(b"abc")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def nothing(*_: object) -> None:
        """What a program does that has ended."""

    monkeypatch.setattr("homeserver.storage.media_files._finish", full)
    monkeypatch.setattr("homeserver.services.media.new_files.NewFiles._drop", nothing)
    with refused(503, "M_UNKNOWN"):
        await desk.upload(b"lost")
    monkeypatch.undo()
    assert len(files_of(server)) == 2
    await server.restart()
    if server.application.database.is_shared:
        # It may be another process that writes it.
        await server.application.upkeep.look_after()
        assert len(files_of(server)) == 2
        server.clock.offset_ms += 25 * 3_600_000
    await server.application.upkeep.look_after()
    assert len(files_of(server)) == 1
    assert await rows(server, "media_strays") == 0
    assert (await Desk(server.reconnect(desk.client)).download(media)).content == b"abc"


async def test_a_file_that_was_given_up_is_not_referred_to(desk: Desk, server: Server) -> None:
    new_files, strays = server.application.media.uploads._new_files, server.application.stores.media_strays

    async def content() -> AsyncIterator[bytes]:
        yield b"abc"
        await server.application.database.write(
            lambda transaction: strays.give_up_begun_before(transaction, server.clock.now_ms() + 1)
        )
        await new_files.delete_given_up()

    with refused(503, "M_UNKNOWN"):
        await desk.client.call("POST", UPLOAD, content=content())  # type: ignore[arg-type]
    assert files_of(server) == []
    assert await rows(server) == 0


# -- later -----------------------------------------------------------------------------------------------


async def test_content_comes_to_an_id_that_was_made_before(desk: Desk, server: Server) -> None:
    now = server.clock.now_ms()
    answer = await desk.client.post(CREATE, {})
    assert now + LIFETIME_MS <= answer["unused_expires_at"] <= server.clock.now_ms() + LIFETIME_MS
    media = answer["content_uri"].removeprefix("mxc://")
    with refused(504, "M_NOT_YET_UPLOADED"):
        await desk.download(media, timeout_ms=0)
    with refused(504, "M_NOT_YET_UPLOADED"):
        await desk.thumbnail(media, 32, 32, timeout_ms=1)
    assert await upload_to(desk, media, b"abc", filename="a.txt") == {}
    answer = await desk.download(media, timeout_ms=0)
    assert (answer.content, answer.headers["content-type"]) == (b"abc", "text/plain")
    assert answer.headers["content-disposition"] == 'inline; filename="a.txt"'


async def test_who_waits_gets_it_as_soon_as_it_is_there(desk: Desk, bob: Client, server: Server) -> None:
    media = await created(desk)
    waiting = [asyncio.create_task(Desk(bob).download(media)) for _ in range(3)]
    arrivals = server.application.media.arrivals
    await until(lambda: arrivals._count == 3)
    await upload_to(desk, media, picture())
    for received in await asyncio.gather(*waiting):
        assert received.content == picture()
    assert arrivals._waiting == {}


async def test_who_waits_at_another_process_gets_it_too(servers: tuple[Server, Server]) -> None:
    one, other = servers
    alice = await one.register("alice")
    here, there = Desk(alice), Desk(alice)
    there.http = other.http
    media = await created(here)
    waiting = asyncio.create_task(there.download(media))
    await until(lambda: other.application.media.arrivals._count)
    await upload_to(here, media, b"abc")
    assert (await waiting).content == b"abc"


@on_sqlite
async def test_a_client_that_leaves_waits_no_longer(desk: Desk, server: Server) -> None:
    media = await created(desk)
    waiting = asyncio.create_task(desk.download(media))
    await until(lambda: server.application.media.arrivals._count)
    waiting.cancel()
    await until(lambda: not server.application.media.arrivals._count)


@on_sqlite
async def test_where_very_many_wait_nobody_else_does(
    desk: Desk, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeserver.services.media.arrivals.MAX_WAITING", 1)
    media = await created(desk)
    waiting = asyncio.create_task(desk.download(media))
    await until(lambda: server.application.media.arrivals._count)
    with refused(504, "M_NOT_YET_UPLOADED"):
        await desk.download(media)
    await upload_to(desk, media, b"abc")
    await waiting


async def test_content_comes_once_and_from_the_one_who_made_the_id(
    desk: Desk, bob: Client, server: Server
) -> None:
    media = await created(desk)
    with refused(403, "M_FORBIDDEN"):
        await upload_to(Desk(bob), media, b"bob's")
    results = await asyncio.gather(
        *(upload_to(desk, media, b"abc%d" % number) for number in range(4)), return_exceptions=True
    )
    assert [result for result in results if isinstance(result, dict)] == [{}]
    assert {error.errcode for error in results if not isinstance(error, dict)} == {"M_CANNOT_OVERWRITE_MEDIA"}
    with refused(409, "M_CANNOT_OVERWRITE_MEDIA"):
        await upload_to(desk, media, b"abc")
    with refused(409, "M_CANNOT_OVERWRITE_MEDIA"):
        await upload_to(desk, await desk.upload(b"x"), b"y")
    assert (await desk.download(media)).content == b"abc%d" % results.index({})
    await server.application.upkeep.look_after()
    assert len(files_of(server)) == 2


@on_sqlite
async def test_an_id_that_was_not_made_here_takes_no_content(desk: Desk) -> None:
    for media in ("example.org/unknown", "other.example/abc", "example.org/..%2Fx", "other.example/..%2Fx"):
        with refused(404, "M_NOT_FOUND"):
            await upload_to(desk, media, b"abc")


async def test_an_id_runs_out(desk: Desk, server: Server) -> None:
    media, late = await created(desk), await created(desk)

    async def content() -> AsyncIterator[bytes]:
        yield b"abc"
        server.clock.offset_ms += LIFETIME_MS

    with refused(404, "M_NOT_FOUND"):
        await upload_to(desk, late, content())  # type: ignore[arg-type]
    with refused(404, "M_NOT_FOUND"):
        await upload_to(desk, media, b"abc")
    with refused(404, "M_NOT_FOUND"):
        await desk.download(media, timeout_ms=0)
    await server.application.upkeep.look_after()
    assert await rows(server) == 0
    assert files_of(server) == []


async def test_only_so_many_ids_wait_for_their_content(desk: Desk, bob: Client, server: Server) -> None:
    media = [await created(desk) for _ in range(MAX_TO_COME)]
    error = await error_of(created(desk))
    assert (error.status, error.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert LIFETIME_MS - 60_000 < error.body["retry_after_ms"] <= LIFETIME_MS
    await created(Desk(bob))
    await upload_to(desk, media[0], b"abc")
    await created(desk)
    with refused(429, "M_LIMIT_EXCEEDED"):
        await created(desk)
    server.clock.offset_ms += LIFETIME_MS + 1
    await created(desk)


async def test_the_ids_of_a_closed_account_are_gone(desk: Desk, bob: Client, server: Server) -> None:
    media = await created(desk)
    password = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "secret",
    }
    await desk.client.post("/account/deactivate", {"auth": password})
    with refused(404, "M_NOT_FOUND"):
        await Desk(bob).download(media)
    assert await rows(server) == 0
