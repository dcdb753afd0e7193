"""Media: what users here have uploaded, and what is kept of other servers' for a while."""

from __future__ import annotations

from homeserver.storage.migrations.migration import Migration
from homeserver.storage.retention import Retention

MIGRATION = Migration(
    number=21,
    description="media",
    statements=(
        """
        CREATE TABLE media (
            -- mxc://server_name/media_id
            server_name TEXT NOT NULL,
            media_id TEXT NOT NULL,
            -- who uploaded it, or is about to; none where it is another server's
            user_id TEXT,
            created_ts BIGINT NOT NULL,
            -- when somebody wanted it last; of other servers' media only, and not to the minute
            accessed_ts BIGINT NOT NULL,
            -- until when the content must come that is not there yet
            expires_ts BIGINT,
            -- the content; the same content is one file, whoever uploads it
            file_name TEXT,
            size BIGINT,
            sha256 BYTEA,
            content_type TEXT,
            upload_name TEXT,
            PRIMARY KEY (server_name, media_id)
        )
        """,
        "CREATE INDEX media_of_user ON media (user_id, size) WHERE user_id IS NOT NULL",
        "CREATE INDEX media_of_others ON media (accessed_ts, size) WHERE user_id IS NULL",
        "CREATE INDEX media_to_come ON media (expires_ts) WHERE expires_ts IS NOT NULL",
        "CREATE INDEX media_by_content ON media (sha256) WHERE sha256 IS NOT NULL",
        "CREATE INDEX media_by_file ON media (file_name) WHERE file_name IS NOT NULL",
        """
        CREATE TABLE media_thumbnails (
            -- the file that it was made of
            file_name TEXT NOT NULL,
            width BIGINT NOT NULL,
            height BIGINT NOT NULL,
            method TEXT NOT NULL,
            is_animated SMALLINT NOT NULL,
            -- the file of the thumbnail; that which it was made of, where nothing had to be made
            thumbnail_name TEXT NOT NULL,
            size BIGINT NOT NULL,
            sha256 BYTEA NOT NULL,
            content_type TEXT NOT NULL,
            PRIMARY KEY (file_name, width, height, method, is_animated)
        )
        """,
        """
        -- files that nobody refers to: being written, given up, or no longer wanted
        CREATE TABLE media_strays (
            name TEXT PRIMARY KEY,
            since_ts BIGINT NOT NULL,
            is_given_up SMALLINT NOT NULL
        )
        """,
        "CREATE INDEX media_strays_given_up ON media_strays (is_given_up, since_ts)",
    ),
)

RETENTION = {
    "media": Retention(
        bounded_by="user",
        pruned_by="nothing where it was uploaded here, and media.max_bytes_per_user bounds it;"
        " of other servers, some time after it was last wanted, or where it takes too much room;"
        " what never came, a day after it was to come",
    ),
    "media_thumbnails": Retention(bounded_by="server", pruned_by="the end of the file that it was made of"),
    "media_strays": Retention(
        bounded_by="server", pruned_by="the deletion of the file; a day after it was begun at the latest"
    ),
}
