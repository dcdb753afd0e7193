"""Catching up: how much came into each room so far, and what an answer in parts is made by."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=20,
    description="catching up",
    statements=(
        # Of all that arrived in the room up to the event, itself counted; null for what is older than the log.
        "ALTER TABLE events ADD COLUMN messages_so_far BIGINT",
        "ALTER TABLE events ADD COLUMN bytes_so_far BIGINT",
        "ALTER TABLE rooms ADD COLUMN messages BIGINT NOT NULL DEFAULT 0",
        "ALTER TABLE rooms ADD COLUMN bytes BIGINT NOT NULL DEFAULT 0",
        """
        UPDATE events SET messages_so_far = s.messages, bytes_so_far = s.bytes FROM (
            SELECT event_nid, sum(notifies) OVER (PARTITION BY room_nid ORDER BY stream_id) AS messages,
                sum(length(json)) OVER (PARTITION BY room_nid ORDER BY stream_id) AS bytes
            FROM events WHERE status = 0 AND stream_id > 0
        ) s WHERE events.event_nid = s.event_nid
        """,
        """
        UPDATE rooms SET messages = t.messages, bytes = t.bytes FROM (
            SELECT room_nid, sum(notifies) AS messages, sum(length(json)) AS bytes
            FROM events WHERE status = 0 AND stream_id > 0 GROUP BY room_nid
        ) t WHERE rooms.room_nid = t.room_nid
        """,
        """
        CREATE TABLE catch_ups (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- made up by chance
            number BIGINT NOT NULL,
            -- homeserver.sync.missed.plan
            plan BYTEA NOT NULL,
            created_ts BIGINT NOT NULL,
            PRIMARY KEY (user_id, device_id, number)
        ) /* without rowid */
        """,
        "CREATE INDEX catch_ups_by_age ON catch_ups (created_ts)",
    ),
)

RETENTION = {
    "catch_ups": Retention(
        bounded_by="device",
        pruned_by="the two newest of a device stay, for thirty days; the end of the device",
    ),
}
