"""Rooms that answers over weak links put off."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=24,
    description="rooms put off",
    statements=(
        """
        CREATE TABLE owed_rooms (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- made up by chance, and named by the token
            number BIGINT NOT NULL,
            -- JSON: [[room number, the position up to which the client has it, and its events], ...]
            rooms TEXT NOT NULL,
            created_ts BIGINT NOT NULL,
            PRIMARY KEY (user_id, device_id, number)
        ) /* without rowid */
        """,
        # What was owed by the token that was acknowledged last.
        "ALTER TABLE device_positions ADD COLUMN owed BIGINT NOT NULL DEFAULT 0",
    ),
)

RETENTION = {
    "owed_rooms": Retention(
        bounded_by="device",
        pruned_by="those of the tokens in use and acknowledged and the newest four stay; the end of the device",
    ),
}
