"""What each device has acknowledged, what its answers left out, and what senders are to hear of it."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=22,
    description="delivery status",
    statements=(
        """
        CREATE TABLE device_positions (
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- the device has acknowledged the answers up to there
            position BIGINT NOT NULL,
            -- JSON: [[position, when it was acknowledged], ...], the newest last
            acknowledged TEXT NOT NULL,
            PRIMARY KEY (user_id, device_id)
        ) /* without rowid */
        """,
        """
        CREATE TABLE left_out (
            room_nid BIGINT NOT NULL,
            user_id TEXT NOT NULL,
            device_id TEXT NOT NULL,
            -- what stands after this position and up to the other was not in an answer
            after_position BIGINT NOT NULL,
            upto_position BIGINT NOT NULL,
            PRIMARY KEY (room_nid, user_id, device_id, after_position)
        ) /* without rowid */
        """,
        "CREATE INDEX left_out_by_device ON left_out (user_id, device_id)",
        """
        CREATE TABLE delivery_news (
            -- whose events it is about, and who is told
            sender TEXT NOT NULL,
            room_id TEXT NOT NULL,
            user_id TEXT NOT NULL,
            -- homeserver.storage.delivery_news
            kind TEXT NOT NULL,
            -- empty where the newest event takes the place of an older one
            event_key TEXT NOT NULL,
            event_id TEXT NOT NULL,
            ts BIGINT NOT NULL,
            stream_id BIGINT NOT NULL,
            PRIMARY KEY (sender, room_id, user_id, kind, event_key)
        ) /* without rowid */
        """,
        "CREATE INDEX delivery_news_by_position ON delivery_news (sender, stream_id)",
        "CREATE INDEX delivery_news_by_age ON delivery_news (ts)",
    ),
)

RETENTION = {
    "device_positions": Retention(bounded_by="device", pruned_by="the end of the device"),
    "left_out": Retention(
        bounded_by="device",
        pruned_by="whatever brings the range; the end of the device; beyond 5,000 the oldest",
    ),
    "delivery_news": Retention(bounded_by="time", pruned_by="thirty days"),
}
