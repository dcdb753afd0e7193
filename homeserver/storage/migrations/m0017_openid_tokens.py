"""OpenID tokens."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=17,
    description="OpenID tokens",
    statements=(
        """
        CREATE TABLE openid_tokens (
            token_hash BYTEA PRIMARY KEY,
            user_id TEXT NOT NULL,
            stream_id BIGINT NOT NULL,
            expires_ts BIGINT NOT NULL
        )
        """,
        "CREATE INDEX openid_tokens_of_user ON openid_tokens (user_id, stream_id)",
    ),
)

RETENTION = {
    "openid_tokens": Retention(
        bounded_by="time", pruned_by="an hour after it was given out; of a user's tokens the newest stay"
    )
}
