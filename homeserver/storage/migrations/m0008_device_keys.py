"""Keys of devices, one-time keys, cross-signing keys and signatures by users."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=8,
    description="device keys, one-time keys and cross-signing",
    statements=(
        """
        CREATE TABLE device_keys (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- JSON as it goes out again
            keys BYTEA NOT NULL,
            PRIMARY KEY (user_id, device_id)
        )
        """,
        """
        CREATE TABLE one_time_keys (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            algorithm TEXT NOT NULL,
            key_id TEXT NOT NULL,
            -- in which order they are handed out
            upload_order BIGINT NOT NULL,
            key BYTEA NOT NULL,
            PRIMARY KEY (user_id, device_id, algorithm, key_id)
        ) /* without rowid */
        """,
        """
        CREATE UNIQUE INDEX one_time_keys_in_order ON one_time_keys
            (user_id, device_id, algorithm, upload_order)
        """,
        """
        CREATE TABLE claimed_one_time_keys (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            algorithm TEXT NOT NULL,
            key_id TEXT NOT NULL,
            key_hash BYTEA NOT NULL,
            claimed_ts BIGINT NOT NULL,
            PRIMARY KEY (user_id, device_id, algorithm, key_id)
        ) /* without rowid */
        """,
        """
        CREATE TABLE fallback_keys (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            algorithm TEXT NOT NULL,
            key_id TEXT NOT NULL,
            key BYTEA NOT NULL,
            used SMALLINT NOT NULL,
            PRIMARY KEY (user_id, device_id, algorithm)
        )
        """,
        """
        CREATE TABLE cross_signing_keys (
            user_id TEXT NOT NULL,
            -- master, self_signing, user_signing
            usage TEXT NOT NULL,
            -- JSON as it was uploaded
            key BYTEA NOT NULL,
            PRIMARY KEY (user_id, usage)
        )
        """,
        """
        CREATE TABLE key_signatures (
            -- whose key is signed: a device id, or the Base64 of a cross-signing key
            target_user_id TEXT NOT NULL,
            target_key_id TEXT NOT NULL,
            signer_user_id TEXT NOT NULL,
            -- with algorithm
            signer_key_id TEXT NOT NULL,
            signature TEXT NOT NULL,
            PRIMARY KEY (target_user_id, target_key_id, signer_user_id, signer_key_id)
        ) /* without rowid */
        """,
    ),
)

RETENTION = {
    "device_keys": Retention(bounded_by="device", pruned_by="the deletion of the device"),
    "one_time_keys": Retention(bounded_by="device", pruned_by="a claim, or the deletion of the device"),
    "claimed_one_time_keys": Retention(
        bounded_by="device", pruned_by="newer claims beyond a number for each device, or its deletion"
    ),
    "fallback_keys": Retention(
        bounded_by="device", pruned_by="a newer one takes its place; the deletion of the device"
    ),
    "cross_signing_keys": Retention(
        bounded_by="user", pruned_by="a newer one; the deactivation of the account"
    ),
    "key_signatures": Retention(
        bounded_by="user", pruned_by="the deletion or replacement of the signed or the signing key"
    ),
}
