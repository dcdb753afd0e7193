"""A program that makes thumbnails: a process of its own, since whoever decodes what strangers send may come to harm.

`python -m homeserver.services.media.images` reads orders from its standard input and answers on its standard output, one
after the other, until the input ends. An order is a line of JSON (`size`, `width`, `height`, `method`, `is_animated`) and
`size` bytes of an image; the answer is a line of JSON (`outcome`, `content_type`, `size`) and `size` bytes. It opens no
file and no socket, and has only so much memory. `homeserver.services.media.image_workers` is its other end.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image, ImageOps, ImageSequence

if TYPE_CHECKING:
    from typing import BinaryIO

CONTENT_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "AVIF": "image/avif",
}
"""What is read, and nothing else: decoders of rare formats are where the holes are."""
SHOWN_AS_IT_IS = ("JPEG", "PNG", "GIF", "WEBP")
"""What a thumbnail may be (CS `GET /media/thumbnail`)."""
MAX_PIXELS = 40_000_000
"""That are decoded at a time: of a big JPEG only as many as are needed."""
MAX_FRAMES = 200
MAX_FRAME_PIXELS = 200_000_000
"""Of all frames together."""
MEMORY_BYTES = 1 << 30
_MAX_SIDE = 65_500
_QUALITY = 85
_MAX_PROFILE_BYTES = 64 << 10
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)


class TooManyPixels(Exception):
    """More than can be decoded."""


class Thumbnail(NamedTuple):
    """A thumbnail; without content, the image itself is small enough to be one."""

    content_type: str
    content: bytes | None


def make_thumbnail(source: BinaryIO, width: int, height: int, method: str, *, is_animated: bool) -> Thumbnail:
    """An image that fits into the size (`scale`), or that fills it (`crop`), never a larger one than the source.

    Raises `TooManyPixels`, and whatever Pillow raises for what is no image, or a broken one.
    """
    with Image.open(source, formats=tuple(CONTENT_TYPES)) as image:
        # Others than JPEG are decoded as a whole, some even to say which side is up.
        if image.format != "JPEG" and image.width * image.height > MAX_PIXELS:
            raise TooManyPixels
        moves = bool(getattr(image, "is_animated", False))
        is_animated = is_animated and moves and _may_be_animated(image)
        turned = image.getexif().get(_ORIENTATION) in _TURNED
        whole = (image.height, image.width) if turned else image.size
        target, box = _crop(whole, width, height) if method == "crop" else _scale(whole, width, height)
        if target == whole and image.format in SHOWN_AS_IT_IS and moves == is_animated:
            return Thumbnail(CONTENT_TYPES[image.format], None)
        if is_animated:
            return _animation(image, target, box)
        wanted = (round(whole[0] * target[0] / box[0]), round(whole[1] * target[1] / box[1]))
        image.draft(None, wanted[::-1] if turned else wanted)
        if image.width * image.height > MAX_PIXELS:
            raise TooManyPixels
        return _still(image, whole, target, box)


def _scale(whole: tuple[int, int], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size of the thumbnail, and how much of the image is in it: all."""
    factor = min(width / whole[0], height / whole[1], 1)
    return (max(1, round(whole[0] * factor)), max(1, round(whole[1] * factor))), whole


def _crop(whole: tuple[int, int], width: int, height: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The size of the thumbnail, and how much of the image, in its middle, is in it."""
    factor = min(max(width / whole[0], height / whole[1]), 1)
    target = (min(width, whole[0]), min(height, whole[1]))
    box = (min(whole[0], round(target[0] / factor)), min(whole[1], round(target[1] / factor)))
    return target, box


def _resized(
    image: Image.Image, whole: tuple[int, int], target: tuple[int, int], box: tuple[int, int]
) -> Image.Image:
    # A draft may be smaller than the image is.
    across, down = box[0] * image.width / whole[0], box[1] * image.height / whole[1]
    left, top = (image.width - across) / 2, (image.height - down) / 2
    return image.resize(
        target, Image.Resampling.LANCZOS, box=(left, top, left + across, top + down), reducing_gap=3.0
    )


def _still(
    image: Image.Image, whole: tuple[int, int], target: tuple[int, int], box: tuple[int, int]
) -> Thumbnail:
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "L") or not isinstance(profile, bytes) or len(profile) > _MAX_PROFILE_BYTES:
        profile = None
    plain = _in_colours(image)
    ImageOps.exif_transpose(plain, in_place=True)
    small = _resized(plain, whole, target, box)
    # Nothing of what is told beside the picture, such as where it was taken.
    small.info.clear()
    made = io.BytesIO()
    if small.mode == "RGBA":
        small.save(made, "PNG")
        return Thumbnail("image/png", made.getvalue())
    small.save(made, "JPEG", quality=_QUALITY, optimize=True, icc_profile=profile)
    return Thumbnail("image/jpeg", made.getvalue())


def _in_colours(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def _may_be_animated(image: Image.Image) -> bool:
    frames = int(getattr(image, "n_frames", 1))
    return frames <= MAX_FRAMES and frames * image.width * image.height <= MAX_FRAME_PIXELS


def _animation(image: Image.Image, target: tuple[int, int], box: tuple[int, int]) -> Thumbnail:
    frames, durations = [], []
    for frame in ImageSequence.Iterator(image):
        frames.append(_resized(_in_colours(frame), image.size, target, box))
        durations.append(int(frame.info.get("duration") or 100))
    made = io.BytesIO()
    loop = image.info.get("loop", 1)
    frames[0].save(
        made, "WEBP", save_all=True, append_images=frames[1:], duration=durations, loop=loop, quality=_QUALITY
    )
    return Thumbnail("image/webp", made.getvalue())


def main() -> None:
    """Answer orders until there are no more."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Chatting has the right of way.
    os.nice(5)
    # The bound is `MAX_PIXELS`, which knows of drafts.
    Image.MAX_IMAGE_PIXELS = None
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    while line := orders.readline():
        order = json.loads(line)
        content = orders.read(order.pop("size"))
        answer, made = _answer(content, **order)
        answers.write(json.dumps({**answer, "size": len(made)}).encode() + b"\n" + made)
        answers.flush()


def _answer(
    content: bytes, width: int, height: int, method: str, is_animated: bool
) -> tuple[dict[str, str], bytes]:
    try:
        thumbnail = make_thumbnail(io.BytesIO(content), width, height, method, is_animated=is_animated)
    except (TooManyPixels, MemoryError):
        return {"outcome": "too_large"}, b""
    except Exception:  # noqa: BLE001 - decoders of broken images raise whatever there is
        return {"outcome": "no_image"}, b""
    if thumbnail.content is None:
        return {"outcome": "as_it_is", "content_type": thumbnail.content_type}, b""
    return {"outcome": "made", "content_type": thumbnail.content_type}, thumbnail.content


if __name__ == "__main__":
    main()
