"""Rooms, their events, their state.

Rooms, users and state keys are interned: they are named by small numbers (`room_nid`, `user_nid`, `key_nid`)
taken from the log's own counter, so that an event's row and its index entries stay small.
"""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=2,
    description="rooms, events and state",
    statements=(
        """
        CREATE TABLE rooms (
            room_nid BIGINT PRIMARY KEY,
            room_id TEXT NOT NULL UNIQUE,
            room_version TEXT NOT NULL,
            -- compared and set by every write into the room
            head_version BIGINT NOT NULL,
            -- JSON: [[event_id, sha256 of the reference hash or null], ...]
            forward_extremities TEXT NOT NULL,
            depth BIGINT NOT NULL,
            -- the resolved state after the forward extremities
            state_snapshot BIGINT NOT NULL,
            last_position BIGINT NOT NULL,
            joined_members BIGINT NOT NULL,
            invited_members BIGINT NOT NULL
        )
        """,
        "CREATE TABLE user_numbers (user_nid BIGINT PRIMARY KEY, user_id TEXT NOT NULL UNIQUE)",
        """
        CREATE TABLE state_keys (
            key_nid BIGINT PRIMARY KEY,
            type TEXT NOT NULL,
            state_key TEXT NOT NULL,
            UNIQUE (type, state_key)
        )
        """,
        """
        CREATE TABLE events (
            event_nid BIGINT PRIMARY KEY,
            -- the place in the log; negative for history that was fetched later
            stream_id BIGINT NOT NULL,
            room_nid BIGINT NOT NULL,
            event_id TEXT NOT NULL UNIQUE,
            depth BIGINT NOT NULL,
            sender_nid BIGINT NOT NULL,
            origin_server_ts BIGINT NOT NULL,
            -- homeserver.storage.stored_event.Status
            status SMALLINT NOT NULL,
            notifies SMALLINT NOT NULL,
            thread_root TEXT,
            -- snapshots; state_before is null where it is the same as state_after
            state_after BIGINT NOT NULL,
            state_before BIGINT,
            -- the event that this state event replaced
            replaces_state TEXT,
            redacted_by TEXT,
            -- which device sent it, and under which transaction id
            device_id TEXT,
            transaction_id TEXT,
            json BYTEA NOT NULL
        )
        """,
        "CREATE INDEX events_by_position ON events (room_nid, stream_id)",
        "CREATE INDEX events_by_depth ON events (room_nid, depth, stream_id)",
        "CREATE INDEX events_by_time ON events (room_nid, origin_server_ts)",
        """
        CREATE INDEX events_that_notify ON events (room_nid, stream_id, sender_nid, thread_root)
        WHERE notifies = 1
        """,
        """
        CREATE TABLE highlights (
            user_id TEXT NOT NULL,
            room_nid BIGINT NOT NULL,
            stream_id BIGINT NOT NULL,
            sender_nid BIGINT NOT NULL,
            thread_root TEXT,
            counted SMALLINT NOT NULL,
            PRIMARY KEY (user_id, room_nid, stream_id)
        ) /* without rowid */
        """,
        """
        CREATE TABLE transaction_ids (
            -- a hash of user, device, endpoint and transaction id
            transaction_key BIGINT PRIMARY KEY,
            event_nid BIGINT NOT NULL,
            created_ts BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE relations (
            event_nid BIGINT PRIMARY KEY,
            room_nid BIGINT NOT NULL,
            relates_to TEXT NOT NULL,
            relation_type TEXT NOT NULL,
            event_type TEXT NOT NULL,
            sender_nid BIGINT NOT NULL,
            depth BIGINT NOT NULL,
            stream_id BIGINT NOT NULL
        )
        """,
        "CREATE INDEX relations_of_event ON relations (relates_to, relation_type, depth, stream_id)",
        "CREATE INDEX relations_in_room ON relations (room_nid, relation_type, stream_id)",
        """
        CREATE TABLE state_snapshots (
            snapshot_nid BIGINT PRIMARY KEY,
            room_nid BIGINT NOT NULL,
            height BIGINT NOT NULL,
            parent_nid BIGINT,
            -- pairs of signed 64-bit integers: key_nid, event_nid (0: the entry is gone)
            delta BYTEA NOT NULL
        )
        """,
        """
        CREATE TABLE current_state (
            room_nid BIGINT NOT NULL,
            key_nid BIGINT NOT NULL,
            event_nid BIGINT NOT NULL,
            PRIMARY KEY (room_nid, key_nid)
        ) /* without rowid */
        """,
        """
        CREATE TABLE memberships (
            user_id TEXT NOT NULL,
            room_nid BIGINT NOT NULL,
            membership TEXT NOT NULL,
            event_nid BIGINT NOT NULL,
            stream_id BIGINT NOT NULL,
            sender TEXT NOT NULL,
            forgotten SMALLINT NOT NULL DEFAULT 0,
            PRIMARY KEY (user_id, room_nid)
        ) /* without rowid */
        """,
        "CREATE INDEX members_of_room ON memberships (room_nid, membership, stream_id)",
        """
        CREATE TABLE membership_log (
            user_id TEXT NOT NULL,
            stream_id BIGINT NOT NULL,
            room_nid BIGINT NOT NULL,
            membership TEXT NOT NULL,
            event_nid BIGINT NOT NULL,
            PRIMARY KEY (user_id, stream_id)
        ) /* without rowid */
        """,
        "CREATE INDEX membership_log_of_room ON membership_log (room_nid, user_id, stream_id)",
    ),
)

_ROOM = "the room: goes when the room is purged"

RETENTION = {
    "rooms": Retention(bounded_by="room", pruned_by=_ROOM),
    "user_numbers": Retention(bounded_by="user", pruned_by="kept: one small row for every user ever seen"),
    "state_keys": Retention(bounded_by="room", pruned_by="kept: one small row for every distinct state key"),
    "events": Retention(bounded_by="room", pruned_by=_ROOM),
    "highlights": Retention(
        bounded_by="room",
        pruned_by="a read receipt of the user past the event, or their leaving; one for everybody goes with the room",
    ),
    "transaction_ids": Retention(bounded_by="time", pruned_by="thirty days after the send"),
    "relations": Retention(bounded_by="room", pruned_by=_ROOM),
    "state_snapshots": Retention(bounded_by="room", pruned_by=_ROOM),
    "current_state": Retention(bounded_by="room", pruned_by=_ROOM),
    "memberships": Retention(bounded_by="room", pruned_by=_ROOM),
    "membership_log": Retention(bounded_by="room", pruned_by=_ROOM),
}
