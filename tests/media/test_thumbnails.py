"""Thumbnails: as large as is wanted at least, never larger than the image, made once; and what strangers call images."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from homeserver.services.media.image_workers import ImageWorkers
from homeserver.services.media.images import MAX_FRAMES, make_thumbnail
from homeserver.services.media.thumbnails import shape_for
from homeserver.storage.media_thumbnails import Shape
from tests.client import refused
from tests.http.site import until
from tests.media.conftest import Desk, animation, files_of, image_in, picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.client import Client
    from tests.server import Server

on_sqlite = pytest.mark.parametrize("engine", ["sqlite"], indirect=True)


# -- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "made"),
    [
        # "Servers SHOULD produce thumbnails with the following dimensions and methods"
        ((32, 32, "crop"), (32, 32, "crop")),
        ((96, 96, "crop"), (96, 96, "crop")),
        ((320, 240, "scale"), (320, 240, "scale")),
        ((640, 480, "scale"), (640, 480, "scale")),
        ((800, 600, "scale"), (800, 600, "scale")),
        # The next larger one.
        ((33, 1, "scale"), (320, 240, "scale")),
        ((1, 241, "scale"), (640, 480, "scale")),
        ((40, 40, "crop"), (96, 96, "crop")),
        ((400, 300, "crop"), (640, 480, "crop")),
        ((90, 160, "crop"), (180, 320, "crop")),
        ((1601, 5, "crop"), (65_500, 65_500, "scale")),
        ((1601, 5, "scale"), (65_500, 65_500, "scale")),
    ],
)
def test_a_size_is_one_of_few(wanted: tuple[int, int, str], made: tuple[int, int, str]) -> None:
    assert shape_for(*wanted, is_animated=False) == Shape(*made, False)  # type: ignore[arg-type]


@given(width=st.integers(1, 10**6), height=st.integers(1, 10**6), method=st.sampled_from(("crop", "scale")))
def test_a_size_is_as_large_as_is_wanted(width: int, height: int, method: str) -> None:
    shape = shape_for(width, height, method, is_animated=True)  # type: ignore[arg-type]
    assert shape.width >= min(width, 65_500)
    assert shape.height >= min(height, 65_500)
    if shape.method == "crop":
        assert (width >= height) == (shape.width >= shape.height) or shape.width == shape.height
        assert abs(shape.width / shape.height - width / height) <= max(1 / 16, width / height)


def test_there_are_few_sizes() -> None:
    sizes = {
        shape_for(width, height, method, is_animated=False)  # type: ignore[arg-type]
        for method in ("crop", "scale")
        for width in range(1, 1700, 7)
        for height in range(1, 1700, 7)
    }
    assert len(sizes) < 200


@on_sqlite
async def test_a_thumbnail_has_the_size_that_fits(desk: Desk) -> None:
    media = await desk.upload(picture(1000, 500), "image/png")
    for method, wanted, size in (
        ("scale", (320, 240), (320, 160)),
        ("scale", (300, 100), (320, 160)),
        ("scale", (640, 480), (640, 320)),
        ("crop", (96, 96), (96, 96)),
        ("crop", (20, 10), (32, 16)),
        ("crop", (640, 640), (640, 500)),
    ):
        answer = await desk.thumbnail(media, *wanted, method=method)
        image = image_in(answer)
        assert image.size == size
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["content-disposition"] == 'inline; filename="thumbnail.jpeg"'
        left, right = image.getpixel((1, 1)), image.getpixel((size[0] - 2, size[1] - 2))
        assert left[0] > 200
        assert left[2] < 50
        assert right[2] > 200
        assert right[0] < 50


@on_sqlite
async def test_an_image_that_is_small_enough_is_its_own_thumbnail(desk: Desk) -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP"):
        small = picture(100, 50, kind)
        # Whatever its owner says that it is.
        media = await desk.upload(small, "text/html")
        for wanted in ((320, 240), (100, 50), (5000, 5000)):
            answer = await desk.thumbnail(media, *wanted)
            assert answer.content == small
            assert answer.headers["content-type"] == f"image/{kind.lower()}"
            assert answer.headers["content-disposition"].startswith("inline")


@on_sqlite
async def test_what_is_transparent_stays_so_and_what_has_few_colours_is_shown(desk: Desk) -> None:
    for mode in ("RGBA", "LA", "P", "1", "L", "CMYK", "I;16"):
        image = Image.new(mode, (800, 800))
        made = io.BytesIO()
        image.save(made, "TIFF" if mode == "CMYK" else "PNG")
        if mode == "CMYK":
            made = io.BytesIO()
            image.save(made, "JPEG")
        answer = await desk.thumbnail(await desk.upload(made.getvalue()), 32, 32, method="crop")
        thumbnail = image_in(answer)
        assert thumbnail.size == (32, 32)
        if mode in ("RGBA", "LA"):
            assert thumbnail.mode == "RGBA"
            assert thumbnail.getpixel((5, 5))[3] == 0
        else:
            assert answer.headers["content-type"] == "image/jpeg"


@on_sqlite
async def test_an_image_is_turned_as_its_camera_was_held_and_tells_no_more(desk: Desk) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "taken at home"
    image = Image.new("RGB", (1000, 500), "red")
    image.paste("blue", (500, 0, 1000, 500))
    made = io.BytesIO()
    image.save(made, "JPEG", exif=exif)
    media = await desk.upload(made.getvalue(), "image/jpeg")
    for method, size in (("scale", (120, 240)), ("crop", (96, 96))):
        answer = await desk.thumbnail(media, 96, 96, method=method)
        thumbnail = image_in(answer)
        assert thumbnail.size == size
        assert thumbnail.getpixel((48, 4))[0] > 200
        assert thumbnail.getpixel((48, size[1] - 4))[2] > 200
        assert b"taken at home" not in answer.content
        assert thumbnail.getexif() == {}


@on_sqlite
async def test_an_animation_moves_if_that_is_wanted_and_stands_still_if_not(desk: Desk) -> None:
    for kind in ("GIF", "PNG", "WEBP"):
        moving = animation(600, 300, kind=kind)
        media = await desk.upload(moving, "image/gif")
        answer = await desk.thumbnail(media, 320, 240, animated=True)
        assert answer.headers["content-type"] == "image/webp"
        image = image_in(answer)
        assert (image.size, image.n_frames) == ((320, 160), 3)
        for query in ({}, {"animated": False}):
            image = image_in(await desk.thumbnail(media, 320, 240, **query))
            assert (image.size, getattr(image, "is_animated", False)) == ((320, 160), False)
        assert (await desk.thumbnail(media, 800, 600, animated=True)).content == moving
        # Small enough, but it must not move.
        image = image_in(await desk.thumbnail(media, 800, 600, animated=False))
        assert (image.size, getattr(image, "is_animated", False)) == ((600, 300), False)


@on_sqlite
async def test_what_cannot_move_does_not_and_what_moves_for_too_long_stands_still(desk: Desk) -> None:
    media = await desk.upload(picture(), "image/png")
    assert image_in(await desk.thumbnail(media, 320, 240, animated=True)).format == "JPEG"
    frames = [Image.new("L", (400, 400), number % 256) for number in range(MAX_FRAMES + 1)]
    made = io.BytesIO()
    frames[0].save(made, "GIF", save_all=True, append_images=frames[1:])
    media = await desk.upload(made.getvalue(), "image/gif")
    assert image_in(await desk.thumbnail(media, 320, 240, animated=True)).format == "JPEG"


# -- made once -------------------------------------------------------------------------------------------


async def test_a_thumbnail_is_made_once_however_many_want_it(
    desk: Desk, bob: Client, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = await desk.upload(picture(), "image/png")
    same = await Desk(bob).upload(picture(), "image/png")
    made = []
    make = ImageWorkers.make

    async def count(*arguments: object) -> object:
        made.append(arguments)
        return await make(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageWorkers, "make", count)
    answers = await asyncio.gather(*(desk.thumbnail(one, 320, 240) for one in (media, same, media)))
    await server.restart()
    again = Desk(server.reconnect(desk.client))
    answers.append(await again.thumbnail(media, 320, 240))
    assert (
        len({answer.content for answer in answers})
        == len({answer.headers["etag"] for answer in answers})
        == 1
    )
    assert len(made) == 1
    await server.application.upkeep.look_after()
    assert len(files_of(server)) == 2
    await asyncio.gather(again.thumbnail(media, 320, 240), again.thumbnail(media, 96, 96, method="crop"))
    assert len(made) == 2


# -- what is no image ------------------------------------------------------------------------------------


def png_of(width: int, height: int) -> bytes:
    """A tiny file that says that it is a huge image."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


