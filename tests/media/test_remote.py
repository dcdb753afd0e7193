"""Media of other servers, also of hostile ones: real servers on an internet inside of the test."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from homeserver.ids import ServerName
from homeserver.services.media.headers import OCTET_STREAM
from homeserver.services.media.remote import AT_ONCE_OF_SERVER
from tests.client import error_of, refused
from tests.federation.internet import FEDERATION, HTTPS, Internet
from tests.http.site import until
from tests.media.conftest import Desk, files_of, image_in, picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.conftest import StartServer
    from tests.server import Server

pytestmark = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

FAR, CDN = "far.example", "cdn.example"
MOST = 500_000
DAY_MS = 24 * 3_600 * 1000


class FarServer:
    """Another server: it has one answer for everything, and writes down what it is asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] = self.no_media
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        if "/media/" not in request.path:
            return web.json_response({}, status=404)
        self.asked.append(request.raw_path)
        await self.may_answer.wait()
        return await self.answer(request)

    def has(self, content: bytes, headers: str = "Content-Type: text/plain\r\n") -> None:
        """Have this file."""
        body = b"--b\r\nContent-Type: application/json\r\n\r\n{}\r\n--b\r\n"
        self.sends(body + headers.encode("utf-8") + b"\r\n" + content + b"\r\n--b--\r\n")

    def sends(
        self, body: bytes, content_type: str = "multipart/mixed; boundary=b", status: int = 200
    ) -> None:
        """Answer with this."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers={"Content-Type": content_type})

        self.answer = answer

    def refuses(self, status: int, errcode: str) -> None:
        """Answer with an error."""

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.json_response({"errcode": errcode, "error": "no"}, status=status)

        self.answer = answer

    async def no_media(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"errcode": "M_NOT_FOUND", "error": "no"}, status=404)


@pytest.fixture
async def internet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Internet]:
    made = Internet(monkeypatch)
    yield made
    await made.close()


@pytest.fixture
async def far(internet: Internet) -> FarServer:
    server = FarServer()
    internet.dns.names[FAR] = ["1.2.3.4"]
    await internet.site("1.2.3.4", FEDERATION, server, FAR)
    return server


@pytest.fixture
async def server(start_server: StartServer, internet: Internet, far: FarServer, tmp_path: Path) -> Server:
    internet.authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = await start_server(
        federation={"trusted_ca": [tmp_path / "ca.pem"]},
        http_client={"verify_tls": False},
        media={"max_upload_bytes": MOST, "remote": {"days": 30, "max_bytes": 2_000}},
    )
    server.dns.names.update(internet.dns.names)
    return server


# -- what goes well --------------------------------------------------------------------------------------


async def test_a_file_is_fetched_once_and_kept(desk: Desk, far: FarServer, server: Server) -> None:
    far.has(
        b"x" * 400_000, 'Content-Type: text/csv\r\nContent-Disposition: attachment; filename="a b.csv"\r\n'
    )
    for _ in range(3):
        answer = await desk.download(f"{FAR}/abc")
        assert answer.content == b"x" * 400_000
        assert answer.headers["content-type"] == "text/csv"
        assert answer.headers["content-disposition"] == 'inline; filename="a b.csv"'
    assert far.asked == ["/_matrix/federation/v1/media/download/abc?timeout_ms=20000"]
    assert len(files_of(server)) == 1


async def test_a_thumbnail_of_another_servers_image(desk: Desk, far: FarServer) -> None:
    far.has(picture(), "Content-Type: image/png\r\n")
    assert image_in(await desk.thumbnail(f"{FAR}/abc", 320, 240)).size == (320, 160)
    assert image_in(await desk.thumbnail(f"{FAR}/abc", 640, 480)).size == (640, 320)
    assert len(far.asked) == 1


async def test_all_who_want_a_file_at_the_same_time_share_one_request(
    desk: Desk, far: FarServer, server: Server
) -> None:
    far.has(b"abc")
    far.may_answer.clear()
    waiting = [asyncio.create_task(desk.download(f"{FAR}/abc")) for _ in range(5)]
    await until(lambda: far.asked)
    # Who leaves takes it from nobody.
    waiting.pop().cancel()
    far.may_answer.set()
    assert {answer.content for answer in await asyncio.gather(*waiting)} == {b"abc"}
    assert len(far.asked) == 1
    assert server.application.media.remote._under_way == {}


async def test_the_time_that_a_client_has_is_told_to_the_other_server(desk: Desk, far: FarServer) -> None:
    far.refuses(504, "M_NOT_YET_UPLOADED")
    for given, told in ((5, 5), (10**9, 60_000)):
        with refused(504, "M_NOT_YET_UPLOADED"):
            await desk.download(f"{FAR}/abc", timeout_ms=given)
        assert far.asked.pop().endswith(f"?timeout_ms={told}")
    # It may come any moment, and the server is as good as any.
    far.has(b"abc")
    assert (await desk.download(f"{FAR}/abc")).content == b"abc"


async def test_an_older_server_is_asked_as_was_usual(desk: Desk, far: FarServer) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if "federation" in request.path:
            return web.json_response({"errcode": "M_UNRECOGNIZED", "error": "what?"}, status=404)
        assert "Authorization" not in request.headers
        headers = {"Content-Type": "text/plain", "Content-Disposition": "inline; filename*=utf-8''%C3%BC.txt"}
        return web.Response(body=b"old", headers=headers)

    far.answer = answer
    response = await desk.download(f"{FAR}/abc")
    assert response.content == b"old"
    assert response.headers["content-disposition"] == "inline; filename*=utf-8''%C3%BC.txt"
    assert far.asked[1] == f"/_matrix/media/v3/download/{FAR}/abc?allow_remote=false&timeout_ms=20000"


# -- files that are elsewhere ----------------------------------------------------------------------------


def away(location: str) -> str:
    return f"Location: {location}\r\n"


async def cdn(internet: Internet, server: Server, handler: Any) -> None:
    server.dns.names[CDN] = ["5.6.7.8"]
    await internet.site("5.6.7.8", HTTPS, handler, CDN)


async def test_a_file_that_is_elsewhere_is_fetched_from_there(
    desk: Desk, far: FarServer, server: Server, internet: Internet
) -> None:
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        asked.append((request.raw_path, "Authorization" in request.headers))
        if request.path == "/a":
            return web.Response(status=302, headers={"Location": "/b?signed=1"})
        return web.Response(body=b"abc", headers={"Content-Type": "text/csv"})

    await cdn(internet, server, answer)
    far.has(b"", away(f"https://{CDN}/a"))
    response = await desk.download(f"{FAR}/abc")
    assert (response.content, response.headers["content-type"]) == (b"abc", "text/csv")
    assert asked == [("/a", False), ("/b?signed=1", False)]


LOCATIONS = (
    "http://cdn.example/a",
    "https://127.0.0.1/a",
    "https://[::1]/a",
    "https://169.254.169.254/latest",
    "https://inside.example/a",
    "https://user:secret@cdn.example/a",
    "file:///etc/passwd",
    "//cdn.example/a",
    "/a",
    "",
    "https://",
    "https://[/",
    "https://cdn.example:99999/a",
    "https://xn--a/\u00fc",
    "https://cdn.example/round",
    "https://cdn.example/inside",
    "https://cdn.example/missing",
    "https://cdn.example/nowhere",
)


async def test_no_file_is_fetched_from_where_this_server_must_not_go(
    desk: Desk, far: FarServer, server: Server, internet: Internet
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        targets = {"/round": "/round", "/inside": "https://10.0.0.1/", "/nowhere": "file:///etc/passwd"}
        if request.path in targets:
            return web.Response(status=302, headers={"Location": targets[request.path]})
        return web.Response(status=404)

    await cdn(internet, server, answer)
    server.dns.names["inside.example"] = ["10.0.0.1"]
    for number, location in enumerate(LOCATIONS):
        far.has(b"", away(location))
        error = await error_of(desk.download(f"{FAR}/f{number}"))
        assert (error.status, error.errcode) == (502, "M_UNKNOWN"), location
        server.application.heard_from(ServerName(FAR))
    assert len(far.asked) == len(LOCATIONS)
    assert {address for address, _ in internet.tried} <= {"1.2.3.4", "5.6.7.8"}
    assert files_of(server) == []


async def test_a_file_elsewhere_has_no_more_bytes_than_any_other(
    desk: Desk, far: FarServer, server: Server, internet: Internet
) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(MOST // 1000 + 100):
            await response.write(b"x" * 1000)
        return response

    await cdn(internet, server, answer)
    far.has(b"", away(f"https://{CDN}/a"))
    with refused(502, "M_TOO_LARGE"):
        await desk.download(f"{FAR}/abc")
    assert files_of(server) == []


# -- what goes wrong -------------------------------------------------------------------------------------


async def test_a_file_that_is_too_large_is_not_kept(desk: Desk, far: FarServer, server: Server) -> None:
    far.has(b"x" * (MOST + 1))
    for _ in range(2):
        with refused(502, "M_TOO_LARGE"):
            await desk.download(f"{FAR}/abc")
    assert len(far.asked) == 1
    far.refuses(502, "M_TOO_LARGE")
    with refused(502, "M_TOO_LARGE"):
        await desk.download(f"{FAR}/other")
    # Nothing of this speaks against the server.
    far.has(b"x")
    assert (await desk.download(f"{FAR}/small")).content == b"x"
    assert len(files_of(server)) == 1


async def test_what_the_other_server_has_not_is_not_found_and_not_asked_for_again_at_once(
    desk: Desk, far: FarServer, server: Server
) -> None:
    for _ in range(3):
        with refused(404, "M_NOT_FOUND"):
            await desk.download(f"{FAR}/abc")
    assert len(far.asked) == 1
    far.has(b"abc")
    with refused(404, "M_NOT_FOUND"):
        await desk.download(f"{FAR}/abc")
    server.clock.offset_ms += 61_000
    assert (await desk.download(f"{FAR}/abc")).content == b"abc"


async def test_a_server_that_does_not_give_it_is_a_bad_gateway(
    desk: Desk, far: FarServer, server: Server
) -> None:
    for status in (400, 401, 403, 429, 500, 307):
        far.refuses(status, "M_UNKNOWN")
        error = await error_of(desk.download(f"{FAR}/f{status}"))
        assert (error.status, error.errcode) == (502, "M_UNKNOWN")
        server.application.heard_from(ServerName(FAR))
    assert len(far.asked) == 6


async def test_a_server_that_is_not_there_is_left_alone_until_it_calls(
    desk: Desk, far: FarServer, server: Server, internet: Internet
) -> None:
    server.dns.names["gone.example"] = ["9.9.9.9"]
    for _ in range(2):
        error = await error_of(desk.download("gone.example/abc"))
        assert (error.status, error.errcode) == (502, "M_UNKNOWN")
    tried = internet.tried.count(("9.9.9.9", FEDERATION))
    assert tried == 1
    server.application.heard_from(ServerName("gone.example"))
    await error_of(desk.download("gone.example/abc"))
    assert internet.tried.count(("9.9.9.9", FEDERATION)) == 2


async def test_what_is_not_in_two_parts_is_a_bad_gateway_and_leaves_nothing(
    desk: Desk, far: FarServer, server: Server
) -> None:
    for number, body in enumerate(
        (
            b"",
            b"garbage",
            b"--b\r\n\r\n{}\r\n--b--\r\n",
            b"--b\r\n\r\n[]\r\n--b\r\n\r\nabc\r\n--b--\r\n",
            b"--b\r\n\r\n{}\r\n--b\r\nContent-Type: text/plain\r\n\r\nhalf of the file",
            b"--b\r\n" + b"x: " + b"y" * 100_000,
        )
    ):
        far.sends(body)
        error = await error_of(desk.download(f"{FAR}/f{number}"))
        assert (error.status, error.errcode) == (502, "M_UNKNOWN")
        server.application.heard_from(ServerName(FAR))
    assert len(far.asked) == 6
    assert files_of(server) == []
    assert await server.application.database.fetch_value("SELECT count(*) FROM media_strays") == 0


async def test_what_another_server_says_of_its_file_does_no_harm(desk: Desk, far: FarServer) -> None:
    for number, (headers, content_type, disposition) in enumerate(
        (
            ("", OCTET_STREAM, "attachment"),
            ("Content-Type: text/html; charset=\u00fc\r\n", OCTET_STREAM, "attachment"),
            ("Content-Type: text/html\r\nContent-Disposition: inline\r\n", "text/html", "attachment"),
            ("Content-Type: text/plain\x00\r\n", OCTET_STREAM, "attachment"),
            ("Content-Type: text/plain\r\nContent-Type: text/html\r\n", "text/plain", "inline"),
            ('Content-Disposition: x; filename="a\\\r\\\n\tb"\r\n', OCTET_STREAM, None),
            (
                f"Content-Disposition: x; filename={'n' * 9000}\r\n",
                OCTET_STREAM,
                f'attachment; filename="{"n" * 255}"',
            ),
            ('Content-Disposition: ;;;="\r\n', OCTET_STREAM, "attachment"),
        )
    ):
        far.has(b"abc", headers)
        answer = await desk.download(f"{FAR}/f{number}")
        assert answer.content == b"abc"
        assert answer.headers["content-type"] == content_type
        if disposition is not None:
            assert answer.headers["content-disposition"] == disposition
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_so_many_files_can_be_fetched_for_one_user(
    start_server: StartServer, far: FarServer, internet: Internet, tmp_path: Path
) -> None:
    internet.authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server = await start_server(
        federation={"trusted_ca": [tmp_path / "ca.pem"]}, rate_limits={"enabled": True}
    )
    server.dns.names.update(internet.dns.names)
    desk = Desk(await server.register("alice"))
    far.has(b"abc")
    # So that nothing is given back however long this takes.
    server.clock.monotonic = lambda: 0.0  # type: ignore[method-assign]
    server.application._rate_limits.check("remote_media", "@alice:example.org", 999)
    assert (await desk.download(f"{FAR}/first")).content == b"abc"
    with refused(429, "M_LIMIT_EXCEEDED"):
        await desk.download(f"{FAR}/second")
    # What is here is here.
    assert (await desk.download(f"{FAR}/first")).content == b"abc"


async def test_without_federation_there_is_nothing_of_others(start_server: StartServer) -> None:
    server = await start_server(federation={"enabled": False})
    with refused(404, "M_NOT_FOUND"):
        await Desk(await server.register("alice")).download(f"{FAR}/abc")


async def test_a_slow_server_keeps_the_files_of_others_waiting_for_nothing(
    desk: Desk, far: FarServer, server: Server, internet: Internet, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = FarServer()
    slow.may_answer.clear()
    server.dns.names["slow.example"] = ["6.6.6.6"]
    await internet.site("6.6.6.6", FEDERATION, slow, "slow.example")
    monkeypatch.setattr("homeserver.services.media.remote.MAX_UNDER_WAY_OF_SERVER", 20)
    wanted = [asyncio.create_task(desk.download(f"slow.example/f{number}")) for number in range(20)]
    queues = server.application.media.remote._queues
    await until(lambda: len(slow.asked) == AT_ONCE_OF_SERVER and queues["slow.example"].length == 20)  # type: ignore[index]
    with refused(503, "M_UNKNOWN"):
        await desk.download("slow.example/another")
    far.has(b"abc")
    assert (await desk.download(f"{FAR}/abc")).content == b"abc"
    assert len(slow.asked) == AT_ONCE_OF_SERVER
    slow.has(b"slow")
    slow.may_answer.set()
    assert {answer.content for answer in await asyncio.gather(*wanted)} == {b"slow"}
    assert queues == {}


# -- what goes -------------------------------------------------------------------------------------------


async def test_what_nobody_wants_for_long_goes_and_is_fetched_again(
    desk: Desk, far: FarServer, server: Server
) -> None:
    own = await desk.upload(b"own")
    far.has(picture(400, 400), "Content-Type: image/png\r\n")
    for media in ("wanted", "unwanted"):
        await desk.download(f"{FAR}/{media}")
    far.has(b"abc")
    await desk.download(f"{FAR}/other")
    await desk.thumbnail(f"{FAR}/wanted", 32, 32, method="crop")
    upkeep = server.application.upkeep
    await upkeep.look_after()
    assert len(files_of(server)) == 4
    for _ in range(2):
        server.clock.offset_ms += 16 * DAY_MS
        await desk.download(f"{FAR}/wanted")
        await upkeep.look_after()
    asked = len(far.asked)
    # One file of `wanted` and `unwanted`, its thumbnail, and our own.
    assert len(files_of(server)) == 3
    await desk.download(f"{FAR}/wanted")
    assert len(far.asked) == asked
    await desk.download(f"{FAR}/unwanted")
    assert len(far.asked) == asked + 1
    server.clock.offset_ms += 31 * DAY_MS
    await upkeep.look_after()
    assert len(files_of(server)) == 1
    assert (await desk.download(own)).content == b"own"
    assert await server.application.database.fetch_value("SELECT count(*) FROM media_thumbnails") == 0


async def test_what_takes_too_much_room_goes_the_oldest_first(
    desk: Desk, far: FarServer, server: Server
) -> None:
    await desk.upload(b"x" * 5_000)
    for number in range(6):
        far.has(b"%d" % number * 500)
        await desk.download(f"{FAR}/f{number}")
        server.clock.offset_ms += 1_000
    server.application.media.housekeeping._looks = 0
    await server.application.upkeep.look_after()
    assert await server.application.stores.media.size_of_others() == 2_000
    asked = len(far.asked)
    for number in range(2, 6):
        await desk.download(f"{FAR}/f{number}")
    assert len(far.asked) == asked
    await desk.download(f"{FAR}/f1")
    assert len(far.asked) == asked + 1
