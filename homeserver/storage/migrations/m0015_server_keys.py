"""Signing keys of other servers."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=15,
    description="signing keys of other servers",
    statements=(
        """
        CREATE TABLE server_keys (
            server_name TEXT NOT NULL,
            key_id TEXT NOT NULL,
            public_key TEXT NOT NULL,
            valid_until_ts BIGINT NOT NULL,
            is_retired SMALLINT NOT NULL,
            -- whether the server itself said so, or a notary did
            is_direct SMALLINT NOT NULL,
            fetched_ts BIGINT NOT NULL,
            PRIMARY KEY (server_name, key_id)
        ) /* without rowid */
        """,
        "CREATE INDEX server_keys_by_age ON server_keys (fetched_ts)",
        """
        CREATE TABLE server_key_documents (
            server_name TEXT PRIMARY KEY,
            -- JSON as the server signed it
            content BYTEA NOT NULL,
            valid_until_ts BIGINT NOT NULL,
            fetched_ts BIGINT NOT NULL
        )
        """,
        "CREATE INDEX server_key_documents_by_age ON server_key_documents (fetched_ts)",
    ),
)

RETENTION = {
    "server_keys": Retention(
        bounded_by="time", pruned_by="the upkeep, a year after they were fetched last, or beyond a number"
    ),
    "server_key_documents": Retention(
        bounded_by="time", pruned_by="the upkeep, a year after they were fetched last, or beyond a number"
    ),
}