BROKEN = {
    "empty": b"",
    "text": b"hello",
    "encrypted": os.urandom(5_000),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="1000" height="1000"/>',
    "half a PNG": picture()[:400],
    "half a JPEG": picture(kind="JPEG", quality=100)[:600],
    "half a GIF": animation()[:300],
    "the beginning of a PNG": b"\x89PNG\r\n\x1a\n",
    "the beginning of a JPEG": b"\xff\xd8\xff\xe0",
    "BMP": picture(kind="BMP"),
    "TIFF": picture(kind="TIFF"),
    "ICO": picture(200, 200, "ICO"),
    "PostScript": picture(kind="EPS"),
    "a TIFF that calls itself a PNG": b"\x89PNG\r\n\x1a\n" + picture(kind="TIFF"),
    "no pixels": png_of(0, 0),
    "one pixel": png_of(1, 1)[:-20],
}


@on_sqlite
async def test_of_what_is_no_image_there_is_no_thumbnail(desk: Desk) -> None:
    for content in BROKEN.values():
        media = await desk.upload(content, "image/png")
        for _ in range(2):
            with refused(400, "M_UNKNOWN"):
                await desk.thumbnail(media, 32, 32)
        assert (await desk.download(media)).content == content


@on_sqlite
async def test_a_small_file_that_is_a_huge_image_is_too_large(desk: Desk) -> None:
    for size in ((10_000, 10_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)):
        media = await desk.upload(png_of(*size), "image/png")
        with refused(413, "M_TOO_LARGE"):
            await desk.thumbnail(media, 32, 32)


