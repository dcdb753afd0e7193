"""What is uploaded comes back, byte for byte, to whoever is logged in; and no browser runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.services.media.headers import INLINE_TYPES, content_disposition, name_in
from tests.client import error_of, refused
from tests.media.conftest import MEDIA, UPLOAD, Desk, files_of, picture

if TYPE_CHECKING:
    from tests.client import Client
    from tests.conftest import StartServer
    from tests.server import Server

on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)

BIG = bytes(range(256)) * 4_000


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "small", "big"])
async def test_a_file_comes_back_as_it_was(desk: Desk, content: bytes) -> None:
    media = await desk.upload(content, "application/x-test", filename="notes.txt")
    answer = await desk.download(media)
    assert answer.content == content
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-type"] == "application/x-test"
    assert answer.headers["content-disposition"] == 'attachment; filename="notes.txt"'


@on_sqlite
async def test_a_file_is_kept_out_of_harms_way(desk: Desk) -> None:
    for content, content_type in ((b"<script>", "text/html"), (b"<svg/>", "image/svg+xml"), (b"%PDF", "x/y")):
        answer = await desk.download(await desk.upload(content, content_type))
        assert answer.headers["content-type"] == content_type
        assert answer.headers["content-disposition"] == "attachment"
        assert answer.headers["content-security-policy"] == (
            "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf;"
            " style-src 'unsafe-inline'; object-src 'self';"
        )
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["access-control-allow-origin"] == "*"


@on_sqlite
async def test_only_what_cannot_run_is_shown_inline(desk: Desk) -> None:
    for disposition, content_types in {
        "inline": ("text/plain", "Image/PNG", "audio/ogg; codecs=opus"),
        "attachment": ("text/plainer", "text/html; a=text/plain", "image/"),
    }.items():
        for content_type in content_types:
            answer = await desk.download(await desk.upload(b"x", content_type))
            assert answer.headers["content-disposition"] == disposition, content_type


@on_sqlite
async def test_what_is_no_type_is_a_row_of_bytes(desk: Desk) -> None:
    token = {"Authorization": f"Bearer {desk.client.access_token}"}
    for content_type in (None, "", "text", "a/b/c", "text/plain\x7f", "image/p\u00f6ng", "text/" + "x" * 300):
        headers = {} if content_type is None else {"Content-Type": content_type.encode("latin-1")}
        uri = (await desk.http.post(UPLOAD, content=b"x", headers={**token, **headers})).json()["content_uri"]
        answer = await desk.download(uri.removeprefix("mxc://"))
        assert answer.headers["content-type"] == "application/octet-stream"
        assert answer.headers["content-disposition"] == "attachment"


@on_sqlite
async def test_the_name_in_the_path_goes_before_that_of_the_upload(desk: Desk) -> None:
    media = await desk.upload(b"x", filename="notes.txt")
    for name in ("other.txt", "../../etc/passwd", "Прив ет\r\n.txt", 'a"b\\c', "\u202egnp.exe", "x" * 200):
        answer = await desk.get(f"/download/{media}/{quote(name, safe='')}")
        assert answer.content == b"x"
        assert name_in(answer.headers["content-disposition"]) in (name, name.replace("\r\n", ""), name[1:])
    with refused(400, "M_INVALID_PARAM"):
        await desk.get(f"/download/{media}/%00")
    with refused(400, "M_INVALID_PARAM"):
        await desk.get(f"/download/{media}/%FF")
    with refused(400, "M_INVALID_PARAM"):
        await desk.get(f"/download/{media}/{'x' * 256}")


@given(name=st.text(min_size=1, max_size=255))
def test_a_name_stands_in_one_line_and_is_found_there(name: str) -> None:
    header = content_disposition("text/plain", name)
    assert header.isascii()
    assert header.isprintable()
    shown = "".join(c for c in name.encode("utf-8", "replace").decode() if c.isprintable()).strip()
    assert name_in(header) == (shown or None)


@given(header=st.text() | st.text("attachment;filename*='\"=utf-8%20\\ "))
def test_whatever_another_server_calls_its_file_is_a_name_or_none(header: str) -> None:
    name = name_in(header)
    assert name is None or (name.isprintable() and 0 < len(name) <= 255)


def test_the_list_of_types_is_that_of_the_specification() -> None:
    assert len(INLINE_TYPES) == 26


@on_sqlite
async def test_a_client_that_has_the_file_is_not_sent_it_again(desk: Desk) -> None:
    media = await desk.upload(b"abc")
    answer = await desk.download(media)
    etag = answer.headers["etag"]
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    for tag in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await desk.download(media, {"If-None-Match": tag})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await desk.download(media, {"If-None-Match": '"other"'})).content == b"abc"


@on_sqlite
async def test_a_part_of_a_file(desk: Desk) -> None:
    media = await desk.upload(BIG)
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        ("bytes=10-300000", 10, 300_001),
        ("bytes=1023990-", 1_023_990, len(BIG)),
        ("bytes=1023990-99999999", 1_023_990, len(BIG)),
        ("bytes=-5", len(BIG) - 5, len(BIG)),
        ("bytes=-99999999", 0, len(BIG)),
    ):
        answer = await desk.download(media, {"Range": asked})
        assert answer.status_code == 206
        assert answer.content == BIG[start:end]
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(BIG)}"


@on_sqlite
async def test_a_range_that_is_none_is_the_whole_and_one_beyond_the_end_is_refused(desk: Desk) -> None:
    media = await desk.upload(b"abc")
    for asked in (
        "bytes=-",
        "bytes=2-1",
        "lines=1-2",
        "bytes=0-1,2-3",
        "bytes=a-b",
        "bytes=" + "9" * 40 + "-",
    ):
        answer = await desk.download(media, {"Range": asked})
        assert (answer.status_code, answer.content) == (200, b"abc")
    with refused(416, "M_UNKNOWN"):
        await desk.download(media, {"Range": "bytes=3-"})
    with refused(416, "M_UNKNOWN"):
        await desk.download(media, {"Range": "bytes=-0"})
    other = await desk.download(media, {"Range": "bytes=0-0", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, b"abc")


@on_sqlite
async def test_head_tells_of_a_file_without_sending_it(desk: Desk) -> None:
    media = await desk.upload(BIG)
    headers = {"Authorization": f"Bearer {desk.client.access_token}"}
    answer = await desk.http.head(f"{MEDIA}/download/{media}", headers=headers)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(BIG))


PATHS = (
    "example.org/..%2F..%2Fetc%2Fpasswd",
    "example.org/%2e%2e",
    "example.org/../../../etc/passwd",
    "127.0.0.1/..",
    "example.org/a.b",
    "example.org/%C3%BC",
    "example.org/" + "a" * 256,
    "example.org/nothing",
    "..%2F/abc",
    "exa mple/abc",
    "%5B%5D/abc",
)


@on_sqlite
async def test_no_address_leads_to_anything_but_a_media(desk: Desk, server: Server) -> None:
    await desk.upload(b"x")
    for path in PATHS:
        for endpoint in ("download", "thumbnail"):
            # Some clients put paths in order by themselves, so that nothing is there at all.
            error = await error_of(desk.get(f"/{endpoint}/{path}", width=1, height=1))
            assert error.status == 404, path
            assert error.errcode == "M_NOT_FOUND" or "/.." in path


@on_sqlite
async def test_media_are_for_who_is_logged_in(server: Server, desk: Desk) -> None:
    media = await desk.upload(picture(), "image/png")
    nobody = server.nobody()
    size = {"width": 32, "height": 32}
    for path, query in (
        (f"/download/{media}", {}),
        (f"/download/{media}/x", {}),
        (f"/thumbnail/{media}", size),
    ):
        with refused(401, "M_MISSING_TOKEN"):
            await nobody.get(MEDIA + path, **query)
        # "Servers SHOULD freeze the deprecated, unauthenticated, endpoints."
        for version in ("v3", "r0"):
            with refused(404, "M_NOT_FOUND"):
                await nobody.get(f"/_matrix/media/{version}{path}", **query)
            with refused(404, "M_NOT_FOUND"):
                await desk.client.get(f"/_matrix/media/{version}{path}", **query)
    with refused(401, "M_MISSING_TOKEN"):
        await nobody.get(f"{MEDIA}/config")
    for method, path in (
        ("POST", UPLOAD),
        ("POST", "/_matrix/media/v1/create"),
        ("PUT", f"{UPLOAD}/{media}"),
    ):
        with refused(401, "M_MISSING_TOKEN"):
            await nobody.call(method, path, {})


@on_sqlite
async def test_guests_see_media_and_upload_none(start_server: StartServer) -> None:
    server = await start_server(registration={"mode": "open", "allow_guests": True})
    media = await Desk(await server.register("alice")).upload(picture(), "image/png")
    answer = await server.nobody().post("/register", {}, kind="guest")
    guest = server.nobody()
    guest.access_token = answer["access_token"]
    desk = Desk(guest)
    assert (await desk.download(media)).content == picture()
    assert (await desk.get(f"/download/{media}/x.png")).content == picture()
    assert (await desk.thumbnail(media, 32, 32, method="crop")).status_code == 200
    for method, path in (
        ("POST", UPLOAD),
        ("POST", "/_matrix/media/v1/create"),
        ("PUT", f"{UPLOAD}/{media}"),
        ("GET", f"{MEDIA}/config"),
    ):
        with refused(403, "M_GUEST_ACCESS_FORBIDDEN"):
            await guest.call(method, path)


@on_sqlite
async def test_the_largest_file_is_told(start_server: StartServer) -> None:
    server = await start_server(media={"max_upload_bytes": 12_345})
    alice = await server.register("alice")
    for path in (f"{MEDIA}/config", "/_matrix/media/v3/config", "/_matrix/media/r0/config"):
        assert await alice.get(path) == {"m.upload.size": 12_345}


@on_sqlite
async def test_a_file_that_has_been_lost_is_not_found(desk: Desk, server: Server) -> None:
    media = await desk.upload(b"abc")
    (path,) = (path for path in server.settings.media_path.rglob("*") if path.is_file())
    path.write_bytes(b"a")
    with refused(404, "M_NOT_FOUND"):
        await desk.download(media)
    path.unlink()
    with refused(404, "M_NOT_FOUND"):
        await desk.download(media)


async def test_the_same_content_is_one_file(desk: Desk, bob: Client, server: Server) -> None:
    first = await desk.upload(b"abc", "text/plain", filename="one")
    second = await Desk(bob).upload(b"abc", "text/csv", filename="two")
    await server.application.upkeep.look_after()
    assert len(files_of(server)) == 1
    assert first != second
    for media, content_type, name in ((first, "text/plain", "one"), (second, "text/csv", "two")):
        answer = await desk.download(media)
        assert answer.content == b"abc"
        assert answer.headers["content-type"] == content_type
        assert answer.headers["content-disposition"] == f'inline; filename="{name}"'


async def test_what_was_uploaded_stays_when_its_owner_goes(desk: Desk, bob: Client) -> None:
    # "Users which had visibility on those events prior to the erasure are still able to see unredacted copies."
    media = await desk.upload(b"abc")
    password = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": "secret",
    }
    await desk.client.post("/account/deactivate", {"auth": password, "erase": True})
    assert (await Desk(bob).download(media)).content == b"abc"
