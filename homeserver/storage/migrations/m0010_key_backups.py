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
            -- which keys are in it: when all go at once, it gets a new set
            set_nid BIGINT NOT NULL,
            -- grows with every change of the keys in it
            etag BIGINT NOT NULL,
            key_count BIGINT NOT NULL,
            -- the newest one stays when it is deleted: its number is not given out again
            is_deleted SMALLINT NOT NULL DEFAULT 0,
            PRIMARY KEY (user_id, version)
        )
        """,
        """
        CREATE TABLE backed_up_keys (
            set_nid BIGINT NOT NULL,
            -- the room id, a space, the id of the session
            place TEXT NOT NULL,
            first_message_index BIGINT NOT NULL,
            forwarded_count BIGINT NOT NULL,
            is_verified SMALLINT NOT NULL,
            -- JSON as it goes out again
            session_data BYTEA NOT NULL,
            PRIMARY KEY (set_nid, place)
        ) /* without rowid */
        """,
        # Keys that nobody can ask for any more. There may be very many: they are deleted bit by bit.
        "CREATE TABLE dropped_key_sets (set_nid BIGINT PRIMARY KEY)",
    ),
)

RETENTION = {
    "key_backups": Retention(
        bounded_by="user", pruned_by="the user's deletion, or the deactivation of the account"
    ),
    "backed_up_keys": Retention(
        bounded_by="user", pruned_by="the user's deletion of them or of the backup, or deactivation"
    ),
    "dropped_key_sets": Retention(bounded_by="time", pruned_by="upkeep, once their keys are deleted"),
}
