"""When other servers were handed what waited for them, and what they were not handed."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=26,
    description="when events were handed over",
    statements=(
        """
        CREATE TABLE handovers (
            server_name TEXT NOT NULL,
            -- the events up to there were handed over by then
            position BIGINT NOT NULL,
            -- null where nobody took note
            ts BIGINT,
            PRIMARY KEY (server_name, position)
        ) /* without rowid */
        """,
        "INSERT INTO handovers (server_name, position, ts) SELECT server_name, position, NULL FROM destinations",
        """
        CREATE TABLE passed_over (
            server_name TEXT NOT NULL,
            -- what stands after this position and up to the other was passed over
            after_position BIGINT NOT NULL,
            upto_position BIGINT NOT NULL,
            -- why the server did not take it; null where it was away for long, and got the newest event of each room
            why TEXT,
            PRIMARY KEY (server_name, upto_position, after_position)
        ) /* without rowid */
        """,
    ),
)

_GONE = "the forgetting of the server"

RETENTION = {
    "handovers": Retention(
        bounded_by="server",
        pruned_by=f"newer ones: the older, the fewer are kept, some 300 for each server at most; {_GONE}",
    ),
    "passed_over": Retention(
        bounded_by="server", pruned_by=f"newer ones: the newest 100 of each server stay; {_GONE}"
    ),
}
