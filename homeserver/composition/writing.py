"""How events enter rooms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homeserver.rooms.snapshots import SnapshotWriter
from homeserver.services.event_persistence import EventPersistence, EventStores
from homeserver.services.event_preparation import EventPreparation
from homeserver.services.event_writer import EventWriter
from homeserver.services.room_writes import RoomWrites

if TYPE_CHECKING:
    from crypto.keys import SigningKey
    from homeserver.clock import Clock
    from homeserver.composition.rooms import RoomLayer
    from homeserver.composition.stores import Stores
    from homeserver.ids import ServerName
    from homeserver.metrics import Metrics
    from homeserver.storage.database import Database


class WritingLayer:
    """The door by which an event enters a room, and what it is committed with."""

    def __init__(
        self,
        server_name: ServerName,
        database: Database,
        stores: Stores,
        rooms: RoomLayer,
        key: SigningKey,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.snapshots = SnapshotWriter(stores.state, stores.numbers)
        persistence = EventPersistence(
            server_name,
            database,
            EventStores(
                rooms=stores.rooms,
                events=stores.events,
                state=stores.state,
                numbers=stores.numbers,
                memberships=stores.memberships,
                outliers=stores.outliers,
                snapshots=self.snapshots,
                shared_rooms=stores.shared_rooms,
                room_servers=stores.room_servers,
                outgoing_events=stores.outgoing_events,
                relations=stores.relations,
                remote_device_lists=stores.remote_device_lists,
                highlights=stores.highlights,
                transaction_ids=stores.transaction_ids,
                typing=stores.typing,
            ),
            rooms.live,
            rooms.memberships,
            rooms.recent,
            rooms.notifier,
            metrics,
        )
        self.room_writes = RoomWrites(persistence)
        self.preparation = EventPreparation(server_name, rooms.live, stores.events)
        self.events = EventWriter(
            server_name, key, clock, rooms.live, stores.events, self.preparation, self.room_writes
        )
