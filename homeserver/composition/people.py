"""Accounts, devices and what belongs to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.services.access_tokens import AccessTokens
from homeserver.services.account_data import AccountData
from homeserver.services.accounts import Accounts
from homeserver.services.delivery_receipts import DeliveryReceipts
from homeserver.services.devices import Devices
from homeserver.services.filters import Filters
from homeserver.services.logins import Logins
from homeserver.services.openid import OpenId
from homeserver.services.passwords import Passwords
from homeserver.services.presence import Presence
from homeserver.services.profiles import Profiles
from homeserver.services.receipts import Receipts
from homeserver.services.registration import Registration
from homeserver.services.to_device import ToDevice
from homeserver.services.typing import Typing
from homeserver.services.user_interactive import UserInteractive

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.views import ViewLayer
    from homeserver.composition.writing import WritingLayer
    from homeserver.config import Settings
    from homeserver.http.rate_limits import RateLimits
    from homeserver.storage.database import Database


class PeopleLayer:
    """Accounts, sessions, devices, profiles and data of users; no rooms of theirs but by `reader` and `writer`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stores: Stores,
        rooms: RoomLayer,
        views: ViewLayer,
        writing: WritingLayer,
        clock: Clock,
        rate_limits: RateLimits,
    ) -> None:
        server_name = ServerName(settings.server_name)
        reader = rooms.reader
        self.receipts = Receipts(
            database, clock, stores.receipts, stores.account_data, stores.highlights, reader
        )
        self.presence = Presence(
            server_name, database, clock, stores.presence, reader, enabled=settings.presence.enabled
        )
        self.delivery_receipts = DeliveryReceipts(
            database, clock, reader, views.visibility, stores.delivery_news, views.delivery_sharing
        )
        self.typing = Typing(database, clock, stores.typing, reader)
        self.profiles = Profiles(
            server_name, database, stores.profiles, stores.accounts, reader, writing.events
        )
        self.account_data = AccountData(database, stores.account_data, reader)
        self.filters = Filters(database, stores.filters)
        self.to_device = ToDevice(
            server_name,
            database,
            clock,
            stores.to_device,
            stores.devices,
            rate_limits,
            stores.outgoing_to_device if settings.federation.enabled else None,
        )
        passwords = Passwords(settings.passwords.hash_cost)
        self.devices = Devices(
            database,
            stores.devices,
            stores.access_tokens,
            stores.cross_signing,
            (
                stores.to_device,
                stores.sliding_sync,
                stores.dehydrated_devices,
                stores.device_keys,
                stores.one_time_keys,
                stores.key_signatures,
                stores.catch_ups,
                stores.device_positions,
                stores.left_out,
                stores.room_arrivals,
                stores.owed_rooms,
            ),
        )
        self.accounts = Accounts(
            server_name,
            database,
            clock,
            stores.accounts,
            stores.access_tokens,
            stores.profiles,
            self.devices,
            passwords,
            rate_limits,
        )
        self.access_tokens = AccessTokens(database, clock, stores.access_tokens, stores.devices)
        self.logins = Logins(
            database,
            clock,
            self.accounts,
            stores.accounts,
            self.access_tokens,
            stores.access_tokens,
            stores.devices,
            self.devices,
            stores.dehydrated_devices,
        )
        self.registration = Registration(
            database,
            clock,
            settings.registration,
            self.accounts,
            self.logins,
            passwords,
            stores.registration_tokens,
        )
        self.user_interactive = UserInteractive(
            database,
            clock,
            stores.user_interactive,
            stores.registration_tokens,
            self.accounts,
            settings.registration.terms,
        )
        self.openid = OpenId(server_name, database, clock, stores.openid_tokens)
