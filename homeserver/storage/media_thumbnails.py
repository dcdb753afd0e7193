"""Thumbnails that were made, by the file that they were made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from homeserver.storage.media import Content, StoredFile

if TYPE_CHECKING:
    from homeserver.storage.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Shape:
    """What is wanted of a thumbnail."""

    width: int
    height: int
    method: Literal["crop", "scale"]
    is_animated: bool


class ThumbnailStore:
    """Thumbnails by file and shape."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, file_name: str, shape: Shape) -> Content | None:
        """The thumbnail of a file in a shape, if it was made."""
        row = await self._database.fetch_one(
            "SELECT thumbnail_name, size, sha256, content_type FROM media_thumbnails WHERE file_name = $1"
            " AND width = $2 AND height = $3 AND method = $4 AND is_animated = $5",
            file_name,
            shape.width,
            shape.height,
            shape.method,
            int(shape.is_animated),
        )
        if row is None:
            return None
        name, size, sha256, content_type = row
        return Content(StoredFile(name, size, bytes(sha256)), content_type, None)

    async def insert(
        self, transaction: Transaction, file_name: str, shape: Shape, thumbnail: Content
    ) -> bool:
        """A thumbnail was made; False where there is one already, or the file has gone meanwhile."""
        return bool(
            await transaction.execute(
                "INSERT INTO media_thumbnails (file_name, width, height, method, is_animated,"
                " thumbnail_name, size, sha256, content_type)"
                " SELECT $1::text, $2::bigint, $3::bigint, $4::text, $5::smallint, $6::text, $7::bigint,"
                " $8::bytea, $9::text WHERE EXISTS (SELECT 1 FROM media WHERE file_name = $1::text)"
                " ON CONFLICT DO NOTHING",
                file_name,
                shape.width,
                shape.height,
                shape.method,
                int(shape.is_animated),
                thumbnail.file.name,
                thumbnail.file.size,
                thumbnail.file.sha256,
                thumbnail.content_type,
            )
        )
