"""How other servers are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from federation.sender import Sender
from homeserver.delivery.device_updates import DeviceUpdates
from homeserver.delivery.greetings import Greetings
from homeserver.delivery.passing import PassingNotices
from homeserver.delivery.server_delivery import ServerDelivery
from homeserver.delivery.servers import OutboxStores, ServerOutbox
from homeserver.ids import random_string

if TYPE_CHECKING:
    from federation.sender import Courier
    from homeserver.clock import Clock
    from homeserver.composition.keys import KeyLayer
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.ids import ServerName
    from homeserver.metrics import Metrics
    from homeserver.storage.database import Database


def build_delivery(
    server_name: ServerName,
    database: Database,
    stores: Stores,
    rooms: RoomLayer,
    keys: KeyLayer,
    courier: Courier,
    clock: Clock,
    metrics: Metrics,
) -> ServerDelivery:
    """The cursors of other servers over the log; `courier` takes the transactions."""
    process_id = random_string(20)
    passing = PassingNotices(
        server_name,
        database,
        clock,
        stores.typing,
        stores.receipts,
        stores.delivery_news,
        stores.presence,
        rooms.live,
        rooms.memberships,
        stores.room_servers,
    )
    outbox = ServerOutbox(
        database,
        clock,
        OutboxStores(
            destinations=stores.destinations,
            outgoing_events=stores.outgoing_events,
            to_device=stores.outgoing_to_device,
            events=stores.events,
            handovers=stores.handovers,
        ),
        DeviceUpdates(stores.outgoing_devices, stores.devices, stores.events, keys.queries),
        passing,
        process_id,
    )
    passing.is_away = outbox.is_away
    sender = Sender(server_name, courier, outbox, metrics, clock.now_ms)
    return ServerDelivery(
        server_name,
        database,
        clock,
        sender,
        outbox,
        passing,
        Greetings(clock, sender, stores.destinations),
        rooms.memberships,
        stores.room_servers,
        stores.destinations,
        stores.outgoing_events,
        stores.outgoing_devices,
        process_id,
    )
