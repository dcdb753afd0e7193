"""The keys of devices and users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.services.cross_signing import CrossSigning
from homeserver.services.dehydrated_devices import DehydratedDevices
from homeserver.services.device_keys import DeviceKeys
from homeserver.services.key_backups import KeyBackups
from homeserver.services.key_queries import KeyQueries
from homeserver.services.key_signatures import KeySignatures
from homeserver.services.one_time_keys import OneTimeKeys
from homeserver.services.remote_keys.claims import RemoteClaims

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.composition.people import PeopleLayer
    from homeserver.composition.remote import RemoteLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.views import ViewLayer
    from homeserver.ids import ServerName
    from homeserver.storage.database import Database


class KeyLayer:
    """Device keys, one-time keys, cross-signing, signatures, backups; what is asked of other servers too."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        stores: Stores,
        remote: RemoteLayer,
        views: ViewLayer,
        people: PeopleLayer,
        clock: Clock,
    ) -> None:
        self.backups = KeyBackups(database, stores.key_backups)
        self.cross_signing = CrossSigning(
            database,
            stores.devices,
            stores.device_keys,
            stores.cross_signing,
            stores.key_signatures,
            stores.device_lists,
        )
        self.signatures = KeySignatures(
            server_name,
            database,
            stores.device_keys,
            stores.cross_signing,
            stores.key_signatures,
            stores.device_lists,
            remote.keys,
        )
        self.queries = KeyQueries(
            server_name,
            stores.accounts,
            stores.device_keys,
            stores.cross_signing,
            stores.key_signatures,
            remote.keys,
            stores.device_lists,
        )
        self.one_time_keys = OneTimeKeys(
            server_name, database, stores.one_time_keys, RemoteClaims(remote.client, remote.calls)
        )
        self.device_keys = DeviceKeys(
            database,
            stores.devices,
            stores.device_keys,
            stores.key_signatures,
            stores.cross_signing,
            stores.one_time_keys,
            self.one_time_keys,
            stores.device_lists,
        )
        self.dehydrated_devices = DehydratedDevices(
            database,
            clock,
            stores.dehydrated_devices,
            people.devices,
            stores.devices,
            self.device_keys,
            stores.to_device,
            views.tokens,
        )
