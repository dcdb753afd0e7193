"""Accounts, their devices, tokens and profiles; registration tokens; user-interactive authentication."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=3,
    description="accounts",
    statements=(
        """
        CREATE TABLE accounts (
            user_id TEXT PRIMARY KEY,
            password_hash TEXT,
            created_ts BIGINT NOT NULL,
            is_admin SMALLINT NOT NULL DEFAULT 0,
            is_guest SMALLINT NOT NULL DEFAULT 0,
            is_locked SMALLINT NOT NULL DEFAULT 0,
            is_suspended SMALLINT NOT NULL DEFAULT 0,
            deactivated_ts BIGINT
        )
        """,
        """
        CREATE TABLE devices (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            display_name TEXT,
            created_ts BIGINT NOT NULL,
            last_seen_ts BIGINT,
            last_seen_ip TEXT,
            last_seen_user_agent TEXT,
            PRIMARY KEY (user_id, device_id)
        )
        """,
        """
        CREATE TABLE access_tokens (
            token_nid BIGINT PRIMARY KEY,
            token_hash BYTEA NOT NULL UNIQUE,
            user_id TEXT NOT NULL,
            device_id TEXT,
            expires_ts BIGINT,
            -- the refresh token that this one came with
            refresh_nid BIGINT
        )
        """,
        "CREATE INDEX access_tokens_of_device ON access_tokens (user_id, device_id)",
        """
        CREATE TABLE refresh_tokens (
            refresh_nid BIGINT PRIMARY KEY,
            token_hash BYTEA NOT NULL UNIQUE,
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- the token that took this one's place; it is still good until that one is used
            next_nid BIGINT
        )
        """,
        "CREATE INDEX refresh_tokens_of_device ON refresh_tokens (user_id, device_id)",
        """
        CREATE TABLE login_tokens (
            token_hash BYTEA PRIMARY KEY,
            user_id TEXT NOT NULL,
            expires_ts BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE registration_tokens (
            token TEXT PRIMARY KEY,
            uses_allowed BIGINT,
            completed BIGINT NOT NULL,
            expires_ts BIGINT,
            created_ts BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE user_interactive_sessions (
            -- a hash of it
            session_id TEXT PRIMARY KEY,
            -- what the session may be used for: a hash of method, path, user
            purpose BYTEA NOT NULL,
            -- the body of the first request, sealed under the session id
            body BYTEA NOT NULL,
            -- JSON: what was proved by each completed stage
            completed TEXT NOT NULL,
            expires_ts BIGINT NOT NULL
        )
        """,
        """
        CREATE TABLE profiles (
            user_id TEXT NOT NULL,
            field TEXT NOT NULL,
            -- JSON as it goes out again
            value BYTEA NOT NULL,
            PRIMARY KEY (user_id, field)
        )
        """,
    ),
)

RETENTION = {
    "accounts": Retention(
        bounded_by="user", pruned_by="kept: the name of a deactivated account is not given out again"
    ),
    "devices": Retention(bounded_by="device", pruned_by="logout or the deletion of the device"),
    "access_tokens": Retention(
        bounded_by="device", pruned_by="logout, refresh or the deletion of the device"
    ),
    "refresh_tokens": Retention(
        bounded_by="device", pruned_by="the use of the next one, or the deletion of the device"
    ),
    "login_tokens": Retention(bounded_by="time", pruned_by="its use, or two minutes"),
    "registration_tokens": Retention(bounded_by="server", pruned_by="`restante registration-token revoke`"),
    "user_interactive_sessions": Retention(bounded_by="time", pruned_by="the end of the session, or an hour"),
    "profiles": Retention(bounded_by="user", pruned_by="the deactivation of the account"),
}
