"""What sliding sync remembers of its connections."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=23,
    description="connections of sliding sync",
    statements=(
        """
        CREATE TABLE sliding_connections (
            user_id TEXT NOT NULL,
            -- empty for a session without a device
            device_id TEXT NOT NULL,
            conn_id TEXT NOT NULL,
            -- the answer that the client certainly has; 0 for none
            acknowledged BIGINT NOT NULL,
            used_ts BIGINT NOT NULL,
            PRIMARY KEY (user_id, device_id, conn_id)
        ) /* without rowid */
        """,
        "CREATE INDEX sliding_connections_by_time ON sliding_connections (used_ts)",
        """
        CREATE TABLE sliding_answers (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            conn_id TEXT NOT NULL,
            answer_nid BIGINT NOT NULL,
            -- the answer that it follows; 0 where it stands for itself
            parent_nid BIGINT NOT NULL,
            -- homeserver.sync.sliding.memory: what the client then holds otherwise than after the parent
            changes BYTEA NOT NULL,
            PRIMARY KEY (user_id, device_id, conn_id, answer_nid)
        )
        """,
    ),
)

RETENTION = {
    "sliding_connections": Retention(
        bounded_by="device",
        pruned_by="the end of the device, a month without use, or the device's opening of too many others",
    ),
    "sliding_answers": Retention(
        bounded_by="device", pruned_by="the end of the connection; put together as the client goes on"
    ),
}
