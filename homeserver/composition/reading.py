"""How devices read on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.ids import ServerName
from homeserver.services.delivered_devices import DeliveredDevices
from homeserver.services.delivery_status import DeliveryStatus
from homeserver.services.handovers import Handovers
from homeserver.services.recipients import Recipients
from homeserver.sync.answers import AnswerBuilder
from homeserver.sync.budget import Importance
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
from homeserver.sync.sliding.bump_stamps import BumpStamps
from homeserver.sync.sliding.connections import Connections
from homeserver.sync.sliding.engine import SlidingSync
from homeserver.sync.sliding.extensions import Extensions
from homeserver.sync.sliding.room_lists import RoomLists
from homeserver.sync.sliding.room_metadata import RoomMetadata
from homeserver.sync.sliding.room_order import RoomOrders
from homeserver.sync.sliding.room_state import WantedState
from homeserver.sync.sliding.room_traits import RoomTraits
from homeserver.sync.sliding.rooms import RoomResults
from homeserver.sync.sliding.rooms_together import RoomsTogether
from homeserver.sync.sliding.thread_subscriptions import ThreadSubscriptionNews
from homeserver.sync.sliding.told import Told
from homeserver.sync.state import StateReader
from homeserver.sync.stripped_states import StrippedStates
from homeserver.sync.summaries import Summaries
from homeserver.sync.timeline import TimelineReader
from homeserver.sync.to_device import Inboxes

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.composition.delivered import DeliveredLayer
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.views import ViewLayer
    from homeserver.config import Settings
    from homeserver.services.history import History
    from homeserver.storage.database import Database


class ReadingLayer:
    """`/sync`, classic and sliding, and what it is made of."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stores: Stores,
        rooms: RoomLayer,
        views: ViewLayer,
        history: History,
        delivered: DeliveredLayer,
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
            views.room_marks,
            views.ignored,
            stores.numbers,
        )
        self.missed_summary = MissedSummary(
            rooms.notifier, missed_rooms, plans, stores.missed, views.tokens, stores.owed_rooms
        )
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
            delivered.delivered,
            delivered.left_out,
            stores.owed_rooms,
            clock,
        )
        timelines = TimelineReader(stores.events, rooms.recent, views.visibility)
        summaries = Summaries(rooms.notifier, rooms.recent, stores.memberships)
        stripped_states = StrippedStates(rooms.reader, stores.stripped_state)
        extras = Extras(
            clock,
            stores.account_data,
            stores.receipts,
            views.typing,
            views.presence,
            views.ignored,
            stores.delivery_news,
            views.delivery_sharing,
        )
        lazy_members = LazyMembers()
        answers = AnswerBuilder(
            rooms.notifier,
            views.tokens,
            moves,
            stores.rooms,
            RoomSections(
                rooms.recent,
                timelines,
                StateReader(rooms.recent, stores.events, stores.state, stores.numbers),
                summaries,
                views.client_events,
                views.tokens,
                stripped_states,
                views.visibility,
                views.unread,
            ),
            extras,
            self.device_lists,
            views.unread,
            Importance(views.room_marks, stores.missed, stores.rooms),
        )
        self.sync = ClassicSync(
            rooms.notifier,
            clock,
            views.tokens,
            rooms.memberships,
            answers,
            views.ignored,
            views.invites_blocked,
            lazy_members,
            self.inboxes,
            views.keys_left,
            delivered.delivered,
            delivered.left_out,
            stores.owed_rooms,
        )
        server_name = ServerName(settings.server_name)
        self.delivery_status = DeliveryStatus(
            history,
            rooms.reader,
            stores.memberships,
            views.delivery_sharing,
            Recipients(
                server_name,
                stores.memberships,
                views.visibility,
                views.delivery_sharing,
                DeliveredDevices(
                    delivered.delivered,
                    views.visibility,
                    stores.devices,
                    stores.device_positions,
                    stores.left_out,
                    stores.owed_rooms,
                    stores.room_arrivals,
                ),
                stores.receipts,
                stores.delivery_news,
            ),
            Handovers(
                server_name,
                stores.room_servers,
                stores.shared_rooms,
                stores.destinations,
                stores.handovers,
            ),
        )
        orders = RoomOrders(rooms.notifier, rooms.memberships, stores.memberships)
        wanted_state = WantedState(stores.events, stores.state, stores.numbers)
        bump_stamps = BumpStamps(rooms.recent, stores.rooms)
        self.sliding_sync = SlidingSync(
            rooms.notifier,
            clock,
            views.tokens,
            Connections(database, stores.sliding_sync, clock),
            RoomLists(
                orders,
                RoomTraits(rooms.reader, views.visibility, stores.stripped_state),
                views.room_marks,
                views.ignored,
                views.invites_blocked,
                moves,
            ),
            moves,
            RoomsTogether(
                rooms.recent,
                wanted_state,
                summaries,
                bump_stamps,
                views.visibility,
                views.client_events,
                views.unread,
            ),
            RoomResults(
                rooms.recent,
                timelines,
                wanted_state,
                RoomMetadata(wanted_state, summaries),
                bump_stamps,
                views.visibility,
                views.client_events,
                stripped_states,
                views.unread,
                views.tokens,
            ),
            Extensions(
                views.tokens,
                self.inboxes,
                self.device_lists,
                views.keys_left,
                stores.account_data,
                stores.receipts,
                rooms.recent,
                extras,
                ThreadSubscriptionNews(stores.thread_subscriptions, views.tokens),
            ),
            stores.receipts,
            lazy_members,
            Told(delivered.delivered, orders, moves),
        )
