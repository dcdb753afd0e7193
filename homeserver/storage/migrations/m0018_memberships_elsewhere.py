"""Invites into rooms that this server is not in, and knocks at them."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=18,
    description="invites and knocks elsewhere",
    statements=(
        """
        CREATE TABLE stripped_state (
            user_id TEXT NOT NULL,
            room_nid BIGINT NOT NULL,
            -- JSON, as it is shown to the user
            events BYTEA NOT NULL,
            PRIMARY KEY (user_id, room_nid)
        ) /* without rowid */
        """,
        "CREATE INDEX stripped_state_of_room ON stripped_state (room_nid)",
    ),
)

RETENTION = {
    "stripped_state": Retention(
        bounded_by="user", pruned_by="the end of the invite or knock, or this server's coming into the room"
    ),
}
