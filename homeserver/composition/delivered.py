"""What devices have got."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.sync.delivered import Delivered
from homeserver.sync.delivered_positions import DeliveredPositions
from homeserver.sync.delivered_rooms import DeliveredRooms
from homeserver.sync.delivery_reports import DeliveryReports
from homeserver.sync.left_out import LeftOut

if TYPE_CHECKING:
    from homeserver.clock import Clock
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.composition.views import ViewLayer
    from homeserver.ids import ServerName
    from homeserver.storage.database import Database


class DeliveredLayer:
    """What devices acknowledge, and what answers left out."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        stores: Stores,
        rooms: RoomLayer,
        views: ViewLayer,
        clock: Clock,
    ) -> None:
        sharing = views.delivery_sharing
        reports = DeliveryReports(
            server_name, rooms.notifier, stores.rooms, rooms.memberships, rooms.recent, sharing
        )
        self.left_out = LeftOut(database, stores.left_out, sharing)
        self.delivered = Delivered(
            database,
            clock,
            DeliveredPositions(
                stores.device_positions,
                stores.owed_rooms,
                self.left_out,
                reports,
            ),
            DeliveredRooms(stores.room_arrivals, sharing, reports),
            stores.delivery_news,
            self.left_out,
            is_on=sharing.is_on,
        )
