"""What waits for other servers: a cursor over the log for each of them."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=16,
    description="sending to other servers",
    statements=(
        """
        CREATE TABLE room_servers (
            room_nid BIGINT NOT NULL,
            server_name TEXT NOT NULL,
            -- where its last member went out; the greatest number while it is in the room
            left_position BIGINT NOT NULL,
            -- where its first member came in
            joined_position BIGINT NOT NULL,
            members BIGINT NOT NULL,
            PRIMARY KEY (room_nid, server_name, left_position)
        ) /* without rowid */
        """,
        "CREATE INDEX room_servers_by_server ON room_servers (server_name, left_position)",
        """
        CREATE TABLE outgoing_events (
            room_nid BIGINT NOT NULL,
            stream_id BIGINT NOT NULL,
            event_nid BIGINT NOT NULL,
            -- the server of the user whom a membership is of: it need not be in the room
            target TEXT,
            PRIMARY KEY (room_nid, stream_id)
        ) /* without rowid */
        """,
        "CREATE INDEX outgoing_events_by_target ON outgoing_events (target, stream_id) WHERE target IS NOT NULL",
        "CREATE INDEX outgoing_events_by_position ON outgoing_events (stream_id)",
        """
        CREATE TABLE outgoing_to_device (
            server_name TEXT NOT NULL,
            stream_id BIGINT NOT NULL,
            message_id TEXT NOT NULL,
            -- the content of an EDU, as JSON
            content BYTEA NOT NULL,
            PRIMARY KEY (server_name, stream_id)
        )
        """,
        """
        CREATE TABLE outgoing_device_changes (
            user_id TEXT NOT NULL,
            -- empty for the cross-signing keys
            device_id TEXT NOT NULL,
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (user_id, device_id)
        )
        """,
        "CREATE INDEX outgoing_device_changes_in_order ON outgoing_device_changes (stream_id)",
        """
        CREATE TABLE destinations (
            server_name TEXT PRIMARY KEY,
            -- everything up to there was delivered, or set aside
            position BIGINT NOT NULL,
            -- of the events up to there only the newest of each room are delivered
            skip_upto BIGINT NOT NULL DEFAULT 0,
            failures BIGINT NOT NULL DEFAULT 0,
            failing_since_ts BIGINT,
            retry_ts BIGINT,
            why TEXT,
            -- when it last answered well, or called
            alive_ts BIGINT,
            set_aside BIGINT NOT NULL DEFAULT 0,
            last_set_aside TEXT,
            -- the process that sends to it
            process_id TEXT
        )
        """,
        """
        CREATE TABLE processes (
            process_id TEXT PRIMARY KEY,
            -- what it has taken on is free after that
            alive_until_ts BIGINT NOT NULL
        )
        """,
    ),
)

_DELIVERED = "the delivery to every server that it waits for"

RETENTION = {
    "room_servers": Retention(
        bounded_by="room", pruned_by="the server's going, once it has what came before; the purge of the room"
    ),
    "outgoing_events": Retention(
        bounded_by="room", pruned_by=f"{_DELIVERED}; of each room the newest 5,000 stay at most"
    ),
    "outgoing_to_device": Retention(
        bounded_by="server", pruned_by="the server's answer, or its absence for ninety days"
    ),
    "outgoing_device_changes": Retention(
        bounded_by="device", pruned_by=f"{_DELIVERED}; a newer change takes an older one's place"
    ),
    "destinations": Retention(
        bounded_by="server", pruned_by="ninety days without a room in common and without a sign of life"
    ),
    "processes": Retention(bounded_by="server", pruned_by="the end of the process, noticed within a minute"),
}