def test_of_a_big_jpeg_no_more_is_decoded_than_is_needed() -> None:
    made = io.BytesIO()
    Image.new("L", (9_000, 9_000)).save(made, "JPEG", quality=10)
    thumbnail = make_thumbnail(made, 800, 600, "scale", is_animated=False)
    assert Image.open(io.BytesIO(thumbnail.content or b"")).size == (600, 600)


@on_sqlite
async def test_an_image_that_takes_too_long_is_none_in_that_size_and_may_be_one_in_others(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = await desk.upload(picture(800, 800))
    with monkeypatch.context() as patched:
        patched.setattr("homeserver.services.media.image_workers.SECONDS", 0.0)
        with refused(400, "M_UNKNOWN"):
            await desk.thumbnail(media, 32, 32)
    with refused(400, "M_UNKNOWN"):
        await desk.thumbnail(media, 32, 32)
    assert image_in(await desk.thumbnail(media, 32, 32, method="crop")).size == (32, 32)


SHAPE = Shape(320, 240, "scale", is_animated=False)


async def _parts(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _pids() -> set[int]:
    with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:  # noqa: PTH123, ASYNC230
        return {int(pid) for pid in file.read().split()}


async def test_a_worker_that_comes_to_harm_takes_nobody_with_it() -> None:
    workers = ImageWorkers()
    content = picture()
    assert (await workers.make(_parts(content), len(content), SHAPE)).outcome == "made"
    (process,) = workers._idle

    async def parts_that_kill() -> AsyncIterator[bytes]:
        yield content[:100]
        process.kill()
        await process.wait()
        yield content[100:]

    # It may have been the image.
    assert (await workers.make(parts_that_kill(), len(content), SHAPE)).outcome == "no_image"
    assert (await workers.make(_parts(content), len(content), SHAPE)).outcome == "made"
    (process,) = workers._idle
    process.kill()
    await process.wait()
    # This time it was none.
    assert (await workers.make(_parts(content), len(content), SHAPE)).outcome == "made"
    await workers.close()


async def test_a_worker_that_has_nothing_to_do_ends_and_one_that_was_cancelled_too() -> None:
    workers = ImageWorkers()
    content = picture()
    await workers.make(_parts(content), len(content), SHAPE)
    (process,) = workers._idle
    await workers.look_after()
    assert process.returncode is None
    await workers.look_after()
    assert process.returncode is not None
    endless = asyncio.create_task(workers.make(_endless(), 1 << 40, SHAPE))
    await until(lambda: workers._waiting)
    await asyncio.sleep(0)
    endless.cancel()
    with pytest.raises(asyncio.CancelledError):
        await endless
    assert workers._idle == []
    assert workers._waiting == 0


async def _endless() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0)
        yield b"x" * 1000


async def test_an_image_without_end_meets_the_bound_of_memory() -> None:
    workers = ImageWorkers()
    outcome = await workers.make(_endless(), 4 << 30, SHAPE)
    assert outcome.outcome == "no_image"
    assert (await workers.make(_parts(picture()), len(picture()), SHAPE)).outcome == "made"
    await workers.close()


@on_sqlite
async def test_a_size_that_is_none_is_refused(desk: Desk) -> None:
    media = await desk.upload(picture(), "image/png")
    for query in (
        {"width": "a", "height": "32"},
        {"width": "-1", "height": "32"},
        {"width": "0", "height": "32"},
        {"width": "1.5", "height": "32"},
        {"width": "32", "height": "9" * 40},
        {"width": "32", "height": "32", "method": "stretch"},
        {"width": "32", "height": "32", "animated": "maybe"},
        {"width": "32", "height": "32", "timeout_ms": "-1"},
    ):
        with refused(400, "M_INVALID_PARAM"):
            await desk.get(f"/thumbnail/{media}", **query)


@on_sqlite
async def test_a_size_has_to_be_said(desk: Desk) -> None:
    media = await desk.upload(picture(), "image/png")
    with refused(400, "M_MISSING_PARAM"):
        await desk.get(f"/thumbnail/{media}", width="32")


async def test_a_worker_that_was_taken_over_is_believed_no_further_than_it_must_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "taken_over.py"
    monkeypatch.setattr("homeserver.services.media.image_workers._PROGRAM", "taken_over")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    for answer, outcome in (
        ('{"outcome": "made", "content_type": "text/html", "size": 1}', "no_image"),
        ('{"outcome": "made", "content_type": "image/png\\r\\nx: y", "size": 1}', "no_image"),
        ('{"outcome": "made", "content_type": "image/png", "size": 100000000000}', "too_large"),
        ('{"outcome": "made", "content_type": "image/png", "size": -1}', "no_image"),
        ('{"outcome": "as_it_is", "content_type": ["image/png"]}', "no_image"),
        ('{"outcome": "whatever"}', "no_image"),
        ("[]", "no_image"),
        ("no JSON", "no_image"),
        ("x" * 1_000_000, "no_image"),
    ):
        program.write_text(f"import sys\nsys.stdin.buffer.readline()\nprint({answer!r}, flush=True)\n")
        workers = ImageWorkers()
        assert (await workers.make(_parts(b"x"), 1, SHAPE)).outcome == outcome, answer
        await workers.close()
