"""Rooms in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.notifier.notifier import Notifier
from homeserver.rooms.hosted_rooms import HostedRooms
from homeserver.rooms.live_rooms import LiveRooms
from homeserver.rooms.memberships import Memberships
from homeserver.rooms.reader import RoomReader
from homeserver.rooms.recent_events import RecentEvents
from homeserver.rooms.room_servers import RoomServers

if TYPE_CHECKING:
    from homeserver.composition.stores import Stores
    from homeserver.ids import ServerName
    from homeserver.storage.database import Database


class RoomLayer:
    """What is held of rooms and memberships in memory, and who waits for what is new in them."""

    def __init__(self, database: Database, stores: Stores, server_name: ServerName, budget: int) -> None:
        self.live = LiveRooms(stores.rooms, stores.events)
        self.memberships = Memberships(stores.memberships)
        self.notifier = Notifier(database.position, self.memberships.known, self.memberships.of_user)
        self.recent = RecentEvents(stores.events, budget // 8)
        self.hosted = HostedRooms(server_name, self.live, stores.memberships, stores.room_servers)
        self.servers = RoomServers(server_name, self.hosted, stores.room_servers)
        self.reader = RoomReader(
            self.live,
            stores.events,
            stores.state,
            stores.numbers,
            self.memberships,
            stores.memberships,
            self.servers,
        )
