"""How a thumbnail is asked for, of clients and servers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from homeserver.services.media.thumbnails import shape_for

if TYPE_CHECKING:
    from homeserver.http.request import Query
    from homeserver.storage.media_thumbnails import Shape

_MAX_SIDE = 1_000_000


def wanted_shape(query: Query) -> Shape:
    """The shape in the query; raises `MissingParam` and `InvalidParam`."""
    for name in ("width", "height"):
        query.require(name)
    method = query.get_choice("method", ("crop", "scale"), "scale")
    return shape_for(
        query.get_int("width", 0, minimum=1, maximum=_MAX_SIDE),
        query.get_int("height", 0, minimum=1, maximum=_MAX_SIDE),
        cast("Literal['crop', 'scale']", method),
        is_animated=query.get_bool("animated"),
    )


def thumbnail_name(content_type: str) -> str:
    """ "SHOULD contain a file name (e.g. `thumbnail.png`)." """
    return f"thumbnail.{content_type.partition('/')[2]}"
