"""Aliases, and the rooms that are published in the directory."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=5,
    description="the room directory",
    statements=(
        """
        CREATE TABLE aliases (
            alias TEXT PRIMARY KEY,
            room_id TEXT NOT NULL,
            creator TEXT NOT NULL,
            created_ts BIGINT NOT NULL
        )
        """,
        "CREATE INDEX aliases_of_room ON aliases (room_id)",
        "CREATE TABLE published_rooms (room_id TEXT PRIMARY KEY)",
    ),
)

RETENTION = {
    "aliases": Retention(bounded_by="room", pruned_by="the deletion of the alias, or the purge of the room"),
    "published_rooms": Retention(
        bounded_by="room", pruned_by="the end of the publication, or the purge of the room"
    ),
}
