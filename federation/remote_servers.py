"""Everything with which a server calls others, built together: what is done with it is in the modules of the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.client import FederationClient
from federation.discovery import Discovery
from federation.keyring import Keyring
from federation.signed_requests import SignedRequests
from federation.transport import Transport
from federation.well_known import WellKnownLookup

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from crypto.keys import SigningKey
    from federation.keyring import KeyClock, KeyStore
    from federation.resolver import Resolver


class RemoteServers:
    """The client, the keyring, and what both stand on."""

    def __init__(
        self,
        server_name: str,
        own_keys: Sequence[SigningKey],
        tls: ssl.SSLContext,
        resolver: Resolver,
        key_store: KeyStore,
        clock: KeyClock,
        *,
        allow_private_addresses: bool = False,
        key_servers: Sequence[str] = (),
        enabled: bool = True,
    ) -> None:
        self._transport = Transport(resolver, tls, allow_private_addresses=allow_private_addresses)
        self._well_known = WellKnownLookup(self._transport, clock.monotonic)
        requests = SignedRequests(
            server_name, own_keys[0], Discovery(self._well_known, resolver), self._transport, enabled=enabled
        )
        self.client = FederationClient(requests)
        self.keyring = Keyring(server_name, own_keys, self.client, key_store, clock, key_servers)

    async def close(self) -> None:
        """End what is under way, and let go of all connections."""
        await self.keyring.close()
        await self._well_known.close()
        await self._transport.close()
