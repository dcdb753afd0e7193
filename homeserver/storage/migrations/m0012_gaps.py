"""What is known to be missing of rooms that other servers write into."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=12,
    description="gaps in rooms",
    statements=(
        # At which depth this server came into the room: what is older was never sent to it.
        "ALTER TABLE rooms ADD COLUMN arrival_depth BIGINT NOT NULL DEFAULT 0",
        """
        CREATE TABLE backward_extremities (
            room_nid BIGINT NOT NULL,
            -- an event that is not in the timeline
            event_id TEXT NOT NULL,
            -- one that is, and follows it
            followed_by BIGINT NOT NULL,
            PRIMARY KEY (room_nid, event_id, followed_by)
        ) /* without rowid */
        """,
        """
        CREATE TABLE early_redactions (
            room_nid BIGINT NOT NULL,
            -- an event that has not come yet
            redacts TEXT NOT NULL,
            event_id TEXT NOT NULL,
            PRIMARY KEY (room_nid, redacts, event_id)
        ) /* without rowid */
        """,
    ),
)

RETENTION = {
    "backward_extremities": Retention(
        bounded_by="room", pruned_by="the coming of the missing event, or the purge of the room"
    ),
    "early_redactions": Retention(
        bounded_by="room", pruned_by="the coming of the redacted event, or the purge of the room"
    ),
}
