"""Server-side backups of room keys."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=10,
    description="key backups",
    statements=(
        """
        CREATE TABLE key_backups (
            user_id TEXT NOT NULL,
            version BIGINT NOT NULL,
            algorithm TEXT NOT NULL,
            -- JSON as it goes out again
            auth_data BYTEA NOT NULL,
            -- grows with every change of the keys in it
            etag BIGINT NOT NULL,
            key_count BIGINT NOT NULL,
            -- a deleted one keeps its number, which is not given out again
            is_deleted SMALLINT NOT NULL DEFAULT 0,
            PRIMARY KEY (user_id, version)
        )
        """,
        """
        CREATE TABLE backed_up_keys (
            user_id TEXT NOT NULL,
            version BIGINT NOT NULL,
            room_id TEXT NOT NULL,
            session_id TEXT NOT NULL,
            first_message_index BIGINT NOT NULL,
            forwarded_count BIGINT NOT NULL,
            is_verified SMALLINT NOT NULL,
            -- JSON as it goes out again
            session_data BYTEA NOT NULL,
            PRIMARY KEY (user_id, version, room_id, session_id)
        ) /* without rowid */
        """,
    ),
)

RETENTION = {
    "key_backups": Retention(bounded_by="user", pruned_by="the deactivation of the account"),
    "backed_up_keys": Retention(
        bounded_by="user", pruned_by="the user's deletion of them or of the backup, or deactivation"
    ),
}
