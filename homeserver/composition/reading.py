"""How devices read on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.sync.classic import ClassicSync
from homeserver.sync.device_lists import DeviceLists
from homeserver.sync.extras import Extras
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.moves import MoveReader
from homeserver.sync.rooms import RoomSections
from homeserver.sync.state import StateReader
from homeserver.sync.summaries import Summaries
from homeserver.sync.timeline import TimelineReader
from homeserver.sync.to_device import Inboxes

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.views import ViewLayer
    from homeserver.storage.database import Database


class ReadingLayer:
    """`/sync` and what it is made of."""

    def __init__(
        self, database: Database, stores: Stores, rooms: RoomLayer, views: ViewLayer, clock: Clock
    ) -> None:
        self.inboxes = Inboxes(database, stores.to_device)
        self.device_lists = DeviceLists(
            rooms.notifier,
            views.tokens,
            rooms.memberships,
            stores.memberships,
            stores.shared_rooms,
            stores.device_lists,
            stores.key_signatures,
        )
        self.sync = ClassicSync(
            rooms.notifier,
            clock,
            views.tokens,
            rooms.memberships,
            MoveReader(stores.memberships, stores.events),
            stores.rooms,
            RoomSections(
                rooms.reader,
                TimelineReader(rooms.recent, views.visibility),
                StateReader(rooms.recent, stores.events, stores.state, stores.numbers),
                Summaries(rooms.notifier, rooms.recent, stores.memberships),
                views.client_events,
                views.tokens,
                stores.stripped_state,
            ),
            Extras(clock, stores.account_data, stores.receipts, views.typing, views.presence, views.ignored),
            self.device_lists,
            views.unread,
            views.ignored,
            LazyMembers(),
            self.inboxes,
            views.keys_left,
        )
