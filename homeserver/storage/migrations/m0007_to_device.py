"""Messages from device to device, each until its device has acknowledged it."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=7,
    description="to-device messages",
    statements=(
        """
        CREATE TABLE to_device_messages (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- no device gets two messages at one position
            stream_id BIGINT NOT NULL,
            -- JSON as it goes out: {"type", "sender", "content"}, the content byte for byte as it came
            message BYTEA NOT NULL,
            PRIMARY KEY (user_id, device_id, stream_id)
        )
        """,
        """
        CREATE TABLE to_device_transactions (
            -- a hash of sender, device, type of the message and transaction id
            transaction_key BIGINT PRIMARY KEY,
            created_ts BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE dehydrated_devices (
            user_id TEXT PRIMARY KEY,
            device_id TEXT NOT NULL,
            -- JSON as it goes out again
            device_data BYTEA NOT NULL
        )
        """,
    ),
)

RETENTION = {
    "to_device_messages": Retention(
        bounded_by="device", pruned_by="the since token that acknowledges it, or the deletion of the device"
    ),
    "to_device_transactions": Retention(bounded_by="time", pruned_by="thirty days after the send"),
    "dehydrated_devices": Retention(
        bounded_by="user", pruned_by="a newer one, its deletion, the logout of all devices, or deactivation"
    ),
}
