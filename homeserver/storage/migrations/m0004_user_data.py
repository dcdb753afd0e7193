"""What users keep and show: account data, filters, receipts, typing, presence."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=4,
    description="account data, filters, receipts, typing and presence",
    statements=(
        """
        CREATE TABLE account_data (
            user_id TEXT NOT NULL,
            -- empty for global account data
            room_id TEXT NOT NULL,
            type TEXT NOT NULL,
            stream_id BIGINT NOT NULL,
            -- JSON as it goes out again
            content BYTEA NOT NULL,
            PRIMARY KEY (user_id, room_id, type)
        )
        """,
        "CREATE INDEX account_data_by_position ON account_data (user_id, stream_id)",
        """
        CREATE TABLE filters (
            user_id TEXT NOT NULL,
            filter_id BIGINT NOT NULL,
            definition TEXT NOT NULL,
            PRIMARY KEY (user_id, filter_id)
        )
        """,
        "CREATE UNIQUE INDEX filters_by_definition ON filters (user_id, definition)",
        """
        CREATE TABLE receipts (
            room_id TEXT NOT NULL,
            user_id TEXT NOT NULL,
            receipt_type TEXT NOT NULL,
            -- empty for an unthreaded receipt
            thread_id TEXT NOT NULL,
            event_id TEXT NOT NULL,
            -- the place of the event
            event_depth BIGINT NOT NULL,
            event_stream_id BIGINT NOT NULL,
            ts BIGINT NOT NULL,
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (room_id, user_id, receipt_type, thread_id)
        )
        """,
        "CREATE INDEX receipts_by_position ON receipts (room_id, stream_id)",
        """
        CREATE TABLE typing (
            room_id TEXT NOT NULL,
            user_id TEXT NOT NULL,
            expires_ts BIGINT NOT NULL,
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (room_id, user_id)
        )
        """,
        """
        CREATE TABLE presence (
            user_id TEXT PRIMARY KEY,
            state TEXT NOT NULL,
            status_message TEXT,
            last_active_ts BIGINT NOT NULL,
            stream_id BIGINT NOT NULL
        )
        """,
        "CREATE INDEX presence_by_position ON presence (stream_id)",
    ),
)

RETENTION = {
    "account_data": Retention(bounded_by="user", pruned_by="the deactivation of the account"),
    "filters": Retention(
        bounded_by="user", pruned_by="the deactivation of the account; equal ones are kept once"
    ),
    "receipts": Retention(
        bounded_by="room", pruned_by="the purge of the room; a newer receipt takes an older one's place"
    ),
    "typing": Retention(bounded_by="time", pruned_by="the end of the typing"),
    "presence": Retention(bounded_by="user", pruned_by="the deactivation of the account"),
}
