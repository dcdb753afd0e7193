"""When history was missed that was fetched later."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.migrations.migration import Migration

if TYPE_CHECKING:
    from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=25,
    description="when history was missed",
    statements=(
        # Where it is from before this server's time in the room, and of all that is not history: null.
        "ALTER TABLE events ADD COLUMN missed_at BIGINT",
    ),
)

RETENTION: dict[str, Retention] = {}
