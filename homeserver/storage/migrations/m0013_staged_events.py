"""Events of other servers that were taken in, and wait for what is missing before them."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=13,
    description="staged events",
    statements=(
        """
        CREATE TABLE staged_events (
            -- the order in which they came
            staged_nid BIGINT PRIMARY KEY,
            event_id TEXT NOT NULL UNIQUE,
            room_id TEXT NOT NULL,
            origin TEXT NOT NULL,
            attempts BIGINT NOT NULL DEFAULT 0,
            json BYTEA NOT NULL
        )
        """,
        "CREATE INDEX staged_events_of_room ON staged_events (room_id, staged_nid)",
    ),
)

RETENTION = {
    "staged_events": Retention(
        bounded_by="room", pruned_by="the placing of the event, or the last attempt at it"
    )
}
