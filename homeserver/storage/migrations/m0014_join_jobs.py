"""Joins of rooms by way of other servers."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=14,
    description="joins by way of other servers",
    statements=(
        """
        CREATE TABLE join_jobs (
            user_id TEXT NOT NULL,
            room_id TEXT NOT NULL,
            -- JSON
            servers TEXT NOT NULL,
            content TEXT NOT NULL,
            created_ts BIGINT NOT NULL,
            PRIMARY KEY (user_id, room_id)
        )
        """,
    ),
)

RETENTION = {"join_jobs": Retention(bounded_by="user", pruned_by="the end of the join, whatever it is")}
