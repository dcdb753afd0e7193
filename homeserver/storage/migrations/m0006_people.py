"""Erased accounts; filters found again by a hash, since an index cannot hold a long definition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.migrations.migration import Migration

if TYPE_CHECKING:
    from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=6,
    description="erasure, and filters of any length",
    statements=(
        "ALTER TABLE accounts ADD COLUMN erased_position BIGINT",
        "DROP INDEX filters_by_definition",
        # NULL in rows that are older: these are found by their id only.
        "ALTER TABLE filters ADD COLUMN definition_hash BYTEA",
        "CREATE UNIQUE INDEX filters_by_hash ON filters (user_id, definition_hash)",
    ),
)

RETENTION: dict[str, Retention] = {}
