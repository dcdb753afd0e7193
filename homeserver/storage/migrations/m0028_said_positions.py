"""When something was last said in each room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.storage.migrations.migration import Migration

if TYPE_CHECKING:
    from homeserver.storage.retention import Retention

_TYPES = (
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "m.beacon_info",
    "org.matrix.msc3381.poll.start",
    "org.matrix.msc3672.beacon_info",
)


def _look_back(holds: str) -> str:
    """From the newest event of each room back to the first whose JSON holds one of the types."""
    conditions = " OR ".join(holds.format(f'"type":"{one}"') for one in _TYPES)
    return (
        "UPDATE rooms SET said_position = coalesce((SELECT e.stream_id FROM events e"
        " WHERE e.room_nid = rooms.room_nid AND e.status = 0 AND e.stream_id > 0"
        f" AND ({conditions}) ORDER BY e.stream_id DESC LIMIT 1), 0)"
    )


MIGRATION = Migration(
    number=28,
    description="when something was last said",
    # The position of the newest event that says something (`SAYING` in homeserver.storage.rooms); 0 for none here.
    statements=("ALTER TABLE rooms ADD COLUMN said_position BIGINT NOT NULL DEFAULT 0",),
    sqlite_only=(_look_back("instr(e.json, CAST('{}' AS BLOB)) > 0"),),
    postgres_only=(_look_back("position('{}'::bytea IN e.json) > 0"),),
)

RETENTION: dict[str, Retention] = {}
