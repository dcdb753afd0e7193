"""The log's own tables: whose database this is, and how far the log has come."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=1,
    description="the log",
    statements=(
        "CREATE TABLE server (server_name TEXT NOT NULL, epoch BIGINT NOT NULL)",
        "CREATE TABLE log_position (position BIGINT NOT NULL)",
        "INSERT INTO log_position (position) VALUES (0)",
    ),
    postgres_only=(
        # What other processes read on from: on SQLite there are none.
        """
        CREATE UNLOGGED TABLE announcements (
            position BIGINT NOT NULL,
            process BIGINT NOT NULL,
            topic TEXT NOT NULL,
            key TEXT NOT NULL
        )
        """,
        "CREATE INDEX announcements_by_position ON announcements (position)",
    ),
)

RETENTION = {
    "schema_migrations": Retention(bounded_by="server", pruned_by="kept: one row for every migration"),
    "server": Retention(bounded_by="server", pruned_by="kept: one row"),
    "log_position": Retention(bounded_by="server", pruned_by="kept: one row"),
    "announcements": Retention(bounded_by="time", pruned_by="an hour after the commit"),
}
