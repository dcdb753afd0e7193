"""How devices read on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.services.delivery_status import DeliveryStatus
from homeserver.sync.classic import ClassicSync
from homeserver.sync.device_lists import DeviceLists
from homeserver.sync.extras import Extras
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.missed.pages import MissedPages
from homeserver.sync.missed.plan import PlanMaker
from homeserver.sync.missed.rooms import MissedRoomReader
from homeserver.sync.missed.summary import MissedSummary
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
    from homeserver.config import Settings
    from homeserver.services.history import History
    from homeserver.storage.database import Database
    from homeserver.sync.delivered import Delivered


class ReadingLayer:
    """`/sync` and what it is made of."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stores: Stores,
        rooms: RoomLayer,
        views: ViewLayer,
        history: History,
        delivered: Delivered,
        clock: Clock,
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
        moves = MoveReader(stores.memberships, stores.events)
        missed_rooms = MissedRoomReader(rooms.memberships, moves, views.visibility)
        plans = PlanMaker(
            clock,
            stores.catch_ups,
            stores.missed,
            stores.account_data,
            views.ignored,
            stores.numbers,
        )
        self.missed_summary = MissedSummary(rooms.notifier, missed_rooms, plans, stores.missed, views.tokens)
        self.missed_pages = MissedPages(
            rooms.notifier,
            missed_rooms,
            plans,
            stores.missed,
            stores.events,
            rooms.reader,
            views.visibility,
            views.ignored,
            views.client_events,
            views.tokens,
            delivered,
        )
        self.sync = ClassicSync(
            rooms.notifier,
            clock,
            views.tokens,
            rooms.memberships,
            moves,
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
            Extras(
                clock,
                stores.account_data,
                stores.receipts,
                views.typing,
                views.presence,
                views.ignored,
                stores.delivery_news,
                views.delivery_sharing,
            ),
            self.device_lists,
            views.unread,
            views.ignored,
            LazyMembers(),
            self.inboxes,
            views.keys_left,
            delivered,
        )
        self.delivery_status = DeliveryStatus(
            ServerName(settings.server_name),
            settings.delivery_status,
            history,
            rooms.reader,
            views.visibility,
            delivered,
            stores.memberships,
            stores.devices,
            stores.device_positions,
            stores.left_out,
            stores.receipts,
            stores.delivery_news,
            stores.room_servers,
            stores.destinations,
            views.delivery_sharing,
        )
