"""Other servers, as we call them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.remote_servers import RemoteServers
from federation.transport import Transport
from homeserver.http.trust import http_client_tls
from homeserver.ids import ServerName
from homeserver.services.identity_servers import IdentityServers
from homeserver.services.remote_keys.queries import RemoteKeys
from homeserver.services.remote_lookups import RemoteLookups
from homeserver.services.remote_spaces import RemoteSpaces
from homeserver.services.server_calls import ServerCalls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from ssl import SSLContext

    from crypto.keys import SigningKey
    from federation.resolver import Resolver
    from homeserver.clock import Clock
    from homeserver.composition.stores import Stores
    from homeserver.config import Settings
    from homeserver.storage.database import Database


class RemoteLayer:
    """Finding, trusting and calling other servers, and the keys of their users."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stores: Stores,
        keys: Sequence[SigningKey],
        clock: Clock,
        tls: SSLContext,
        resolver: Resolver,
    ) -> None:
        server_name = ServerName(settings.server_name)
        self.servers = RemoteServers(
            server_name,
            keys,
            tls,
            resolver,
            stores.server_keys,
            clock,
            allow_private_addresses=settings.federation.allow_private_addresses,
            key_servers=settings.federation.key_servers,
            enabled=settings.federation.enabled,
        )
        self.client = self.servers.client
        self.calls = ServerCalls(clock)
        self.keys = RemoteKeys(
            database, stores.remote_device_lists, stores.device_lists, self.client, self.calls
        )
        self.lookups = RemoteLookups(server_name, self.client, self.calls)
        self.spaces = RemoteSpaces(server_name, self.client, self.calls, clock)
        self.outside = Transport(
            resolver,
            http_client_tls(settings.http_client),
            allow_private_addresses=settings.http_client.allow_private_addresses,
        )
        self.identity_servers = IdentityServers(self.outside)

    async def close(self) -> None:
        """End what is under way."""
        await self.keys.close()
        await self.outside.close()
        await self.servers.close()
