"""How far the log has come. Whose database this is stands in tables that `homeserver.storage.schema` makes."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=1,
    description="the log",
    statements=(
        "CREATE TABLE log_position (position BIGINT NOT NULL)",
        "INSERT INTO log_position (position) VALUES (0)",
    ),
    postgres_only=(
        # What other processes read on from; on SQLite there are none. Not UNLOGGED: such a table is emptied when
        # PostgreSQL crashes, and a process would go past announcements that it never saw.
        """
        CREATE TABLE announcements (
            position BIGINT NOT NULL,
            topic TEXT NOT NULL,
            key TEXT NOT NULL,
            created_ts BIGINT NOT NULL
        )
        """,
        "CREATE INDEX announcements_by_position ON announcements (position)",
        # Up to this position announcements may have been pruned.
        "ALTER TABLE log_position ADD COLUMN pruned_upto BIGINT NOT NULL DEFAULT 0",
    ),
)

RETENTION = {
    "schema_migrations": Retention(bounded_by="server", pruned_by="kept: one row for every migration"),
    "server": Retention(bounded_by="server", pruned_by="kept: one row"),
    "log_position": Retention(bounded_by="server", pruned_by="kept: one row"),
    "announcements": Retention(bounded_by="time", pruned_by="an hour after the commit"),
}
