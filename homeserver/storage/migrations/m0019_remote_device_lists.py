"""Devices and keys of other servers' users, as far as somebody here shares a room with them."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=19,
    description="device lists of other servers' users",
    statements=(
        """
        CREATE TABLE remote_device_lists (
            user_id TEXT PRIMARY KEY,
            -- the epoch in which the list was last asked for; none where it never was
            epoch BIGINT,
            -- whether it may be out of date
            in_doubt SMALLINT NOT NULL,
            -- whether somebody was answered from it and was not told since that it changed
            is_shown SMALLINT NOT NULL,
            -- when the user was last heard of, or left a room
            heard_position BIGINT NOT NULL,
            -- which updates were heard of, as JSON
            heard BYTEA NOT NULL,
            -- when the user may have left the last room with somebody of this server in it
            left_position BIGINT,
            -- JSON, with the user's signatures
            master_key BYTEA,
            self_signing_key BYTEA
        )
        """,
        """
        CREATE INDEX remote_device_lists_left ON remote_device_lists (left_position)
            WHERE left_position IS NOT NULL
        """,
        """
        CREATE TABLE remote_devices (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- JSON, with the user's signatures
            keys BYTEA NOT NULL,
            display_name TEXT,
            PRIMARY KEY (user_id, device_id)
        )
        """,
    ),
)

_UNSHARED = "the going of the user, or of everybody here, out of the last room in common"

RETENTION = {
    "remote_device_lists": Retention(bounded_by="user", pruned_by=_UNSHARED),
    "remote_devices": Retention(bounded_by="device", pruned_by=f"the end of the device; {_UNSHARED}"),
}
