"""What came to devices that follow by sliding sync."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=29,
    description="what came of rooms",
    statements=(
        """
        CREATE TABLE room_arrivals (
            room_nid BIGINT NOT NULL,
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- JSON: [[after this position, up to that one, when it was acknowledged], ...], in order
            pieces TEXT NOT NULL,
            -- the end of the last
            upto_position BIGINT NOT NULL,
            PRIMARY KEY (room_nid, user_id, device_id)
        ) /* without rowid */
        """,
        "CREATE INDEX room_arrivals_by_device ON room_arrivals (user_id, device_id)",
        # Where the event stands: no news takes the place of newer ones.
        "ALTER TABLE delivery_news ADD COLUMN event_position BIGINT NOT NULL DEFAULT 0",
    ),
)

RETENTION = {
    "room_arrivals": Retention(
        bounded_by="device", pruned_by="the end of the device; beyond 20,000 rooms the oldest"
    ),
}
