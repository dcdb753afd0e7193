"""The content repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.services.media.arrivals import Arrivals
from homeserver.services.media.contents import Contents
from homeserver.services.media.elsewhere import Elsewhere
from homeserver.services.media.housekeeping import MediaHousekeeping
from homeserver.services.media.image_workers import ImageWorkers
from homeserver.services.media.new_files import NewFiles
from homeserver.services.media.remote import RemoteContents
from homeserver.services.media.thumbnails import Thumbnails
from homeserver.services.media.uploads import Uploads
from homeserver.services.server_calls import ServerCalls

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.composition.remote import RemoteLayer
    from homeserver.composition.stores import Stores
    from homeserver.config import Settings
    from homeserver.storage.database import Database
    from homeserver.storage.media_files import MediaFiles


class MediaLayer:
    """Uploads, downloads, thumbnails, and media of other servers."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stores: Stores,
        remote: RemoteLayer,
        files: MediaFiles,
        clock: Clock,
    ) -> None:
        server_name = ServerName(settings.server_name)
        new_files = NewFiles(database, clock, stores.media_strays, files)
        self.arrivals = Arrivals()
        # A slow download must not keep questions for keys waiting.
        self.calls = ServerCalls(clock)
        self.remote = RemoteContents(
            database,
            clock,
            stores.media,
            new_files,
            remote.client,
            self.calls,
            Elsewhere(remote.outside),
            max_bytes=settings.media.max_upload_bytes,
            enabled=settings.federation.enabled,
        )
        self.contents = Contents(server_name, clock, stores.media, files, self.arrivals, self.remote)
        self.uploads = Uploads(server_name, settings.media, database, clock, stores.media, new_files)
        workers = ImageWorkers()
        self.thumbnails = Thumbnails(database, stores.thumbnails, self.contents, new_files, workers)
        self.housekeeping = MediaHousekeeping(
            settings.media.remote,
            database,
            clock,
            stores.media,
            stores.media_strays,
            new_files,
            self.remote,
            workers,
        )

    async def close(self) -> None:
        """End what is under way."""
        await self.remote.close()
        await self.thumbnails.close()
