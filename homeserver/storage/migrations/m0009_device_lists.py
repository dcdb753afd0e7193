"""When the devices of users changed, and since when rooms are encrypted."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=9,
    description="changes of device lists",
    statements=(
        """
        CREATE TABLE device_list_changes (
            user_id TEXT NOT NULL,
            -- where the oldest row of a user stands for all that came before: the position of the first of these
            first_stream_id BIGINT NOT NULL,
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (user_id, stream_id)
        ) /* without rowid */
        """,
        "CREATE INDEX device_list_changes_in_order ON device_list_changes (stream_id, user_id)",
        "CREATE INDEX membership_log_of_room_in_order ON membership_log (room_nid, stream_id)",
        # The place in the log from which on a room is encrypted: a room that once was stays so.
        "ALTER TABLE rooms ADD COLUMN encrypted_position BIGINT",
        """
        UPDATE rooms SET encrypted_position = (
            SELECT e.stream_id FROM current_state c
            JOIN state_keys k ON k.key_nid = c.key_nid JOIN events e ON e.event_nid = c.event_nid
            WHERE c.room_nid = rooms.room_nid AND k.type = 'm.room.encryption' AND k.state_key = ''
        )
        """,
    ),
)

RETENTION = {
    "device_list_changes": Retention(
        bounded_by="user",
        pruned_by="newer changes beyond a number for each user: the oldest row takes in what is older",
    ),
}
