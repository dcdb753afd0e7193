"""Which threads users have subscribed to."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=27,
    description="thread subscriptions",
    statements=(
        """
        CREATE TABLE thread_subscriptions (
            user_id TEXT NOT NULL,
            room_id TEXT NOT NULL,
            thread_root TEXT NOT NULL,
            -- 0 for one that was ended: clients hear of that, and older mentions do not begin it anew
            is_subscribed SMALLINT NOT NULL,
            -- 1 where a client subscribed by itself, on a mention
            automatic SMALLINT NOT NULL,
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (user_id, room_id, thread_root)
        )
        """,
        "CREATE INDEX thread_subscriptions_by_position ON thread_subscriptions (user_id, stream_id)",
    ),
)

RETENTION = {
    "thread_subscriptions": Retention(
        bounded_by="user",
        pruned_by="the forgetting of the room, the deactivation of the account; of 10,000 the oldest ended one goes",
    ),
}
