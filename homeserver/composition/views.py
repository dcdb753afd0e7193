"""What readers are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.views.aggregations import Aggregations
from homeserver.views.client_events import ClientEvents
from homeserver.views.delivery_sharing import DeliverySharing
from homeserver.views.erasure import Erasure
from homeserver.views.ignored import IgnoredUsers
from homeserver.views.invite_permission import InvitesBlocked
from homeserver.views.keys_left import KeysLeftNow
from homeserver.views.presence import PresenceNow
from homeserver.views.room_marks import RoomMarks
from homeserver.views.subscribed_threads import SubscribedThreads
from homeserver.views.tokens import Tokens
from homeserver.views.typing import TypingNow
from homeserver.views.unread import UnreadCounts
from homeserver.views.visibility import HistoryVisibility

if TYPE_CHECKING:
    from crypto.keys import SigningKey
    from homeserver.clock import Clock
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.config import Settings
    from homeserver.storage.database import Database


class ViewLayer:
    """Tokens, visibility, the client form of events, and what is held in memory of a reader's surroundings."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        stores: Stores,
        rooms: RoomLayer,
        key: SigningKey,
        clock: Clock,
        budget: int,
    ) -> None:
        # The secret comes from the oldest signing key: it outlives restarts, and a new key to sign with.
        self.tokens = Tokens(bytes(key.private), database.epoch, database)
        self.ignored = IgnoredUsers(stores.account_data)
        self.invites_blocked = InvitesBlocked(stores.account_data)
        self.visibility = HistoryVisibility(
            rooms.memberships, stores.memberships, stores.state, stores.events, stores.numbers
        )
        self.erasure = Erasure(stores.accounts, self.visibility)
        self.client_events = ClientEvents(
            clock,
            stores.events,
            self.visibility,
            Aggregations(stores.relations, stores.events, stores.numbers, self.visibility, self.ignored),
            self.erasure,
            budget // 8,
        )
        self.subscribed_threads = SubscribedThreads(stores.thread_subscriptions)
        self.unread = UnreadCounts(
            stores.highlights,
            stores.receipts,
            stores.numbers,
            self.ignored,
            self.subscribed_threads,
            rooms.recent,
            self.visibility,
        )
        self.room_marks = RoomMarks(stores.account_data)
        self.typing = TypingNow(clock, stores.typing)
        self.presence = PresenceNow(database.position, stores.presence, rooms.memberships)
        self.delivery_sharing = DeliverySharing(settings.delivery_status, stores.account_data, stores.rooms)
        self.keys_left = KeysLeftNow(stores.one_time_keys)
