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
            -- since when they are these
            stream_id BIGINT NOT NULL,
            -- JSON without the signatures
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
            -- a place in the log: in this order they are handed out
            upload_order BIGINT NOT NULL,
            -- JSON as it was uploaded
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
            -- of its JSON without the signatures
            key_hash BYTEA NOT NULL,
            -- when it was claimed
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (user_id, device_id, algorithm, key_id)
        ) /* without rowid */
        """,
        """
        CREATE INDEX claimed_one_time_keys_in_order ON claimed_one_time_keys (user_id, device_id, stream_id)
        """,
        """
        CREATE TABLE fallback_keys (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            algorithm TEXT NOT NULL,
            key_id TEXT NOT NULL,
            -- JSON as it was uploaded
            key BYTEA NOT NULL,
            used SMALLINT NOT NULL,
            -- when it was uploaded, or used for the first time
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (user_id, device_id, algorithm)
        )
        """,
        """
        CREATE TABLE cross_signing_keys (
            user_id TEXT NOT NULL,
            -- master, self_signing, user_signing
            usage TEXT NOT NULL,
            -- in Base64
            public_key TEXT NOT NULL,
            -- JSON without the signatures
            key BYTEA NOT NULL,
            PRIMARY KEY (user_id, usage)
        )
        """,
        # What users sign of their own with their own keys: shown to everybody.
        """
        CREATE TABLE key_signatures (
            user_id TEXT NOT NULL,
            -- what is signed: a device id, or the Base64 of a cross-signing key
            key_id TEXT NOT NULL,
            -- with algorithm
            signer_key_id TEXT NOT NULL,
            signature TEXT NOT NULL,
            PRIMARY KEY (user_id, key_id, signer_key_id)
        ) /* without rowid */
        """,
        # What users sign of others with their user-signing key: shown to nobody but them.
        """
        CREATE TABLE user_signatures (
            signer_user_id TEXT NOT NULL,
            user_id TEXT NOT NULL,
            -- the Base64 of the master key that is signed
            key_id TEXT NOT NULL,
            signer_key_id TEXT NOT NULL,
            signature TEXT NOT NULL,
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (signer_user_id, user_id)
        ) /* without rowid */
        """,
        "CREATE INDEX user_signatures_of_user ON user_signatures (user_id)",
        "CREATE INDEX user_signatures_in_order ON user_signatures (signer_user_id, stream_id)",
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
        bounded_by="device", pruned_by="the deletion or replacement of the signed or the signing key"
    ),
    "user_signatures": Retention(
        bounded_by="user", pruned_by="the deletion or replacement of the signed or the signing key"
    ),
}
