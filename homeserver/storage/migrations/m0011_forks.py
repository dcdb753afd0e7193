"""Rooms that other servers write into: events beside the timeline, and those that fork it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.migrations.migration import Migration

if TYPE_CHECKING:
    from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=11,
    description="forks",
    statements=(
        # The state of the room once an event had come that was not built on the whole of it; else that after the event.
        "ALTER TABLE events ADD COLUMN room_state BIGINT",
        # Outliers and rejected events are only ever found by id or number.
        "DROP INDEX events_by_position",
        "DROP INDEX events_by_depth",
        "DROP INDEX events_by_time",
        "CREATE INDEX events_by_position ON events (room_nid, stream_id) WHERE status = 0",
        "CREATE INDEX events_by_depth ON events (room_nid, depth, stream_id) WHERE status = 0",
        "CREATE INDEX events_by_time ON events (room_nid, origin_server_ts) WHERE status = 0",
    ),
)

RETENTION: dict[str, Retention] = {}
